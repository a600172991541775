#pragma once

// The products of one frequency: transformed tiles by a panel of transformed weights.

#include "kernels/tile.inl.hpp"
#include "kernels/winograd_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T, int kRows, int kVectors>
void winograd_product_of(const WinogradProduct<T>& in) {
  prefetch_tile<T, kRows, kVectors>(in.products, in.product_stride);
  Vec<T> sum[kRows][kVectors] = {};
  RowPointers<T, kRows> rows(in.tiles, in.tile_stride);
  const T* weight = in.weight;
  const T* ahead = in.ahead;
  const std::int64_t ahead_step = in.ahead_step;
  CONVOLITH_UNROLL(4)
  for (std::int64_t p = 0; p < in.terms; ++p) {
    Vec<T> column[kVectors];
    CONVOLITH_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) column[v] = load(weight + v * kLanes<T>);
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> row = broadcast(rows.at(r));
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
    }
    CONVOLITH_UNROLL(2)
    for (int v = 0; v < kTileVectors; ++v) __builtin_prefetch(ahead + v * kLanes<T>, 0, 2);
    rows.advance();
    weight += kTileColumns<T>;
    ahead += ahead_step;
  }
  store_tile<T, kRows, kVectors>(sum, in.products, in.product_stride, in.columns, in.accumulate);
}

template <class T>
struct WinogradProducts {
  template <int kRows>
  struct Rows {
    static void run(const WinogradProduct<T>& in) {
      if (in.columns > kLanes<T>) {
        winograd_product_of<T, kRows, 2>(in);
      } else {
        winograd_product_of<T, kRows, 1>(in);
      }
    }
  };
};

template <class T>
void winograd_product(const WinogradProduct<T>& in) {
  ForRows<WinogradProducts<T>::template Rows, kTileRows>::run(in.rows, in);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
