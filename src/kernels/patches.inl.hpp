#pragma once

// Packing for implicit GEMM: the patches that a tile of output pixels reads, as rows (channels
// touch) or as columns (pixels touch), and the weights in the order of the patches.

#include "kernels/strided_copy.inl.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
void copy_segments(const CopySegment<T>* segments, int count) {
  for (int i = 0; i < count; ++i) {
    const CopySegment<T>& segment = segments[i];
    const T* source = segment.source;
    T* to = segment.destination;
    const auto whole = segment.count / kLanes<T> * kLanes<T>;
    const auto rest = static_cast<int>(segment.count - whole);
    if (source == nullptr) {
      for (std::int64_t j = 0; j < whole; j += kLanes<T>) store<T>(to + j, zero<T>());
      if (rest > 0) store_partial<T>(to + whole, zero<T>(), rest);
    } else {
      for (std::int64_t j = 0; j < whole; j += kLanes<T>) store<T>(to + j, load(source + j));
      if (rest > 0) store_partial<T>(to + whole, load_partial(source + whole, rest), rest);
    }
  }
}

template <class T>
void clear_rows(std::int64_t rows, std::int64_t columns, T* destination, std::int64_t row_stride) {
  for (std::int64_t r = 0; r < rows; ++r, destination += row_stride) {
    std::int64_t i = 0;
    for (; i + kLanes<T> <= columns; i += kLanes<T>) store<T>(destination + i, zero<T>());
    if (i < columns) {
      store_partial<T>(destination + i, zero<T>(), static_cast<int>(columns - i));
    }
  }
}

template <class T>
void copy_strided(std::int64_t count, const T* source, std::int64_t step, T* destination) {
  copy_steps<T, false>(count, source, step, destination);
}

template <class T>
void transpose_matrix(std::int64_t rows, std::int64_t columns, const T* source,
                      std::int64_t source_row_stride, std::int64_t source_step, T* destination,
                      std::int64_t destination_row_stride, std::int64_t destination_step) {
  constexpr int kAhead = 2;  // squares
  const auto upto = [](std::int64_t left) {
    return left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
  };
  for (std::int64_t j = 0; j < columns; j += kLanes<T>) {
    const int width = upto(columns - j);
    for (std::int64_t i = 0; i < rows; i += kLanes<T>) {
      const int height = upto(rows - i);
      Vec<T> square[kLanes<T>];
      const T* from = source + i * source_row_stride + j * source_step;
      CONVOLITH_UNROLL(16)
      for (int r = 0; r < kLanes<T>; ++r) {
        square[r] = zero<T>();
        if (r < height) {
          square[r] = width < kLanes<T>  ? load_lanes<T>(from, source_step, 0, width)
                      : source_step == 1 ? load(from)
                      : source_step == 2 ? load_every<T, 2>(from)
                                         : load_strided(from, source_step, kLanes<T>);
        }
        from += source_row_stride;
      }
      transpose<T>(square);
      T* to = destination + j * destination_row_stride + i * destination_step;
      CONVOLITH_UNROLL(16)
      for (int r = 0; r < kLanes<T>; ++r) {
        if (r < width) {
          // Rows of the destination may lie a page apart, where no hardware prefetcher follows.
          __builtin_prefetch(to + kAhead * kLanes<T> * destination_step, 1);
          if (destination_step == 1) {
            store_upto<T>(to, square[r], height);
          } else {
            store_strided<T>(to, destination_step, square[r], height);
          }
        }
        to += destination_row_stride;
      }
    }
  }
}

template <class T>
void pack_taps(int width, int valid, const T* source, std::int64_t lane_stride,
               std::int64_t channels, std::int64_t taps, const std::int64_t* places, T* panel) {
  const std::int64_t elements = channels * taps;
  for (int first = 0; first < width; first += kLanes<T>) {
    const int lanes = width - first < kLanes<T> ? width - first : kLanes<T>;
    std::int64_t channel = 0, tap = 0;
    for (std::int64_t e = 0; e < elements; e += kLanes<T>) {
      const int count = elements - e < kLanes<T> ? static_cast<int>(elements - e) : kLanes<T>;
      Vec<T> square[kLanes<T>];
      CONVOLITH_UNROLL(16)
      for (int i = 0; i < kLanes<T>; ++i) {
        const T* row = source + (first + i) * lane_stride + e;
        square[i] = first + i < valid ? load_upto(row, count) : zero<T>();
      }
      transpose<T>(square);
      for (int i = 0; i < count; ++i) {
        if (places[tap] >= 0) {
          T* to = panel + (places[tap] * channels + channel) * width + first;
          store_upto<T>(to, square[i], lanes);
        }
        if (++tap == taps) {
          tap = 0;
          ++channel;
        }
      }
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
