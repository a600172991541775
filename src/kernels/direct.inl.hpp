#pragma once

// Gather kernels: each output pixel of a tile sums the products under its own taps. Forward and
// backward-input are both gathers; only their tap lists differ.

#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// The residual of a tile that begins at a pixel.
template <class T>
CONVOLITH_INLINE const T* residual_of(const GatherTile<T>& tile, int pixel) {
  return tile.residual == nullptr ? nullptr : tile.residual + pixel * tile.residual_pixel_stride;
}

template <class T>
CONVOLITH_INLINE TileFinish<T> finish_of(const GatherTile<T>& tile, const T* bias,
                                         const T* residual) {
  return {tile.accumulate, bias,          residual,        tile.residual_pixel_stride,
          tile.least,      tile.greatest, tile.past_caches};
}

/// For sums of `terms` products.
template <int kPixels, int kVectors, class T>
CONVOLITH_INLINE ResultsAhead<T, kPixels, kVectors> results_ahead(const GatherTile<T>& tile,
                                                                  std::int64_t terms,
                                                                  const T* residual,
                                                                  const T* output) {
  if (tile.past_caches || terms < kLongSum) output = nullptr;
  if (!tile.finishes) residual = nullptr;
  return {output, residual, tile.output_pixel_stride, tile.residual_pixel_stride,
          output == nullptr && residual == nullptr ? 0 : kPixels};
}

/// Where the source of a tile of one tap comes from: a cache near by; memory, in pixels that touch;
/// or channels that lie apart, each with its pixels side by side.
enum class PointwiseSource { near, streams, channels_apart };

template <class T>
struct GatherChannelsLast {
  /// Adds the products of one tap for the pixels [kFirst, kEnd) of those from `source` on.
  template <int kFirst, int kEnd, int kPixels, int kVectors>
  CONVOLITH_INLINE static void add_tap(Vec<T> (&sum)[kPixels][kVectors], const GatherTile<T>& tile,
                                       const T* source, const T* weight) {
    RowPointers<T, kPixels> pixels(source, tile.source_pixel_stride);
    CONVOLITH_UNROLL(4)
    for (std::int64_t c = 0; c < tile.channels; ++c) {
      add_channel<kFirst, kEnd>(sum, pixels, weight, tile.panel_stride);
      pixels.advance();
      weight += kTileColumns<T>;
    }
  }

  template <int kFirst, int kEnd, int kPixels, int kVectors>
  CONVOLITH_INLINE static void add_channel(Vec<T> (&sum)[kPixels][kVectors],
                                           const RowPointers<T, kPixels>& pixels, const T* weight,
                                           std::int64_t panel_stride) {
    Vec<T> column[kVectors];
    load_columns<T>(column, weight, panel_stride);
    CONVOLITH_UNROLL(16)
    for (int p = kFirst; p < kEnd; ++p) {
      const Vec<T> row = broadcast(pixels.at(p));
      CONVOLITH_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) sum[p][v] = multiply_add(row, column[v], sum[p][v]);
    }
  }

  template <int kPixels, int kVectors>
  CONVOLITH_INLINE static void store_sums(Vec<T> (&sum)[kPixels][kVectors],
                                          const GatherTile<T>& tile, const T* residual, T* output) {
    if (tile.finishes) {
      finish_tile<T>(sum, output, tile.output_pixel_stride, tile.out_channels,
                     finish_of(tile, tile.bias, residual));
    } else {
      store_tile<T>(sum, output, tile.output_pixel_stride, tile.out_channels, tile.accumulate,
                    tile.past_caches);
    }
  }

  // Functions of their own, with no more addresses than there are registers: GCC would keep some in
  // vector registers, where they wait behind the multiply-adds.

  template <int kPixels, int kVectors>
  [[gnu::noinline]] static void run_tile(const GatherTile<T>& tile, const T* source,
                                         const T* residual, T* output, unsigned edges) {
    auto results =
        results_ahead<kPixels, kVectors>(tile, tile.tap_count * tile.channels, residual, output);
    Vec<T> sum[kPixels][kVectors] = {};
    for (std::int64_t t = 0; t < tile.tap_count; ++t) {
      // All rows within three quarters of the taps.
      while (results.rows > 0 &&
             (kPixels - results.rows) * 3 * tile.tap_count < 4 * kPixels * (t + 1)) {
        results.fetch_row();
      }
      const Tap& tap = tile.taps[t];
      const T* from = source + tap.source;
      const T* weight = tile.weight + tap.weight;
      switch (tap.padded_edges & edges) {
        case kFirstPixel: add_tap<1, kPixels>(sum, tile, from, weight); break;
        case kLastPixel: add_tap<0, kPixels - 1>(sum, tile, from, weight); break;
        default: add_tap<0, kPixels>(sum, tile, from, weight);
      }
    }
    store_sums(sum, tile, residual, output);
  }

  /// Of one tap, which finds no padding.
  template <int kPixels, int kVectors, PointwiseSource kSource>
  [[gnu::noinline]] static void run_pointwise(const GatherTile<T>& tile, const T* source,
                                              const T* weight, const T* residual, T* output) {
    constexpr bool kApart = kSource == PointwiseSource::channels_apart;
    const std::int64_t step = kApart ? tile.source_channel_stride : 1;
    // The pixels of the next tile are fetched: where they touch, all channels in turn; where
    // channels lie apart, the last pixel, on whose line the others are that this tile does not
    // read.
    const T* ahead = kApart ? source + 2 * kPixels - 1
                            : source + kPixels * tile.source_pixel_stride +
                                  tile.first_channel * (kPixels - 1);
    auto results = results_ahead<kPixels, kVectors>(tile, tile.channels, residual, output);
    RowPointers<T, kPixels> pixels(source, kApart ? 1 : tile.source_pixel_stride);
    const std::int64_t panel_stride = tile.panel_stride;
    Vec<T> sum[kPixels][kVectors] = {};
    results.between(tile.channels, [&](std::int64_t) {
      if constexpr (kSource != PointwiseSource::near) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += kApart ? step : kPixels;
      }
      add_channel<0, kPixels>(sum, pixels, weight, panel_stride);
      pixels.advance(step);
      weight += kTileColumns<T>;
    });
    store_sums(sum, tile, residual, output);
  }

  template <int kPixels>
  struct Rows {
    template <int kVectors>
    static void run_tiles(const GatherTile<T>& tile, int first, int end) {
      if (tile.tap_count == 1 && (tile.taps->padded_edges & tile.edges) == 0) {
        const T* weight = tile.weight + tile.taps->weight;
        for (int p = first; p < end; p += kPixels) {
          const T* source = tile.source + tile.taps->source + p * tile.source_pixel_stride;
          const T* residual = residual_of(tile, p);
          T* output = tile.output + p * tile.output_pixel_stride;
          const auto run = tile.source_channel_stride != 1
                               ? run_pointwise<kPixels, kVectors, PointwiseSource::channels_apart>
                           : tile.streams
                               ? run_pointwise<kPixels, kVectors, PointwiseSource::streams>
                               : run_pointwise<kPixels, kVectors, PointwiseSource::near>;
          run(tile, source, weight, residual, output);
        }
        return;
      }
      for (int p = first; p < end; p += kPixels) {
        const unsigned edges = (p == 0 ? tile.edges & kFirstPixel : 0U) |
                               (p + kPixels == tile.pixels ? tile.edges & kLastPixel : 0U);
        run_tile<kPixels, kVectors>(tile, tile.source + p * tile.source_pixel_stride,
                                    residual_of(tile, p),
                                    tile.output + p * tile.output_pixel_stride, edges);
      }
    }
    static void run(const GatherTile<T>& tile, int first, int end) {
      with_vectors<T, kPixels>(tile.out_channels,
                               [&](auto vectors) { run_tiles<vectors.value>(tile, first, end); });
    }
  };
};

template <class T>
void gather_channels_last(const GatherTile<T>& tile) {
  if constexpr (kPairedRows > 0) {
    if (tile.out_channels > kTileColumns<T>) {
      for_equal_tiles<GatherChannelsLast<T>::template Rows, kPairedRows>(tile.pixels, kPairedRows,
                                                                         tile);
      return;
    }
  }
  for_equal_tiles<GatherChannelsLast<T>::template Rows, kTileRows>(tile.pixels, tile.tile_pixels,
                                                                   tile);
}

template <class T>
struct GatherTermsChannelsLast {
  template <int kPixels, int kVectors, bool kFinishes>
  [[gnu::noinline]] static void run_tile(const GatherTile<T>& tile, const std::int64_t* offsets,
                                         std::int64_t terms, const T* from, const T* weight,
                                         std::int64_t panel_stride, const T* bias,
                                         const T* residual, T* output, int channels) {
    if (!tile.past_caches) {
      prefetch_tile_of<T, kPixels, kVectors>(terms, output, tile.output_pixel_stride);
    }
    if (kFinishes && residual != nullptr) {
      prefetch_tile<T, kPixels, kVectors, 0>(residual, tile.residual_pixel_stride);
    }
    const RowPointers<T, kPixels> source(from, tile.source_pixel_stride);
    Vec<T> sum[kPixels][kVectors] = {};
    CONVOLITH_UNROLL(2)
    for (std::int64_t t = 0; t < terms; ++t) {
      Vec<T> column[kVectors];
      load_columns<T>(column, weight, panel_stride);
      const std::int64_t offset = offsets[t];
      CONVOLITH_UNROLL(16)
      for (int p = 0; p < kPixels; ++p) {
        const Vec<T> row = broadcast(source.at(p, offset));
        CONVOLITH_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) sum[p][v] = multiply_add(row, column[v], sum[p][v]);
      }
      weight += kTileColumns<T>;
    }
    if constexpr (kFinishes) {
      finish_tile<T>(sum, output, tile.output_pixel_stride, channels,
                     finish_of(tile, bias, residual));
    } else {
      store_tile<T>(sum, output, tile.output_pixel_stride, channels, tile.accumulate,
                    tile.past_caches);
    }
  }

  template <int kPixels>
  struct Rows {
    template <bool kFinishes>
    static void run_panels(const GatherTile<T>& tile, const std::int64_t* offsets,
                           std::int64_t terms, std::int64_t panel_stride, int pixel) {
      const T* source = tile.source + pixel * tile.source_pixel_stride;
      const T* weight = tile.weight;
      const T* first_residual = residual_of(tile, pixel);
      const int most = (kPixels <= kPairedRows && tile.pairs ? 2 : 1) * kTileColumns<T>;
      for (int first = 0; first < tile.out_channels; first += most) {
        const int left = tile.out_channels - first;
        const int channels = left < most ? left : most;
        const T* bias = tile.bias != nullptr ? tile.bias + first : nullptr;
        const T* residual = first_residual != nullptr ? first_residual + first : nullptr;
        T* output = tile.output + pixel * tile.output_pixel_stride + first;
        const auto run = [&](auto vectors) {
          run_tile<kPixels, vectors.value, kFinishes>(
              tile, offsets, terms, source, weight, panel_stride, bias, residual, output, channels);
        };
        with_vectors<T, kPixels>(channels, run);
        weight += most / kTileColumns<T> * panel_stride;
      }
    }
    static void run(const GatherTile<T>& tile, const std::int64_t* offsets, std::int64_t terms,
                    std::int64_t panel_stride, int first, int end) {
      for (int pixel = first; pixel < end; pixel += kPixels) {
        tile.finishes ? run_panels<true>(tile, offsets, terms, panel_stride, pixel)
                      : run_panels<false>(tile, offsets, terms, panel_stride, pixel);
      }
    }
  };
};

template <class T>
void gather_terms_channels_last(const GatherTile<T>& tile, const std::int64_t* offsets,
                                std::int64_t terms, std::int64_t panel_stride) {
  const bool paired = tile.pairs && tile.out_channels > kTileColumns<T>;
  for_equal_tiles<GatherTermsChannelsLast<T>::template Rows, kOverlappingRows>(
      tile.pixels, paired ? kPairedRows : kOverlappingRows, tile, offsets, terms, panel_stride);
}

/// How a tile's source pixels lie: whole vectors, a last vector in part, or one by one.
enum class SourcePixels { whole, partial, strided };

template <class T>
struct GatherChannelsFirst {
  template <int kChannels, int kVectors, SourcePixels kPixels>
  static void run_tile(const GatherTile<T>& tile) {
    const int last = tile.pixels - (kVectors - 1) * kLanes<T>;
    const std::int64_t step = tile.source_pixel_stride;
    Vec<T> sum[kChannels][kVectors] = {};
    for (std::int64_t t = 0; t < tile.tap_count; ++t) {
      const T* source = tile.source + tile.taps[t].source;
      const T* weight = tile.weight + tile.taps[t].weight;
      for (std::int64_t c = 0; c < tile.channels; ++c) {
        Vec<T> column[kVectors];
        CONVOLITH_UNROLL(2)
        for (int v = 0; v < kVectors; ++v) {
          const bool in_part = v == kVectors - 1 && kPixels != SourcePixels::whole;
          const T* at = source + v * kLanes<T> * step;
          if constexpr (kPixels == SourcePixels::strided) {
            column[v] = load_strided(at, step, in_part ? last : kLanes<T>);
          } else {
            column[v] = in_part ? load_partial(at, last) : load(at);
          }
        }
        CONVOLITH_UNROLL(16)
        for (int r = 0; r < kChannels; ++r) {
          const Vec<T> row = broadcast(weight[r]);
          CONVOLITH_UNROLL(2)
          for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
        }
        source += tile.source_channel_stride;
        weight += kTileRows;
      }
    }
    if (tile.output_pixel_stride == 1) {
      store_tile<T, kChannels, kVectors>(sum, tile.output, tile.output_channel_stride,
                                         tile.pixels, tile.accumulate);
      return;
    }
    for (int r = 0; r < kChannels; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        const std::int64_t out_step = tile.output_pixel_stride;
        const int count = v < kVectors - 1 ? kLanes<T> : last;
        T* at = tile.output + r * tile.output_channel_stride + v * kLanes<T> * out_step;
        Vec<T> value = sum[r][v];
        if (tile.accumulate) value = load_strided(at, out_step, count) + value;
        store_strided<T>(at, out_step, value, count);
      }
    }
  }

  template <int kChannels, SourcePixels kPixels>
  static void run_vectors(const GatherTile<T>& tile) {
    if (tile.pixels > kLanes<T>) {
      run_tile<kChannels, 2, kPixels>(tile);
    } else {
      run_tile<kChannels, 1, kPixels>(tile);
    }
  }

  template <int kChannels>
  struct Rows {
    static void run(const GatherTile<T>& tile) {
      if (tile.source_pixel_stride != 1) {
        run_vectors<kChannels, SourcePixels::strided>(tile);
      } else if (tile.pixels % kLanes<T> != 0) {
        run_vectors<kChannels, SourcePixels::partial>(tile);
      } else {
        run_vectors<kChannels, SourcePixels::whole>(tile);
      }
    }
  };
};

template <class T>
void gather_channels_first(const GatherTile<T>& tile) {
  ForRows<GatherChannelsFirst<T>::template Rows, kTileRows>::run(tile.out_channels, tile);
}

template <class T>
struct GatherDepthwise {
  template <int kPixels, int kVectors>
  static void run_tile(const GatherTile<T>& tile) {
    const int last = tile.out_channels - (kVectors - 1) * kLanes<T>;
    Vec<T> sum[kPixels][kVectors] = {};
    for (std::int64_t t = 0; t < tile.tap_count; ++t) {
      const T* source = tile.source + tile.taps[t].source;
      const T* weight = tile.weight + tile.taps[t].weight;
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) {
        const int count = v < kVectors - 1 ? kLanes<T> : last;
        const Vec<T> w = load_upto(weight + v * kLanes<T>, count);
        CONVOLITH_UNROLL(16)
        for (int p = 0; p < kPixels; ++p) {
          const T* pixel = source + p * tile.source_pixel_stride + v * kLanes<T>;
          sum[p][v] = multiply_add(load_upto(pixel, count), w, sum[p][v]);
        }
      }
    }
    store_tile<T, kPixels, kVectors>(sum, tile.output, tile.output_pixel_stride,
                                     tile.out_channels, tile.accumulate);
  }

  template <int kPixels>
  struct Rows {
    static void run(const GatherTile<T>& tile) {
      if (tile.out_channels > kLanes<T>) {
        run_tile<kPixels, 2>(tile);
      } else {
        run_tile<kPixels, 1>(tile);
      }
    }
  };
};

template <class T>
void gather_depthwise(const GatherTile<T>& tile) {
  ForRows<GatherDepthwise<T>::template Rows, kTileRows>::run(tile.pixels, tile);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
