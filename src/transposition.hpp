#pragma once

#include <cstdint>

#include "convolith/types.hpp"

namespace convolith {

/// destination[n][r][c] = source[n * batch_stride + c * column_stride + r], the destination dense:
/// how one data format is copied from the other.
struct Transposition {
  std::int64_t batch, rows, columns;
  std::int64_t batch_stride, column_stride;  ///< in elements
};
void transpose(DType dtype, const Transposition& shape, const void* source, void* destination,
               int threads) noexcept;

}  // namespace convolith
