#pragma once

#include "kernels/narrow_gradient_table.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr int kNarrowRows = 5, kNarrowColumns = 7;
constexpr int kNarrowSums = kVectorBytes == 64 ? 25 : 10;  // and y, x and numbers of lanes beside

template <class T, int kChannels>
struct Narrow {
  /// For lane i, channel c of its group: number i / kChannels * kChannels + c.
  struct Numbers {
    std::int32_t of[kChannels][kLanes<T>];
    constexpr Numbers() : of{} {
      for (int c = 0; c < kChannels; ++c) {
        for (int i = 0; i < kLanes<T>; ++i) of[c][i] = i / kChannels * kChannels + c;
      }
    }
  };
  static constexpr Numbers kNumbers{};

  template <int kRows, int kColumns, bool kWhole>
  static void run_taps(const NarrowGradient<T>& g) {
    const auto load_lanes_of = [&](const T* p) {
      return kWhole ? load(p) : load_partial(p, g.lanes);
    };
    const std::int64_t row_stride = g.row_stride, column_stride = g.column_stride;
    Vec<T> sum[kRows][kColumns][kChannels] = {};
    for (std::int64_t n = 0; n < g.run_count; ++n) {
      const T* x = g.x + g.runs[n].x;
      const T* y = g.y + g.runs[n].y;
      for (std::int64_t p = g.runs[n].count; p > 0; --p) {
        const Vec<T> gradient = load_lanes_of(y);
        const T* row = x;
        CONVOLITH_UNROLL(8)
        for (int i = 0; i < kRows; ++i) {
          const T* at = opaque(row);
          CONVOLITH_UNROLL(8)
          for (int j = 0; j < kColumns; ++j) {
            if constexpr (kChannels > kLanes<T>) {
              CONVOLITH_UNROLL(8)
              for (int c = 0; c < kChannels; ++c) {
                sum[i][j][c] = multiply_add(broadcast(at[c]), gradient, sum[i][j][c]);
              }
            } else {
              const Vec<T> source = load_lanes_of(at);
              CONVOLITH_UNROLL(8)
              for (int c = 0; c < kChannels; ++c) {
                Vec<T> spread = source;
                if constexpr (kChannels > 1) spread = permute<T>(source, kNumbers.of[c]);
                sum[i][j][c] = multiply_add(spread, gradient, sum[i][j][c]);
              }
            }
            at += column_stride;
          }
          row += row_stride;
        }
        x += g.x_pixel_stride;
        y += g.y_pixel_stride;
      }
    }
    CONVOLITH_UNROLL(8)
    for (int i = 0; i < kRows; ++i) {
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kColumns; ++j) {
        T* to = g.gradient + i * g.gradient_row_stride + j * g.gradient_column_stride;
        CONVOLITH_UNROLL(8)
        for (int c = 0; c < kChannels; ++c) {
          store<T>(to, load(to) + sum[i][j][c]);
          to += g.gradient_channel_stride;
        }
      }
    }
  }

  template <int kRows>
  struct Rows {
    template <int kColumns>
    struct Columns {
      static void run(const NarrowGradient<T>& g) {
        if constexpr (kRows * kColumns * kChannels <= kNarrowSums || kRows * kColumns == 1) {
          if (g.lanes == kLanes<T>) {
            run_taps<kRows, kColumns, true>(g);
          } else {
            run_taps<kRows, kColumns, false>(g);
          }
        }
      }
    };
    static void run(const NarrowGradient<T>& g) {
      ForRows<Columns, kNarrowColumns>::run(g.columns, g);
    }
  };

  static void run(const NarrowGradient<T>& g) { ForRows<Rows, kNarrowRows>::run(g.rows, g); }
};

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
