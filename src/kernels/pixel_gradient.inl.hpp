#pragma once

// The gradient of weights with pixels as lanes.

#include "kernels/tile.inl.hpp"
#include "kernels/weight_gemm_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr int kPixelTaps = kVectorBytes == 64 ? 7 : 4;

/// Channels of y whose vectors and sums fit into registers, with a vector of x.
constexpr int pixel_channels(int taps) {
  constexpr int kRegisters = kVectorBytes == 64 ? 32 : 16;
  constexpr int kMost = 8;
  const int fit = (kRegisters - 2) / (taps + 1);
  return fit < kMost ? fit : kMost;
}

template <class T>
struct PixelGradient {
  template <int kTaps, int kChannels>
  static void run_tile(const PixelGradientTile<T>& tile) {
    Vec<T> sum[kTaps][kChannels] = {};
    const std::int64_t y_channel_stride = tile.y_channel_stride;
    const auto add = [&](const T* x, const T* y, auto load_lanes_of) {
      Vec<T> gradient[kChannels];
      CONVOLITH_UNROLL(8)
      for (int k = 0; k < kChannels; ++k) gradient[k] = load_lanes_of(y + k * y_channel_stride);
      CONVOLITH_UNROLL(8)
      for (int t = 0; t < kTaps; ++t) {
        Vec<T> source = load_lanes_of(x + t);
        keep(source);
        CONVOLITH_UNROLL(8)
        for (int k = 0; k < kChannels; ++k) {
          sum[t][k] = multiply_add(source, gradient[k], sum[t][k]);
        }
      }
    };
    const auto last = static_cast<int>(tile.columns % kLanes<T>);
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      const T* x = tile.x + r * tile.x_row_stride;
      const T* y = tile.y + r * tile.y_row_stride;
      for (std::int64_t i = tile.columns; i >= kLanes<T>; i -= kLanes<T>) {
        add(x, y, [](const T* p) { return load(p); });
        x += kLanes<T>;
        y += kLanes<T>;
      }
      if (last > 0) add(x, y, [last](const T* p) { return load_partial(p, last); });
    }
    CONVOLITH_UNROLL(8)
    for (int t = 0; t < kTaps; ++t) {
      CONVOLITH_UNROLL(8)
      for (int k = 0; k < kChannels; ++k) {
        T* to = tile.sums + t * tile.sums_tap_stride + k * kLanes<T>;
        store<T>(to, load(to) + sum[t][k]);
      }
    }
  }

  template <int kTaps>
  struct Taps {
    template <int kChannels>
    struct Channels {
      static void run(const PixelGradientTile<T>& tile) { run_tile<kTaps, kChannels>(tile); }
    };
    static void run(const PixelGradientTile<T>& tile) {
      ForRows<Channels, pixel_channels(kTaps)>::run(tile.channels, tile);
    }
  };
};

template <class T>
void pixel_gradient_tile(const PixelGradientTile<T>& tile) {
  ForRows<PixelGradient<T>::template Taps, kPixelTaps>::run(tile.taps, tile);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
