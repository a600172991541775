#pragma once

// The products of one frequency: transformed tiles by a panel of transformed weights, or by two.

#include "kernels/tile.inl.hpp"
#include "kernels/winograd_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
struct WinogradProducts {
  /// A register tile; it fetches `ahead_step` of the weights ahead with each term, of each panel.
  template <int kRows, int kVectors>
  [[gnu::noinline]] static void run_tile(const WinogradProduct<T>& in, const T* tiles, T* products,
                                         const T* ahead, std::int64_t ahead_step) {
    Vec<T> sum[kRows][kVectors] = {};
    RowPointers<T, kRows> rows(tiles, in.tile_stride);
    const T* weight = in.weight;
    const std::int64_t panel_stride = in.panel_stride;
    constexpr int kPanels = kVectors > kTileVectors ? 2 : 1;
    CONVOLITH_UNROLL(4)
    for (std::int64_t p = 0; p < in.terms; ++p) {
      Vec<T> column[kVectors];
      load_columns<T>(column, weight, panel_stride);
      CONVOLITH_UNROLL(16)
      for (int r = 0; r < kRows; ++r) {
        const Vec<T> row = broadcast(rows.at(r));
        CONVOLITH_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
      }
      CONVOLITH_UNROLL(4)
      for (int v = 0; v < kPanels * kTileVectors; ++v) {
        const T* panel = v < kTileVectors ? ahead : ahead + panel_stride;
        __builtin_prefetch(panel + v % kTileVectors * kLanes<T>, 0, 2);
      }
      rows.advance();
      weight += kTileColumns<T>;
      ahead += ahead_step;
    }
    store_tile<T, kRows, kVectors>(sum, products, in.product_stride, in.columns, in.accumulate);
  }

  template <int kRows>
  struct Rows {
    static void run(const WinogradProduct<T>& in, std::int64_t ahead_step, int first, int end) {
      for (int row = first; row < end; row += kRows) {
        const T* tiles = in.tiles + row * in.tile_stride;
        T* products = in.products + row * in.product_stride;
        // Each row's share of the weights ahead.
        const T* ahead = in.ahead + row * in.terms * kTileColumns<T> / in.rows;
        with_vectors<T, kRows>(in.columns, [&](auto vectors) {
          run_tile<kRows, vectors.value>(in, tiles, products, ahead, ahead_step);
        });
      }
    }
  };
};

/// Few rows make one tile, for weights may come from L2 or beyond.
template <class T>
void winograd_product(const WinogradProduct<T>& in) {
  const bool paired = kPairedRows > 0 && in.columns > kTileColumns<T>;
  const int most = paired ? kPairedRows : in.rows > kTileRows ? kOverlappingRows : kTileRows;
  const std::int64_t tiles = (in.rows + most - 1) / most;
  const std::int64_t ahead_step = (kTileColumns<T> + tiles - 1) / tiles;
  for_equal_tiles<WinogradProducts<T>::template Rows, kTileRows>(in.rows, most, in, ahead_step);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
