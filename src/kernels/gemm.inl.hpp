#pragma once

#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T, int kRows, int kVectors>
void gemm_tile_of(std::int64_t k, const T* a, const T* b, T* c, std::int64_t c_row_stride,
                  int columns, bool accumulate) {
  Vec<T> sum[kRows][kVectors] = {};
  CONVOLITH_UNROLL(4)
  for (std::int64_t p = 0; p < k; ++p) {
    Vec<T> column[kVectors];
    CONVOLITH_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) column[v] = load(b + v * kLanes<T>);
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> row = broadcast(a[r]);
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
    }
    a += kTileRows;
    b += kTileColumns<T>;
  }
  store_tile<T, kRows, kVectors>(sum, c, c_row_stride, columns, accumulate);
}

template <class T>
struct GemmTile {
  template <int kRows>
  struct Rows {
    static void run(int columns, std::int64_t k, const T* a, const T* b, T* c,
                    std::int64_t c_row_stride, bool accumulate) {
      if (columns > kLanes<T>) {
        gemm_tile_of<T, kRows, 2>(k, a, b, c, c_row_stride, columns, accumulate);
      } else {
        gemm_tile_of<T, kRows, 1>(k, a, b, c, c_row_stride, columns, accumulate);
      }
    }
  };
};

template <class T>
void gemm_tile(int rows, int columns, std::int64_t k, const T* a, const T* b, T* c,
               std::int64_t c_row_stride, bool accumulate) {
  ForRows<GemmTile<T>::template Rows, kTileRows>::run(rows, columns, k, a, b, c, c_row_stride,
                                                      accumulate);
}

template <class T>
void pack_panel(int width, int valid, std::int64_t k, const T* source, std::int64_t lane_stride,
                std::int64_t k_stride, T* panel) {
  for (std::int64_t p = 0; p < k; ++p) {
    const T* from = source + p * k_stride;
    T* to = panel + p * width;
    if (lane_stride == 1) {
      int i = 0;
      for (; i + kLanes<T> <= valid; i += kLanes<T>) store<T>(to + i, load(from + i));
      if (i < valid) store_partial<T>(to + i, load_partial(from + i, valid - i), valid - i);
    } else {
      for (int i = 0; i < valid; ++i) to[i] = from[i * lane_stride];
    }
    for (int i = valid; i < width; ++i) to[i] = T(0);
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
