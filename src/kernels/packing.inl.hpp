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

/// Up to lanes - 1 elements behind the last of a run may be written.
template <class T>
CONVOLITH_INLINE void pack_row(const T* row, const PackedRun* runs, std::int64_t run_count,
                               T* packed) {
  for (std::int64_t n = 0; n < run_count; ++n) {
    const PackedRun run = runs[n];  // a copy: stores to packed might change the original
    T* to = packed + run.place;
    if (run.column < 0) {
      for (std::int64_t i = 0; i < run.count; i += kLanes<T>) {
        const std::int64_t left = run.count - i;
        store_upto<T>(to + i, zero<T>(), left < kLanes<T> ? static_cast<int>(left) : kLanes<T>);
      }
      continue;
    }
    const T* from = row + run.column;
    if (run.count == 1) {
      *to = *from;
    } else if (run.step == 1) {
      std::int64_t i = 0;
      for (; i + kLanes<T> <= run.count; i += kLanes<T>) store<T>(to + i, load(from + i));
      if (i < run.count) {
        store<T>(to + i, load_partial(from + i, static_cast<int>(run.count - i)));
      }
    } else if (run.step == 2) {
      std::int64_t i = 0;
      for (; i + kLanes<T> <= run.count; i += kLanes<T>) {
        store<T>(to + i, load_every_other(from + 2 * i));
      }
      if (i < run.count) {
        const int span = 2 * static_cast<int>(run.count - i) - 1;  // < 2 lanes - 1
        const int behind = span - (kLanes<T> - 1);
        const T* p = from + 2 * i;
        const Vec<T> low = load_upto(p, span);
        const Vec<T> high =
            behind > 0 ? load_partial(p + kLanes<T> - 1, behind) : zero<T>();
        store<T>(to + i, every_other<T>(low, high));
      }
    } else {
      for (std::int64_t i = 0; i < run.count; ++i) to[i] = from[i * run.step];
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
