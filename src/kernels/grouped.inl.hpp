#pragma once

// Convolutions in groups of few channels.

#include "kernels/grouped_table.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/packing.inl.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr int kGroupedBlockRows = 2;
constexpr int kGroupedBlockColumns = kManyRegisters ? 8 : 3;

/// numbers[i]: the lane of channel c of the group that lane i belongs to.
template <class T>
CONVOLITH_INLINE void lanes_of_channel(std::int64_t group_channels, std::int64_t c,
                                       std::int32_t (&numbers)[kLanes<T>]) {
  std::int64_t first = 0, i_in_group = 0;
  for (int i = 0; i < kLanes<T>; ++i) {
    const std::int64_t number = first + c;
    numbers[i] = static_cast<std::int32_t>(number < kLanes<T> ? number : 0);
    if (++i_in_group == group_channels) {
      i_in_group = 0;
      first += group_channels;
    }
  }
}

/// 3 x 3, whole vectors of whole groups: each column's channels are spread over their groups once
/// and feed the taps of all rows.
template <class T, int kStride>
struct FixedGroups {
  template <int kRows, int kColumns>
  static void run(const GroupedBlocks<T>& b) {
    constexpr int kKernel = 3;
    constexpr int kTaps = kKernel * kKernel;
    constexpr int kInRows = (kRows - 1) * kStride + kKernel;
    constexpr int kInColumns = (kColumns - 1) * kStride + kKernel;
    std::int32_t numbers[kLanes<T>][kLanes<T>];
    for (int c = 0; c < kLanes<T>; ++c) {
      lanes_of_channel<T>(b.group_channels, c, numbers[c]);
    }
    for (std::int64_t vector = b.vector_begin; vector < b.vector_end; ++vector) {
      const std::int64_t channel = vector * kLanes<T>;
      const Vec<T> bias = b.bias != nullptr ? load(b.bias + channel) : zero<T>();
      for (std::int64_t block = 0; block < b.blocks; ++block) {
        const std::int64_t shift = block * b.source_step + channel;
        Vec<T> sum[kRows][kColumns];
        CONVOLITH_UNROLL(8)
        for (int r = 0; r < kRows; ++r) {
          CONVOLITH_UNROLL(8)
          for (int k = 0; k < kColumns; ++k) sum[r][k] = bias;
        }
        for (std::int64_t slab = 0; slab < b.slabs; ++slab) {
          const T* const* pixels = b.pixels + slab * b.slab_pixels;
          const T* weight = b.weight + vector * b.vector_weights + b.slab_weights[slab];
          for (std::int64_t c = 0; c < b.group_channels; ++c, weight += kTaps * kLanes<T>) {
            CONVOLITH_UNROLL(8)
            for (int i = 0; i < kInRows; ++i) {
              CONVOLITH_UNROLL(32)
              for (int j = 0; j < kInColumns; ++j) {
                const Vec<T> x =
                    permute<T>(load(pixels[i * kInColumns + j] + shift), numbers[c]);
                CONVOLITH_UNROLL(2)
                for (int r = 0; r < kRows; ++r) {
                  const int tap_row = i - r * kStride;
                  if (tap_row < 0 || tap_row >= kKernel) continue;
                  CONVOLITH_UNROLL(8)
                  for (int k = 0; k < kColumns; ++k) {
                    const int tap = j - k * kStride;
                    if (tap < 0 || tap >= kKernel) continue;
                    const Vec<T> w = load(weight + (tap_row * kKernel + tap) * kLanes<T>);
                    sum[r][k] = multiply_add(x, w, sum[r][k]);
                  }
                }
              }
            }
          }
        }
        T* output = b.output + block * kColumns * b.output_column_stride + channel;
        CONVOLITH_UNROLL(8)
        for (int r = 0; r < kRows; ++r) {
          CONVOLITH_UNROLL(8)
          for (int k = 0; k < kColumns; ++k) {
            store<T>(output + r * b.output_row_stride + k * b.output_column_stride,
                     finished<T>(b.store, sum[r][k]));
          }
        }
      }
    }
  }

  template <int kColumns>
  struct Columns {
    template <int kRows>
    struct Rows {
      static void run(const GroupedBlocks<T>& b) { FixedGroups::template run<kRows, kColumns>(b); }
    };
    static void run(const GroupedBlocks<T>& b) { ForRows<Rows, kGroupedBlockRows>::run(b.rows, b); }
  };
};

/// Any kernel and any number of channels: one row of outputs, tap by tap.
template <class T>
struct AnyGroups {
  /// Lanes of several groups: channel c of each.
  struct Spread {
    int count;
    const std::int32_t* numbers;
    CONVOLITH_INLINE Vec<T> operator()(const T* pixel) const {
      return permute<T>(load_upto(pixel, count), numbers);
    }
  };
  /// Lanes of one group.
  struct Same {
    CONVOLITH_INLINE Vec<T> operator()(const T* pixel) const { return broadcast(*pixel); }
  };

  template <int kColumns, class Read>
  CONVOLITH_INLINE static void add(const GroupedBlocks<T>& b, const T* const* pixels,
                                   std::int64_t offset, const T* weight, std::int64_t taps,
                                   const Read& read, Vec<T> (&sum)[kColumns]) {
    for (std::int64_t t = 0; t < taps; ++t) {
      const Vec<T> w = load(weight + t * kLanes<T>);
      CONVOLITH_UNROLL(4)
      for (int k = 0; k < kColumns; ++k) {
        sum[k] = multiply_add(read(pixels[k * b.stride + t] + offset), w, sum[k]);
      }
    }
  }

  template <int kColumns>
  struct Columns {
    static void run(const GroupedBlocks<T>& b) {
      const std::int64_t group = b.group_channels;
      const bool several = group <= kLanes<T>;
      const std::int64_t span = several ? kLanes<T> / group * group : kLanes<T>;
      const std::int64_t group_vectors = several ? 1 : (group + kLanes<T> - 1) / kLanes<T>;
      for (std::int64_t vector = b.vector_begin; vector < b.vector_end; ++vector) {
        // First input channel, first output channel, and how many of them.
        const std::int64_t from = several ? vector * span : vector / group_vectors * group;
        const std::int64_t in_group = several ? 0 : vector % group_vectors * kLanes<T>;
        const std::int64_t left = several ? b.channels - from : group - in_group;
        const int lanes = static_cast<int>(left < span ? left : span);
        const std::int64_t to = from + in_group;
        const Vec<T> bias = b.bias != nullptr ? load_upto(b.bias + to, lanes) : zero<T>();
        for (std::int64_t block = 0; block < b.blocks; ++block) {
          const std::int64_t shift = block * b.source_step + from;
          Vec<T> sum[kColumns], total[kColumns] = {};
          for (int k = 0; k < kColumns; ++k) sum[k] = bias;
          std::int64_t chain = 0;
          for (std::int64_t slab = 0; slab < b.slabs; ++slab) {
            const T* const* pixels = b.pixels + slab * b.slab_pixels;
            const T* weight = b.weight + vector * b.vector_weights + b.slab_weights[slab];
            for (std::int64_t c = 0; c < group; ++c) {
              std::int32_t numbers[kLanes<T>] = {};
              if (several) lanes_of_channel<T>(group, c, numbers);
              for (std::int64_t t = 0; t < b.kernel_width;) {
                if (chain == kMaxChain) {
                  for (int k = 0; k < kColumns; ++k) {
                    total[k] = total[k] + sum[k];
                    sum[k] = zero<T>();
                  }
                  chain = 0;
                }
                const std::int64_t taps =
                    b.kernel_width - t < kMaxChain - chain ? b.kernel_width - t : kMaxChain - chain;
                if (several) {
                  add(b, pixels + t, shift, weight, taps, Spread{lanes, numbers}, sum);
                } else {
                  add(b, pixels + t, shift + c, weight, taps, Same{}, sum);
                }
                weight += taps * kLanes<T>;
                t += taps;
                chain += taps;
              }
            }
          }
          T* output = b.output + block * kColumns * b.output_column_stride + to;
          for (int k = 0; k < kColumns; ++k) {
            store_upto<T>(output + k * b.output_column_stride,
                          finished<T>(b.store, sum[k] + total[k]), lanes);
          }
        }
      }
    }
  };
};

template <class T>
void grouped_blocks(const GroupedBlocks<T>& b, bool fixed) {
  if (!fixed) {
    ForRows<AnyGroups<T>::template Columns, kGroupedColumns>::run(b.columns, b);
  } else if (b.stride == 2) {
    ForRows<FixedGroups<T, 2>::template Columns, kGroupedBlockColumns>::run(b.columns, b);
  } else {
    ForRows<FixedGroups<T, 1>::template Columns, kGroupedBlockColumns>::run(b.columns, b);
  }
}

// ---- lanes are pixels ----------------------------------------------------------------------

constexpr int kGroupedChannelBlock = 4;
constexpr int kGroupedVectors = kManyRegisters ? 6 : 2;

template <class T>
struct GroupedTile {
  /// Vectors first, first + 1, ... of output channels channel, channel + 1, ...
  template <int kChannels, int kVectors>
  static void tile(const GroupedRows<T>& p, std::int64_t first, std::int64_t channel) {
    Vec<T> sum[kChannels][kVectors], total[kChannels][kVectors] = {};
    for (int m = 0; m < kChannels; ++m) {
      const Vec<T> bias = p.bias != nullptr ? broadcast(p.bias[channel + m]) : zero<T>();
      for (int v = 0; v < kVectors; ++v) sum[m][v] = bias;
    }
    const T* from[kVectors];
    for (int v = 0; v < kVectors; ++v) from[v] = p.packed + p.vector_places[first + v];
    const T* weight = p.weight + channel * p.terms;
    for (std::int64_t begin = 0; begin < p.terms; begin += kMaxChain) {
      const std::int64_t end = p.terms - begin < kMaxChain ? p.terms : begin + kMaxChain;
      if (begin > 0) {
        for (int m = 0; m < kChannels; ++m) {
          for (int v = 0; v < kVectors; ++v) {
            total[m][v] = total[m][v] + sum[m][v];
            sum[m][v] = zero<T>();
          }
        }
      }
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t place = p.term_places[k];
        Vec<T> x[kVectors];
        CONVOLITH_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) x[v] = load(from[v] + place);
        CONVOLITH_UNROLL(4)
        for (int m = 0; m < kChannels; ++m) {
          const Vec<T> w = broadcast(weight[k * kChannels + m]);
          CONVOLITH_UNROLL(8)
          for (int v = 0; v < kVectors; ++v) sum[m][v] = multiply_add(x[v], w, sum[m][v]);
        }
      }
    }
    for (int m = 0; m < kChannels; ++m) {
      for (int v = 0; v < kVectors; ++v) {
        Vec<T> result = sum[m][v];
        if (p.terms > kMaxChain) result = result + total[m][v];
        result = finished<T>(p.store, result);
        if (p.lanes != nullptr) result = permute<T>(result, p.lanes + (first + v) * kLanes<T>);
        T* at = p.output + (channel + m) * p.output_channel_stride + p.vector_outputs[first + v];
        if (p.output_column_stride == 1) {
          store_upto<T>(at, result, p.vector_counts[first + v]);
        } else {
          store_strided<T>(at, p.output_column_stride, result, p.vector_counts[first + v]);
        }
      }
    }
  }

  template <int kChannels>
  struct Channels {
    template <int kVectors>
    struct Vectors {
      static void run(const GroupedRows<T>& p, std::int64_t first, std::int64_t channel) {
        tile<kChannels, kVectors>(p, first, channel);
      }
    };
    static void run(const GroupedRows<T>& p, std::int64_t first, int vectors,
                    std::int64_t channel) {
      ForRows<Vectors, kGroupedVectors>::run(vectors, p, first, channel);
    }
  };
};

template <class T>
void grouped_rows(const GroupedRows<T>& p) {
  for (std::int64_t c = 0; c < p.channels; ++c) {
    const T* source = p.source + c * p.source_channel_stride;
    for (std::int64_t i = 0; i < p.row_count; ++i) {
      T* packed = p.packed + c * p.packed_channel_stride + p.row_places[i];
      if (p.row_sources[i] >= 0) {
        pack_row(source + p.row_sources[i], p.runs, p.run_count, packed);
      } else {
        for (std::int64_t n = 0; n < p.row_length; n += kLanes<T>) store<T>(packed + n, zero<T>());
      }
    }
  }
  std::int64_t tiles = (p.vectors + kGroupedVectors - 1) / kGroupedVectors;
  for (std::int64_t first = 0; first < p.vectors; --tiles) {
    const auto vectors = static_cast<int>((p.vectors - first + tiles - 1) / tiles);
    for (std::int64_t channel = 0; channel < p.channels; channel += kGroupedChannelBlock) {
      const std::int64_t left = p.channels - channel;
      ForRows<GroupedTile<T>::template Channels, kGroupedChannelBlock>::run(
          left < kGroupedChannelBlock ? static_cast<int>(left) : kGroupedChannelBlock, p, first,
          vectors, channel);
    }
    first += vectors;
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
