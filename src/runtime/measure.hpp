#pragma once

#include <cstddef>

#include "convolith/types.hpp"

namespace convolith {

/// Flops a second of independent multiply-adds in registers, `threads` at once: the median of
/// short bursts, 0.1 to 0.3 s in all.
double measure_peak(DType dtype, int threads);

/// Bytes a second, read and written, of copying `bytes` from one array to another, likewise.
double measure_copy(std::size_t bytes, int threads);

}  // namespace convolith
