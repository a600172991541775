#pragma once

// Rows of pixels packed with their padding, and what becomes of finished sums.

#include "kernels/depthwise_table.hpp"
#include "kernels/strided_copy.inl.hpp"
#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr bool kManyRegisters = kVectorBytes == 64;

template <class T>
CONVOLITH_INLINE Vec<T> finished(const SumStore<T>& store, Vec<T> v) {
  if (!store.clamp) return v;
  return min_keeping_nan<T>(max_keeping_nan<T>(v, broadcast(store.least)),
                            broadcast(store.greatest));
}

/// How many of `count` elements the next vector takes.
template <class T>
CONVOLITH_INLINE int lanes_left(std::int64_t count) {
  return count < kLanes<T> ? static_cast<int>(count) : kLanes<T>;
}

/// Up to lanes - 1 elements behind the last of a run may be written.
template <class T>
CONVOLITH_INLINE void pack_row(const T* row, const PackedRun* runs, std::int64_t run_count,
                               T* packed) {
  for (std::int64_t n = 0; n < run_count; ++n) {
    // Copies: stores to packed might change the originals.
    const std::int64_t count = runs[n].count, step = runs[n].step, column = runs[n].column;
    T* to = packed + runs[n].place;
    if (column < 0) {
      for (std::int64_t i = 0; i < count; i += kLanes<T>) {
        store_upto<T>(to + i, zero<T>(), lanes_left<T>(count - i));
      }
      continue;
    }
    if (count == 1) {
      *to = row[column];
    } else {
      copy_steps<T, true>(count, row + column, step, to);
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
