#pragma once

// Register tiles with output pixels as lanes.

#include "kernels/interleaving.inl.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// Vectors of pixels of a tile: with few channels more of them, since multiply-adds must not wait
/// for one another. Besides the sums, registers hold either one vector of every channel's weight or
/// all pixels of a term.
constexpr int pixel_vectors(int channels) {
  constexpr int kRegisters = kVectorBytes == 64 ? 32 : 16;
  int vectors = 8;
  while (vectors > 2 && (vectors + 1) * channels + 1 > kRegisters &&
         (channels + 1) * vectors + 1 > kRegisters) {
    vectors /= 2;
  }
  return vectors;
}

/// Lines that a tile of `vectors` vectors each takes together.
constexpr int pixel_lines(int channels, int vectors) {
  const int most = channels > 3 ? 2 : 4;
  const int fit = pixel_vectors(channels) / vectors;
  return fit < most ? fit : most;
}

template <class T>
PixelShape pixel_shape(int channels, std::int64_t columns) {
  int vectors = pixel_vectors(channels);
  while (vectors > 1 && (vectors - 1) * kLanes<T> >= columns) vectors /= 2;
  return {pixel_lines(channels, vectors), vectors * kLanes<T>};
}

template <class T, int kChannels, int kLines, int kVectors>
CONVOLITH_INLINE void store_pixels(const PixelTile<T>& tile,
                                   const Vec<T> (&sum)[kLines][kChannels][kVectors]) {
  const auto last = static_cast<int>(tile.columns) - (kVectors - 1) * kLanes<T>;
  CONVOLITH_UNROLL(4)
  for (int l = 0; l < kLines; ++l) {
    T* line = tile.output + l * tile.output_line_stride;
    CONVOLITH_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const int count = v < kVectors - 1 ? kLanes<T> : last;
      if constexpr (kChannels <= kMostInterleaved<T>) {
        if (tile.interleaves) {
          Vec<T> streams[kChannels];
          CONVOLITH_UNROLL(8)
          for (int c = 0; c < kChannels; ++c) streams[c] = sum[l][c][v];
          store_interleaved<T, kChannels>(streams, line + v * kLanes<T> * kChannels, count);
          continue;
        }
      }
      T* at = line + v * kLanes<T>;
      CONVOLITH_UNROLL(16)
      for (int c = 0; c < kChannels; ++c) {
        store_upto<T>(at, sum[l][c][v], count);
        at = opaque(at + tile.output_channel_stride);
      }
    }
  }
}

template <class T, int kChannels, int kLines, int kVectors>
CONVOLITH_INLINE void finish_pixels(const PixelTile<T>& tile,
                                    Vec<T> (&sum)[kLines][kChannels][kVectors]) {
  T* partial = tile.partial;
  CONVOLITH_UNROLL(4)
  for (int l = 0; l < kLines; ++l) {
    CONVOLITH_UNROLL(16)
    for (int c = 0; c < kChannels; ++c) {
      const Vec<T> bias = broadcast(tile.bias == nullptr ? T(0) : tile.bias[c]);
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        Vec<T>& s = sum[l][c][v];
        if (tile.continues) s = load(partial) + s;
        if (tile.output == nullptr) {
          store<T>(partial, s);
        } else if (tile.finishes) {
          s = min_keeping_nan<T>(max_keeping_nan<T>(s + bias, broadcast(tile.least)),
                                 broadcast(tile.greatest));
        }
        partial += kLanes<T>;
      }
    }
  }
  if (tile.output != nullptr) store_pixels<T, kChannels, kLines, kVectors>(tile, sum);
}

/// A function of its own, as those of `GatherChannelsLast`. V: vectors, or halves of one.
template <class T, class V, int kChannels, int kLines, int kVectors, bool kPartial>
[[gnu::noinline]] void pixel_tile_of(const PixelTile<T>& tile) {
  constexpr bool kHalf = sizeof(V) < sizeof(Vec<T>);
  const auto last = static_cast<int>(tile.columns) - (kVectors - 1) * kLanes<T>;
  const T* weight = tile.weight;
  const T* source = tile.source;
  const std::int64_t* offsets = tile.offsets;
  const std::int64_t line_stride = tile.source_line_stride;
  const std::int64_t ahead = tile.streams ? kVectors * kLanes<T> : 0;
  // The lines that results are written to are fetched row by row, with the first terms.
  constexpr bool kFetches = kLines == 1 && kVectors <= 2;
  const bool writes_rows = tile.output != nullptr && !tile.interleaves;
  const T* row_ahead = writes_rows ? tile.output : source;
  const std::int64_t rows_ahead = writes_rows ? kChannels - 1 : 0;
  V sum[kLines][kChannels][kVectors] = {};
  CONVOLITH_UNROLL(2)
  for (std::int64_t t = 0; t < tile.terms; ++t) {
    const T* from = source + offsets[t];
    if constexpr (kFetches) {
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) {
        __builtin_prefetch(from + ahead + v * kLanes<T>);
        __builtin_prefetch(row_ahead + v * kLanes<T>, 1);
      }
      row_ahead += t < rows_ahead ? tile.output_channel_stride : 0;
    }
    const auto load_pixels = [&](int line, int v) -> V {
      const T* at = from + line * line_stride + v * kLanes<T>;
      if constexpr (kHalf) {
        return load_partial_half(at, last);
      } else {
        return kPartial && v == kVectors - 1 ? load_partial(at, last) : load(at);
      }
    };
    const auto factor_of = [weight](int channel) -> V {
      if constexpr (kHalf) {
        return broadcast_half(weight[channel]);
      } else {
        return broadcast(weight[channel]);
      }
    };
    if constexpr (kChannels < kLines * kVectors) {
      V factors[kChannels];
      CONVOLITH_UNROLL(8)
      for (int c = 0; c < kChannels; ++c) factors[c] = factor_of(c);
      CONVOLITH_UNROLL(4)
      for (int l = 0; l < kLines; ++l) {
        CONVOLITH_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) {
          const V pixels = load_pixels(l, v);
          CONVOLITH_UNROLL(8)
          for (int c = 0; c < kChannels; ++c) {
            sum[l][c][v] = multiply_add(factors[c], pixels, sum[l][c][v]);
          }
        }
      }
    } else {
      V pixels[kLines][kVectors];
      CONVOLITH_UNROLL(4)
      for (int l = 0; l < kLines; ++l) {
        CONVOLITH_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) pixels[l][v] = load_pixels(l, v);
      }
      CONVOLITH_UNROLL(16)
      for (int c = 0; c < kChannels; ++c) {
        const V factor = factor_of(c);
        CONVOLITH_UNROLL(4)
        for (int l = 0; l < kLines; ++l) {
          CONVOLITH_UNROLL(8)
          for (int v = 0; v < kVectors; ++v) {
            sum[l][c][v] = multiply_add(factor, pixels[l][v], sum[l][c][v]);
          }
        }
      }
    }
    weight += kTileRows;
  }
  if constexpr (kHalf) {
    Vec<T> wide[kLines][kChannels][kVectors];
    CONVOLITH_UNROLL(16)
    for (int c = 0; c < kChannels; ++c) wide[0][c][0] = widen<T>(sum[0][c][0]);
    finish_pixels<T, kChannels, kLines, kVectors>(tile, wide);
  } else {
    finish_pixels<T, kChannels, kLines, kVectors>(tile, sum);
  }
}

template <class T>
struct PixelTiles {
  template <int kChannels>
  struct Rows {
    template <int kVectors>
    CONVOLITH_INLINE static void run_partial(const PixelTile<T>& tile) {
      if constexpr (kHasHalves && kVectors == 1) {
        if (tile.columns <= kLanes<T> / 2) {
          pixel_tile_of<T, HalfVec<T>, kChannels, 1, 1, true>(tile);
          return;
        }
      }
      pixel_tile_of<T, Vec<T>, kChannels, 1, kVectors, true>(tile);
    }
    template <int kVectors, int kLines>
    static void run_lines(PixelTile<T> tile) {
      for (; tile.lines >= kLines; tile.lines -= kLines) {
        if (kLines > 1 || tile.reads_whole_vectors || tile.columns == kVectors * kLanes<T>) {
          pixel_tile_of<T, Vec<T>, kChannels, kLines, kVectors, false>(tile);
        } else {
          run_partial<kVectors>(tile);
        }
        tile.source += kLines * tile.source_line_stride;
        if (tile.partial != nullptr) tile.partial += kLines * kChannels * kVectors * kLanes<T>;
        if (tile.output != nullptr) tile.output += kLines * tile.output_line_stride;
      }
      if constexpr (kLines > 1) {
        if (tile.lines > 0) run_lines<kVectors, kLines / 2>(tile);
      }
    }
    template <int kVectors>
    CONVOLITH_INLINE static void run_vectors(const PixelTile<T>& tile) {
      if constexpr (kVectors > 1) {
        if (tile.columns <= kVectors / 2 * kLanes<T>) {
          run_vectors<kVectors / 2>(tile);
          return;
        }
      }
      if (tile.reads_whole_vectors) {
        run_lines<kVectors, pixel_lines(kChannels, kVectors)>(tile);
      } else {
        run_lines<kVectors, 1>(tile);
      }
    }
    static void run(const PixelTile<T>& tile) {
      PixelTile<T> piece = tile;
      for (std::int64_t left = tile.columns; left > 0; left -= piece.columns) {
        const int most = pixel_shape<T>(kChannels, left).columns;
        piece.columns = left < most ? left : most;
        run_vectors<pixel_vectors(kChannels)>(piece);
        piece.source += piece.columns;
        if (tile.output != nullptr) {
          piece.output += tile.interleaves ? piece.columns * kChannels : piece.columns;
        }
      }
    }
  };
};

template <class T>
void pixel_tile(const PixelTile<T>& tile) {
  ForRows<PixelTiles<T>::template Rows, kTileRows>::run(tile.channels, tile);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
