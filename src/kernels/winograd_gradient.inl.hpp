#pragma once

// Winograd transforms for the gradient of weights. Lanes are channels of the output.

#include "kernels/cook_toom_table.hpp"
#include "kernels/winograd_gradient_table.hpp"
#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T, int kTile, int kTaps>
struct WinogradGradientTile {
  static constexpr CookToom kMatrices = cook_toom(kTaps, kTile);
  static constexpr int kInputs = kMatrices.inputs;

  /// G y: the frequencies of a pair +-p share the even and odd powers of p.
  CONVOLITH_INLINE static void transform(const Vec<T> (&y)[kTile], Vec<T> (&u)[kInputs]) {
    const auto factor = [](int row, int i) {
      return broadcast<T>(static_cast<T>(kMatrices.weight[row][i]));
    };
    u[0] = factor(0, 0) * y[0];
    u[kInputs - 1] = y[kTile - 1];
    CONVOLITH_UNROLL(3)
    for (int row = 1; row < kInputs - 1; row += 2) {
      Vec<T> even = factor(row, 0) * y[0];
      Vec<T> odd = factor(row, 1) * y[1];
      CONVOLITH_UNROLL(2)
      for (int i = 2; i < kTile; i += 2) {
        even = multiply_add(factor(row, i), y[i], even);
        odd = multiply_add(factor(row, i + 1), y[i + 1], odd);
      }
      u[row] = even + odd;
      u[row + 1] = even - odd;
    }
  }

  /// A^T m
  CONVOLITH_INLINE static void inverse(const Vec<T> (&m)[kInputs], Vec<T> (&w)[kTaps]) {
    CONVOLITH_UNROLL(5)
    for (int t = 0; t < kTaps; ++t) {
      Vec<T> sum = t == 0 ? m[0] : t == kTaps - 1 ? m[kInputs - 1] : zero<T>();
      CONVOLITH_UNROLL(3)
      for (int row = 1; row < kInputs - 1; row += 2) {
        const Vec<T> part = t % 2 == 0 ? m[row] + m[row + 1] : m[row] - m[row + 1];
        sum = multiply_add(broadcast<T>(static_cast<T>(kMatrices.output[t][row])), part, sum);
      }
      w[t] = sum;
    }
  }

  /// One vector of channels; pixel(i, j) loads. `next` is where the next vector will be stored.
  template <class Pixel>
  CONVOLITH_INLINE static void output_vector(const Pixel& pixel, T* transformed,
                                             std::int64_t frequency_stride, std::int64_t next) {
    Vec<T> columns[kTile][kInputs];
    CONVOLITH_UNROLL(6)
    for (int j = 0; j < kTile; ++j) {
      Vec<T> y[kTile];
      CONVOLITH_UNROLL(6)
      for (int i = 0; i < kTile; ++i) y[i] = pixel(i, j);
      transform(y, columns[j]);
    }
    CONVOLITH_UNROLL(8)
    for (int i = 0; i < kInputs; ++i) {
      Vec<T> row[kTile], u[kInputs];
      CONVOLITH_UNROLL(6)
      for (int j = 0; j < kTile; ++j) row[j] = columns[j][i];
      transform(row, u);
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kInputs; ++j) {
        store<T>(transformed, u[j]);
        __builtin_prefetch(transformed + next, 1);
        transformed += frequency_stride;
      }
      transformed = opaque(transformed);
    }
  }

  static void output(const WinogradOutputGradient<T>& in) {
    for (std::int64_t tile = 0; tile < in.tiles; ++tile) {
      const T* source = in.source + tile * in.source_tile_stride;
      T* transformed = in.transformed + tile * in.tile_stride;
      for (int c = 0; c < in.lanes; c += kLanes<T>) {
        const int count = in.channels - c < kLanes<T> ? in.channels - c : kLanes<T>;
        if (count <= 0) {
          for (int f = 0; f < kInputs * kInputs; ++f) {
            store<T>(transformed + f * in.frequency_stride + c, zero<T>());
          }
        } else if (in.pixels != nullptr) {
          output_vector(
              [&](int i, int j) { return load_upto(in.pixels[i * kTile + j] + c, count); },
              transformed + c, in.frequency_stride, in.tile_stride);
        } else if (count == kLanes<T>) {
          output_vector(
              [&](int i, int j) {
                return load(source + i * in.row_stride + j * in.column_stride + c);
              },
              transformed + c, in.frequency_stride, in.tile_stride);
        } else {
          output_vector(
              [&](int i, int j) {
                return load_partial(source + i * in.row_stride + j * in.column_stride + c, count);
              },
              transformed + c, in.frequency_stride, in.tile_stride);
        }
      }
    }
  }

  static void weight(const WinogradWeightGradient<T>& in) {
    for (std::int64_t row = 0; row < in.rows; ++row) {
      for (int lane = 0; lane < in.lanes; lane += kLanes<T>) {
        const T* products = in.products + row * in.lanes + lane;
        T* gradient = in.gradient + row * kTaps * kTaps * in.lanes + lane;
        Vec<T> columns[kInputs][kTaps];
        CONVOLITH_UNROLL(8)
        for (int j = 0; j < kInputs; ++j) {
          Vec<T> m[kInputs];
          CONVOLITH_UNROLL(8)
          for (int i = 0; i < kInputs; ++i) {
            m[i] = load(products + (i * kInputs + j) * in.frequency_stride);
          }
          inverse(m, columns[j]);
        }
        CONVOLITH_UNROLL(5)
        for (int i = 0; i < kTaps; ++i) {
          Vec<T> m[kInputs], w[kTaps];
          CONVOLITH_UNROLL(8)
          for (int j = 0; j < kInputs; ++j) m[j] = columns[j][i];
          inverse(m, w);
          CONVOLITH_UNROLL(5)
          for (int j = 0; j < kTaps; ++j) store<T>(gradient + (i * kTaps + j) * in.lanes, w[j]);
        }
      }
    }
  }
};

template <class T, int kTile, int kTaps>
constexpr WinogradGradientForm<T> winograd_gradient() {
  using Tile = WinogradGradientTile<T, kTile, kTaps>;
  return {.output = Tile::output, .weight = Tile::weight};
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
