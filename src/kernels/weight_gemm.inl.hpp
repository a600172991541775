#pragma once

#include "kernels/tile.inl.hpp"
#include "kernels/weight_gemm_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// A rank-1 update for each pixel.
template <class T>
struct WeightGemm {
  template <int kLines, int kRows, int kVectors>
  static void run_tile(const WeightGemmTile<T>& tile) {
    constexpr int kColumns = kVectors * kLanes<T>;
    prefetch_tile<T, kLines * kRows, kVectors>(tile.sum, tile.sum_row_stride);
    constexpr int kAhead = 8;  // pixels may lie a page apart, where no hardware prefetcher follows
    const std::int64_t rows_stride = tile.rows_pixel_stride;
    const std::int64_t columns_stride = tile.columns_pixel_stride;
    const std::int64_t prefetch_stride = tile.prefetch_stride;
    const T* prefetch = tile.prefetch;
    Vec<T> sum[kLines * kRows][kVectors] = {};
    for (std::int64_t n = 0; n < tile.run_count; ++n) {
      const PixelRun& run = tile.runs[n];
      const T* rows = tile.rows + run.rows;
      const T* columns = tile.columns + run.columns;
      CONVOLITH_UNROLL(2)
      for (std::int64_t p = run.count; p > 0; --p) {
        rows = opaque(rows);  // or broadcasts would be shared between pixels, and spilt
        Vec<T> column[kVectors];
        CONVOLITH_UNROLL(2)
        for (int v = 0; v < kVectors; ++v) column[v] = load(columns + v * kLanes<T>);
        const RowPointers<T, kLines> line(rows, tile.rows_line_stride);
        CONVOLITH_UNROLL(32)
        for (int r = 0; r < kLines * kRows; ++r) {
          const Vec<T> row = broadcast(line.at(r / kRows, r % kRows));
          CONVOLITH_UNROLL(2)
          for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
        }
        __builtin_prefetch(rows + kAhead * rows_stride + kRows - 1);
        __builtin_prefetch(prefetch, 0, 2);
        prefetch += prefetch_stride;
        rows += rows_stride;
        columns += columns_stride;
      }
    }
    store_tile<T>(sum, tile.sum, tile.sum_row_stride, kColumns, tile.accumulate);
  }

  template <int kLines, int kVectors>
  struct Tile {
    template <int kRows>
    struct Rows {
      static void run(const WeightGemmTile<T>& tile) { run_tile<kLines, kRows, kVectors>(tile); }
    };
    static void run(const WeightGemmTile<T>& tile) {
      ForRows<Rows, kTileRows * kTileVectors / kVectors / kLines>::run(tile.row_count, tile);
    }
  };
};

template <class T>
void weight_gemm_tile(const WeightGemmTile<T>& tile) {
  using Gemm = WeightGemm<T>;
  if (tile.vectors == 2) return Gemm::template Tile<1, 2>::run(tile);
  switch (tile.lines) {
    case kWeightGemmLines[0]: return Gemm::template Tile<kWeightGemmLines[0], 1>::run(tile);
    case kWeightGemmLines[1]: return Gemm::template Tile<kWeightGemmLines[1], 1>::run(tile);
    case kWeightGemmLines[2]: return Gemm::template Tile<kWeightGemmLines[2], 1>::run(tile);
    default: Gemm::template Tile<1, 1>::run(tile);
  }
}

template <class T>
void weight_gemm_pack_rows(std::int64_t pixels, std::int64_t channels, const T* source,
                           std::int64_t source_stride, std::int64_t count, T* panels,
                           std::int64_t panel_stride, std::int64_t pixel_stride) {
  constexpr int kAhead = 4;
  const auto each = static_cast<int>(channels / count);
  const std::int64_t longer = channels % count;
  for (std::int64_t p = 0; p < pixels; ++p, source += source_stride, panels += pixel_stride) {
    const T* from = source;
    T* to = panels;
    for (std::int64_t i = 0; i < count; ++i, to += panel_stride) {
      const int width = each + (i < longer ? 1 : 0);
      __builtin_prefetch(from + kAhead * source_stride);
      for (int c = 0; c < width; c += kLanes<T>) {
        const int lanes = width - c < kLanes<T> ? width - c : kLanes<T>;
        store_upto<T>(to + c, load_upto(from + c, lanes), lanes);
      }
      from += width;
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
