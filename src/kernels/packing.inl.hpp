#pragma once

// Rows of pixels packed with their padding, and what becomes of finished sums.

#include "kernels/depthwise_table.hpp"
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
    const T* from = row + column;
    if (count == 1) {
      *to = *from;
    } else if (step == 1) {
      std::int64_t i = 0;
      for (; i + kLanes<T> <= count; i += kLanes<T>) store<T>(to + i, load(from + i));
      if (i < count) store<T>(to + i, load_partial(from + i, static_cast<int>(count - i)));
    } else if (step == 2) {
      std::int64_t i = 0;
      for (; i + kLanes<T> <= count; i += kLanes<T>) store<T>(to + i, load_every_other(from + 2 * i));
      if (i < count) {
        const int span = 2 * static_cast<int>(count - i) - 1;  // < 2 lanes - 1
        const int behind = span - (kLanes<T> - 1);
        const T* p = from + 2 * i;
        const Vec<T> low = load_upto(p, span);
        const Vec<T> high = behind > 0 ? load_partial(p + kLanes<T> - 1, behind) : zero<T>();
        store<T>(to + i, every_other<T>(low, high));
      }
    } else {
      for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * step];
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
