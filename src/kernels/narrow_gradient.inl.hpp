#pragma once

#include "kernels/narrow_gradient_table.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr int kNarrowRows = 5, kNarrowColumns = 7;
constexpr int kNarrowSums = kVectorBytes == 64 ? 25 : 10;  // and y, x and numbers of lanes beside
constexpr int kNarrowRolledSums = kVectorBytes == 64 ? 14 : 6;  // and as many of x

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

  /// A vector of x for each channel of the groups.
  template <class Load>
  CONVOLITH_INLINE static void spread(const T* at, const Load& load_lanes_of,
                                      Vec<T> (&source)[kChannels]) {
    if constexpr (kChannels > kLanes<T>) {
      CONVOLITH_UNROLL(8)
      for (int c = 0; c < kChannels; ++c) source[c] = broadcast(at[c]);
    } else {
      const Vec<T> whole = load_lanes_of(at);
      CONVOLITH_UNROLL(8)
      for (int c = 0; c < kChannels; ++c) {
        source[c] = whole;
        if constexpr (kChannels > 1) source[c] = permute<T>(whole, kNumbers.of[c]);
      }
    }
  }

  template <int kRows, int kColumns>
  using Sums = Vec<T>[kRows][kColumns][kChannels];

  template <int kRows, int kColumns, class Load>
  CONVOLITH_INLINE static void add_run(const NarrowGradient<T>& g, const NarrowRun& run,
                                       const Load& load_lanes_of, Sums<kRows, kColumns>& sum) {
    const std::int64_t row_stride = g.row_stride, column_stride = g.column_stride;
    const T* x = g.x + run.x;
    const T* y = g.y + run.y;
    for (std::int64_t p = run.count; p > 0; --p) {
      const Vec<T> gradient = load_lanes_of(y);
      const T* row = x;
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kRows; ++i) {
        const T* at = opaque(row);
        CONVOLITH_UNROLL(8)
        for (int j = 0; j < kColumns; ++j) {
          Vec<T> source[kChannels];
          spread(at, load_lanes_of, source);
          CONVOLITH_UNROLL(8)
          for (int c = 0; c < kChannels; ++c) {
            sum[i][j][c] = multiply_add(source[c], gradient, sum[i][j][c]);
          }
          at += column_stride;
        }
        row += row_stride;
      }
      x += g.x_pixel_stride;
      y += g.y_pixel_stride;
    }
  }

  /// The same where a pixel's columns are the last one's, moved on by one: each is loaded once.
  template <int kRows, int kColumns, class Load>
  CONVOLITH_INLINE static void roll_run(const NarrowGradient<T>& g, const NarrowRun& run,
                                        const Load& load_lanes_of, Sums<kRows, kColumns>& sum) {
    const std::int64_t row_stride = g.row_stride, column_stride = g.column_stride;
    const std::int64_t y_pixel_stride = g.y_pixel_stride;
    const T* x = g.x + run.x;
    const T* y = g.y + run.y;
    Vec<T> window[kRows][kColumns][kChannels];
    const auto load_column = [&](int place) {
      const T* at = opaque(x);
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kRows; ++i) {
        spread(at, load_lanes_of, window[i][place]);
        at += row_stride;
      }
      x += column_stride;
    };
    CONVOLITH_UNROLL(8)
    for (int j = 0; j < kColumns - 1; ++j) load_column(j);
    for (std::int64_t p = run.count; p > 0;) {
      CONVOLITH_UNROLL(8)
      for (int turn = 0; turn < kColumns; ++turn) {
        if (p == 0) break;
        --p;
        load_column((turn + kColumns - 1) % kColumns);
        const Vec<T> gradient = load_lanes_of(y);
        y += y_pixel_stride;
        CONVOLITH_UNROLL(8)
        for (int i = 0; i < kRows; ++i) {
          CONVOLITH_UNROLL(8)
          for (int j = 0; j < kColumns; ++j) {
            CONVOLITH_UNROLL(8)
            for (int c = 0; c < kChannels; ++c) {
              sum[i][j][c] =
                  multiply_add(window[i][(turn + j) % kColumns][c], gradient, sum[i][j][c]);
            }
          }
        }
      }
    }
  }

  template <int kRows, int kColumns, bool kWhole, bool kRolls>
  static void run_taps(const NarrowGradient<T>& g) {
    const auto load_lanes_of = [&](const T* p) {
      return kWhole ? load(p) : load_partial(p, g.lanes);
    };
    Sums<kRows, kColumns> sum = {};
    for (std::int64_t n = 0; n < g.run_count; ++n) {
      if constexpr (kRolls) {
        roll_run<kRows, kColumns>(g, g.runs[n], load_lanes_of, sum);
      } else {
        add_run<kRows, kColumns>(g, g.runs[n], load_lanes_of, sum);
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

  template <int kRows, int kColumns, bool kRolls>
  static void run_lanes(const NarrowGradient<T>& g) {
    if (g.lanes == kLanes<T>) {
      run_taps<kRows, kColumns, true, kRolls>(g);
    } else {
      run_taps<kRows, kColumns, false, kRolls>(g);
    }
  }

  template <int kRows>
  struct Rows {
    template <int kColumns>
    struct Columns {
      static void run(const NarrowGradient<T>& g) {
        constexpr int kSums = kRows * kColumns * kChannels;
        if constexpr (kColumns > 1 && kSums <= kNarrowRolledSums) {
          if (g.x_pixel_stride == g.column_stride) {
            run_lanes<kRows, kColumns, true>(g);
            return;
          }
        }
        if constexpr (kSums <= kNarrowSums || kRows * kColumns == 1) {
          run_lanes<kRows, kColumns, false>(g);
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
