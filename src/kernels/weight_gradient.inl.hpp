#pragma once

#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// channels_last: a rank-1 update per pixel.
template <class T>
struct WeightGradientChannelsLast {
  template <int kRows, int kVectors>
  static void run_tile(const WeightGradientTile<T>& tile) {
    const int last = tile.out_channels - (kVectors - 1) * kLanes<T>;
    Vec<T> sum[kRows][kVectors] = {};
    for (std::int64_t s = 0; s < tile.segment_count; ++s) {
      const Segment segment = tile.segments[s];
      const T* x = tile.x + segment.x;
      const T* y = tile.y + segment.y;
      for (std::int64_t p = 0; p < segment.count; ++p) {
        Vec<T> column[kVectors];
        CONVOLITH_UNROLL(2)
        for (int v = 0; v < kVectors; ++v) {
          column[v] = load_upto(y + v * kLanes<T>, v < kVectors - 1 ? kLanes<T> : last);
        }
        CONVOLITH_UNROLL(16)
        for (int r = 0; r < kRows; ++r) {
          const Vec<T> row = broadcast(x[r]);
          CONVOLITH_UNROLL(2)
          for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
        }
        x += tile.x_pixel_stride;
        y += tile.y_pixel_stride;
      }
    }
    store_tile<T, kRows, kVectors>(sum, tile.gradient, tile.gradient_row_stride,
                                   tile.out_channels, true);
  }

  template <int kRows>
  struct Rows {
    static void run(const WeightGradientTile<T>& tile) {
      if (tile.out_channels > kLanes<T>) {
        run_tile<kRows, 2>(tile);
      } else {
        run_tile<kRows, 1>(tile);
      }
    }
  };
};

template <class T>
void weight_gradient_channels_last(const WeightGradientTile<T>& tile) {
  ForRows<WeightGradientChannelsLast<T>::template Rows, kTileRows>::run(tile.in_channels, tile);
}

constexpr int kGradientBlock = 3;  // 3 x 3 accumulators and 6 operands of 16 registers

/// channels_first: dot products over runs of pixels.
template <class T>
struct WeightGradientChannelsFirst {
  template <int kIn, int kOut, bool kContiguous>
  static void run_tile(const WeightGradientTile<T>& tile) {
    Vec<T> sum[kIn][kOut] = {};
    for (std::int64_t s = 0; s < tile.segment_count; ++s) {
      const Segment segment = tile.segments[s];
      for (std::int64_t p = 0; p < segment.count; p += kLanes<T>) {
        const int count =
            segment.count - p < kLanes<T> ? static_cast<int>(segment.count - p) : kLanes<T>;
        const T* x = tile.x + segment.x + p * tile.x_pixel_stride;
        const T* y = tile.y + segment.y + p;
        Vec<T> row[kIn];
        CONVOLITH_UNROLL(4)
        for (int c = 0; c < kIn; ++c) {
          const T* at = x + c * tile.x_channel_stride;
          row[c] = kContiguous ? load_upto(at, count)
                               : load_strided(at, tile.x_pixel_stride, count);
        }
        CONVOLITH_UNROLL(4)
        for (int k = 0; k < kOut; ++k) {
          const Vec<T> column = load_upto(y + k * tile.y_channel_stride, count);
          CONVOLITH_UNROLL(4)
          for (int c = 0; c < kIn; ++c) sum[c][k] = multiply_add(row[c], column, sum[c][k]);
        }
      }
    }
    for (int c = 0; c < kIn; ++c) {
      for (int k = 0; k < kOut; ++k) {
        tile.gradient[c * tile.gradient_row_stride + k] += sum_of_lanes<T>(sum[c][k]);
      }
    }
  }

  template <int kIn>
  struct In {
    template <int kOut>
    struct Out {
      static void run(const WeightGradientTile<T>& tile) {
        if (tile.x_pixel_stride == 1) {
          run_tile<kIn, kOut, true>(tile);
        } else {
          run_tile<kIn, kOut, false>(tile);
        }
      }
    };
    static void run(const WeightGradientTile<T>& tile) {
      ForRows<Out, kGradientBlock>::run(tile.out_channels, tile);
    }
  };
};

template <class T>
void weight_gradient_channels_first(const WeightGradientTile<T>& tile) {
  ForRows<WeightGradientChannelsFirst<T>::template In, kGradientBlock>::run(tile.in_channels,
                                                                            tile);
}

template <class T>
void weight_gradient_depthwise(const WeightGradientTile<T>& tile) {
  constexpr int kBlock = 4;  // vectors of channels in registers
  for (int first = 0; first < tile.out_channels; first += kBlock * kLanes<T>) {
    Vec<T> sum[kBlock] = {};
    int counts[kBlock];
    for (int v = 0; v < kBlock; ++v) {
      const int left = tile.out_channels - first - v * kLanes<T>;
      counts[v] = left < 0 ? 0 : left > kLanes<T> ? kLanes<T> : left;
    }
    for (std::int64_t s = 0; s < tile.segment_count; ++s) {
      const Segment segment = tile.segments[s];
      const T* x = tile.x + segment.x + first;
      const T* y = tile.y + segment.y + first;
      for (std::int64_t p = 0; p < segment.count; ++p) {
        CONVOLITH_UNROLL(4)
        for (int v = 0; v < kBlock; ++v) {
          if (counts[v] == 0) break;
          sum[v] = multiply_add(load_upto(x + v * kLanes<T>, counts[v]),
                                load_upto(y + v * kLanes<T>, counts[v]), sum[v]);
        }
        x += tile.x_pixel_stride;
        y += tile.y_pixel_stride;
      }
    }
    for (int v = 0; v < kBlock && counts[v] > 0; ++v) {
      T* at = tile.gradient + first + v * kLanes<T>;
      store_upto<T>(at, load_upto(at, counts[v]) + sum[v], counts[v]);
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
