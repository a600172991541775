#pragma once

#include <cstddef>

#include "convolith/types.hpp"

namespace convolith {

/// Flops a second of independent multiply-adds in registers, `threads` at once: the best of
/// several short bursts, about 0.1 s in all.
double measure_peak(DType dtype, int threads);

/// Bytes a second, read and written, of copying `bytes` from one array to another.
double measure_copy(std::size_t bytes, int threads);

}  // namespace convolith
