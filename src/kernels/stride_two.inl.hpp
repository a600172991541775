#pragma once

// Backward-input of stride 2, of groups of few channels: four outputs over a square of sources.

#include "kernels/grouped.inl.hpp"
#include "kernels/stride_two_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr int kStrideTwoPairs = kManyRegisters ? 4 : 2;
constexpr int kStrideTwoChannels = 2;

// ---- lanes are channels --------------------------------------------------------------------

/// kGroups: several channels a group, which are spread over the lanes.
template <class T, int kKernel, bool kOdd, bool kGroups>
struct StrideTwoBlock {
  static constexpr StrideTwoTaps kTaps = stride_two_taps(kKernel, kOdd);

  template <int kPairs>
  struct Pairs {
    static constexpr int kWide = kPairs + kTaps.sources - 1;

    /// Adds the products of one channel of the group under one row of sources.
    CONVOLITH_INLINE static void add(int row, const Vec<T> (&x)[kWide], const T* weight,
                                     Vec<T> (&sum)[2][2][kPairs]) {
      CONVOLITH_UNROLL(2)
      for (int r = 0; r < 2; ++r) {
        if (kTaps.tap[r][row] < 0) continue;
        CONVOLITH_UNROLL(8)
        for (int j = 0; j < kTaps.sources; ++j) {
          CONVOLITH_UNROLL(2)
          for (int c = 0; c < 2; ++c) {
            if (kTaps.tap[c][j] < 0) continue;
            const Vec<T> w =
                load(weight + (kTaps.tap[r][row] * kKernel + kTaps.tap[c][j]) * kLanes<T>);
            CONVOLITH_UNROLL(8)
            for (int p = 0; p < kPairs; ++p) {
              sum[r][c][p] = multiply_add(x[j + p], w, sum[r][c][p]);
            }
          }
        }
      }
    }

    CONVOLITH_INLINE static void sum_block(const StrideTwoBlocks<T>& b, std::int64_t block,
                                           std::int64_t channel, const T* weight,
                                           const std::int32_t (*numbers)[kLanes<T>],
                                           Vec<T> (&sum)[2][2][kPairs]) {
      if constexpr (kGroups) {
        for (std::int64_t c = 0; c < b.group_channels; ++c) {
          CONVOLITH_UNROLL(4)
          for (int i = 0; i < kTaps.sources; ++i) {
            const std::int64_t shift = block * b.row_steps[i] + channel;
            Vec<T> x[kWide];
            CONVOLITH_UNROLL(16)
            for (int j = 0; j < kWide; ++j) {
              x[j] = permute<T>(load(b.pixels[i * kWide + j] + shift), numbers[c]);
            }
            add(i, x, weight, sum);
          }
          weight += kKernel * kKernel * kLanes<T>;
        }
      } else {
        CONVOLITH_UNROLL(4)
        for (int i = 0; i < kTaps.sources; ++i) {
          const std::int64_t shift = block * b.row_steps[i] + channel;
          Vec<T> x[kWide];
          CONVOLITH_UNROLL(16)
          for (int j = 0; j < kWide; ++j) x[j] = load(b.pixels[i * kWide + j] + shift);
          add(i, x, weight, sum);
        }
      }
    }

    static void run(const StrideTwoBlocks<T>& b) {
      std::int32_t numbers[kGroups ? kLanes<T> : 1][kLanes<T>];
      if constexpr (kGroups) {
        for (int c = 0; c < kLanes<T>; ++c) {
          lanes_of_channel<T>(b.group_channels, c, numbers[c]);
        }
      }
      const std::int64_t vector_weights = b.group_channels * kKernel * kKernel * kLanes<T>;
      for (std::int64_t block = 0; block < b.blocks; ++block) {
        const int columns = block + 1 < b.blocks ? 2 * kPairs : 2 * (kPairs - 1) + b.last_columns;
        for (std::int64_t vector = b.vector_begin; vector < b.vector_end; ++vector) {
          const std::int64_t last = b.channels - kLanes<T>;
          const std::int64_t channel = vector * kLanes<T> < last ? vector * kLanes<T> : last;
          const Vec<T> bias = b.bias != nullptr ? load(b.bias + channel) : zero<T>();
          Vec<T> sum[2][2][kPairs];
          CONVOLITH_UNROLL(2)
          for (int r = 0; r < 2; ++r) {
            CONVOLITH_UNROLL(8)
            for (int p = 0; p < kPairs; ++p) sum[r][0][p] = sum[r][1][p] = bias;
          }
          sum_block(b, block, channel, b.weight + vector * vector_weights, numbers, sum);
          T* output = b.output + 2 * kPairs * block * b.output_column_stride + channel;
          CONVOLITH_UNROLL(2)
          for (int r = 0; r < 2; ++r) {
            if (r >= b.rows) break;
            CONVOLITH_UNROLL(16)
            for (int c = 0; c < 2 * kPairs; ++c) {
              if (c >= columns) break;
              T* at = output + r * b.output_row_stride + c * b.output_column_stride;
              // The next block's: more streams than hardware prefetchers follow.
              __builtin_prefetch(at + 2 * kPairs * b.output_column_stride, 1);
              store<T>(at, finished<T>(b.store, sum[r][c % 2][c / 2]));
            }
          }
        }
      }
    }
  };

  static void run(const StrideTwoBlocks<T>& b) { ForRows<Pairs, kStrideTwoPairs>::run(b.pairs, b); }
};

template <class T>
void stride_two_blocks(const StrideTwoBlocks<T>& b, int kernel, bool odd) {
  if (b.group_channels > 1) {
    return odd ? StrideTwoBlock<T, 3, true, true>::run(b)
               : StrideTwoBlock<T, 3, false, true>::run(b);
  }
  switch (kernel) {
    case 3:
      return odd ? StrideTwoBlock<T, 3, true, false>::run(b)
                 : StrideTwoBlock<T, 3, false, false>::run(b);
    case 5:
      return odd ? StrideTwoBlock<T, 5, true, false>::run(b)
                 : StrideTwoBlock<T, 5, false, false>::run(b);
    default:
      return odd ? StrideTwoBlock<T, 7, true, false>::run(b)
                 : StrideTwoBlock<T, 7, false, false>::run(b);
  }
}

// ---- lanes are pairs of columns ------------------------------------------------------------

template <class T, int kKernel, bool kOdd>
struct StrideTwoPlanes {
  static constexpr StrideTwoTaps kTaps = stride_two_taps(kKernel, kOdd);
  static constexpr int kMostRows = kManyRegisters || kKernel == 3 ? 2 : 1;

  template <int kChannels>
  struct Channels {
    template <int kRows>
    struct Rows {
      static constexpr int kHigh = kRows + kTaps.sources - 1;

      template <bool kInside>
      CONVOLITH_INLINE static void tile(const StrideTwoPlane<T>& p, std::int64_t pair,
                                        std::int64_t column) {
        Vec<T> sum[kChannels][kRows][2][2];
        CONVOLITH_UNROLL(2)
        for (int m = 0; m < kChannels; ++m) {
          const Vec<T> bias = p.bias != nullptr ? broadcast(p.bias[m]) : zero<T>();
          CONVOLITH_UNROLL(2)
          for (int r = 0; r < kRows; ++r) {
            sum[m][r][0][0] = sum[m][r][0][1] = sum[m][r][1][0] = sum[m][r][1][1] = bias;
          }
        }
        const auto lane = [](std::int64_t at) {
          return static_cast<int>(at < 0 ? 0 : at > kLanes<T> ? kLanes<T> : at);
        };
        const std::int64_t first = p.first_column + column;
        const T* channel = p.source + (p.first_row + pair) * p.source_columns + first;
        const T* weight = p.weight;
        for (std::int64_t n = 0; n < p.group_channels; ++n) {
          CONVOLITH_UNROLL(8)
          for (int i = 0; i < kHigh; ++i) {
            const std::int64_t row = p.first_row + pair + i;
            if (!kInside && (row < 0 || row >= p.source_rows)) continue;
            const T* from = channel + i * p.source_columns;
            Vec<T> x[kTaps.sources];
            CONVOLITH_UNROLL(4)
            for (int j = 0; j < kTaps.sources; ++j) {
              x[j] = kInside ? load(from + j)
                             : load_between(from + j, lane(-first - j),
                                            lane(p.source_columns - first - j), zero<T>());
              keep(x[j]);
            }
            CONVOLITH_UNROLL(2)
            for (int r = 0; r < kRows; ++r) {
              if (i - r < 0 || i - r >= kTaps.sources) continue;
              CONVOLITH_UNROLL(4)
              for (int q = 0; q < 4; ++q) {
                const int tap_row = kTaps.tap[q / 2][i - r];
                if (tap_row < 0) continue;
                CONVOLITH_UNROLL(4)
                for (int j = 0; j < kTaps.sources; ++j) {
                  const int tap_column = kTaps.tap[q % 2][j];
                  if (tap_column < 0) continue;
                  CONVOLITH_UNROLL(2)
                  for (int m = 0; m < kChannels; ++m) {
                    const Vec<T> w =
                        broadcast(weight[(tap_row * kKernel + tap_column) * kChannels + m]);
                    sum[m][r][q / 2][q % 2] = multiply_add(x[j], w, sum[m][r][q / 2][q % 2]);
                  }
                }
              }
            }
          }
          channel += p.source_channel_stride;
          weight += kKernel * kKernel * kChannels;
        }
        const std::int64_t columns = p.output_columns - 2 * column;
        CONVOLITH_UNROLL(2)
        for (int m = 0; m < kChannels; ++m) {
          CONVOLITH_UNROLL(4)
          for (int r = 0; r < 2 * kRows; ++r) {
            const std::int64_t row = 2 * pair + r;
            if (row >= p.output_rows) break;
            const Vec<T> even = finished<T>(p.store, sum[m][r / 2][r % 2][0]);
            const Vec<T> odd = finished<T>(p.store, sum[m][r / 2][r % 2][1]);
            T* at = p.output + m * p.output_channel_stride + row * p.output_columns + 2 * column;
            store_upto<T>(at, interleave_low<T>(even, odd), lane(columns));
            if (columns > kLanes<T>) {
              store_upto<T>(at + kLanes<T>, interleave_high<T>(even, odd),
                            lane(columns - kLanes<T>));
            }
          }
        }
      }

      static void run(const StrideTwoPlane<T>& p, std::int64_t pair) {
        const std::int64_t row = p.first_row + pair;
        const bool inside = row >= 0 && row + kHigh <= p.source_rows;
        for (std::int64_t column = 0; 2 * column < p.output_columns; column += kLanes<T>) {
          const std::int64_t first = p.first_column + column;
          if (inside && first >= 0 && first + kLanes<T> + kTaps.sources - 1 <= p.source_columns) {
            tile<true>(p, pair, column);
          } else {
            tile<false>(p, pair, column);
          }
        }
      }
    };

    static void run(const StrideTwoPlane<T>& p) {
      constexpr int kMost = kMostRows;
      for (std::int64_t pair = p.pair_begin; pair < p.pair_end; pair += kMost) {
        const std::int64_t left = p.pair_end - pair;
        ForRows<Rows, kMost>::run(left < kMost ? static_cast<int>(left) : kMost, p, pair);
      }
    }
  };

  static void run(const StrideTwoPlane<T>& p) {
    if constexpr (kKernel == 3) {
      ForRows<Channels, kStrideTwoChannels>::run(p.channels, p);
    } else {
      Channels<1>::run(p);
    }
  }
};

template <class T>
void stride_two_plane(const StrideTwoPlane<T>& p, int kernel, bool odd) {
  switch (kernel) {
    case 3: return odd ? StrideTwoPlanes<T, 3, true>::run(p) : StrideTwoPlanes<T, 3, false>::run(p);
    case 5: return odd ? StrideTwoPlanes<T, 5, true>::run(p) : StrideTwoPlanes<T, 5, false>::run(p);
    default:
      return odd ? StrideTwoPlanes<T, 7, true>::run(p) : StrideTwoPlanes<T, 7, false>::run(p);
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
