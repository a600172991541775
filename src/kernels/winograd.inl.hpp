#pragma once

// Winograd transforms. Lanes are channels. A two-dimensional transform applies the one-dimensional
// one to the columns of a tile and then to the rows of what that gives; a pair of points +-p shares
// its even and odd parts.

#include "kernels/cook_toom.hpp"
#include "kernels/winograd_table.hpp"
#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

// Axes of a tile: F(kOutputs, kTaps), or one pixel that is left as it is.
template <int kOutputsOfAxis, int kTapsOfAxis>
struct Transformed {
  static constexpr CookToom kMatrices = cook_toom(kOutputsOfAxis, kTapsOfAxis);
  static constexpr int kInputs = kMatrices.inputs;
  static constexpr int kOutputs = kOutputsOfAxis;
  static constexpr int kTaps = kTapsOfAxis;
  static constexpr int kPairs = kInputs / 2 - 1;

  /// The polynomials of 0 and infinity are even and odd; that of a pair is e +- p o.
  template <class T>
  CONVOLITH_INLINE static void input(const Vec<T> (&x)[kInputs], Vec<T> (&v)[kInputs]) {
    Vec<T> first = x[kInputs - 2];
    Vec<T> last = x[kInputs - 1];
    CONVOLITH_UNROLL(3)
    for (int k = kPairs - 1; k >= 0; --k) {
      const Vec<T> factor = broadcast<T>(static_cast<T>(kMatrices.input[0][2 * k]));
      first = multiply_add(factor, x[2 * k], first);
      last = multiply_add(factor, x[2 * k + 1], last);
    }
    v[0] = first;
    v[kInputs - 1] = last;
    CONVOLITH_UNROLL(3)
    for (int pair = 0; pair < kPairs; ++pair) {
      Vec<T> even = x[kInputs - 2];
      Vec<T> odd = x[kInputs - 3];
      CONVOLITH_UNROLL(3)
      for (int k = kPairs - 2; k >= 0; --k) {
        const Vec<T> factor =
            broadcast<T>(static_cast<T>(kMatrices.input[1 + 2 * pair][2 * k + 2]));
        even = multiply_add(factor, x[2 * k + 2], even);
        odd = multiply_add(factor, x[2 * k + 1], odd);
      }
      const Vec<T> point = broadcast<T>(static_cast<T>(kMatrices.pair[pair]));
      v[1 + 2 * pair] = multiply_add(point, odd, even);
      v[2 + 2 * pair] = multiply_add(-point, odd, even);
    }
  }

  template <class T>
  CONVOLITH_INLINE static void weight(const Vec<T> (&w)[kTaps], Vec<T> (&u)[kInputs]) {
    const auto factor = [](int row, int tap) {
      return broadcast<T>(static_cast<T>(kMatrices.weight[row][tap]));
    };
    u[0] = factor(0, 0) * w[0];
    u[kInputs - 1] = w[kTaps - 1];
    CONVOLITH_UNROLL(3)
    for (int row = 1; row < kInputs - 1; row += 2) {
      Vec<T> even = factor(row, kTaps - 1) * w[kTaps - 1];
      Vec<T> odd = factor(row, kTaps - 2) * w[kTaps - 2];
      CONVOLITH_UNROLL(3)
      for (int tap = kTaps - 3; tap >= 0; tap -= 2) {
        even = multiply_add(factor(row, tap), w[tap], even);
        if (tap > 0) odd = multiply_add(factor(row, tap - 1), w[tap - 1], odd);
      }
      u[row] = even + odd;
      u[row + 1] = even - odd;
    }
  }

  template <class T>
  CONVOLITH_INLINE static void output(const Vec<T> (&m)[kInputs], Vec<T> (&y)[kOutputs]) {
    Vec<T> sum[kPairs], difference[kPairs];
    CONVOLITH_UNROLL(3)
    for (int pair = 0; pair < kPairs; ++pair) {
      sum[pair] = m[1 + 2 * pair] + m[2 + 2 * pair];
      difference[pair] = m[1 + 2 * pair] - m[2 + 2 * pair];
    }
    CONVOLITH_UNROLL(6)
    for (int i = 0; i < kOutputs; ++i) {
      const auto part = [&](int pair) { return i % 2 == 0 ? sum[pair] : difference[pair]; };
      const auto power = [&](int pair) {
        return broadcast<T>(static_cast<T>(kMatrices.output[i][1 + 2 * pair]));
      };
      if (i == 0) y[i] = m[0] + part(0);
      if (i > 0 && i < kOutputs - 1) y[i] = power(0) * part(0);
      if (i == kOutputs - 1) y[i] = multiply_add(power(0), part(0), m[kInputs - 1]);
      CONVOLITH_UNROLL(3)
      for (int pair = 1; pair < kPairs; ++pair) {
        y[i] = multiply_add(power(pair), part(pair), y[i]);
      }
    }
  }
};

struct Untransformed {
  static constexpr int kInputs = 1, kOutputs = 1, kTaps = 1;

  template <class T>
  CONVOLITH_INLINE static void input(const Vec<T> (&x)[1], Vec<T> (&v)[1]) {
    v[0] = x[0];
  }
  template <class T>
  CONVOLITH_INLINE static void weight(const Vec<T> (&w)[1], Vec<T> (&u)[1]) {
    u[0] = w[0];
  }
  template <class T>
  CONVOLITH_INLINE static void output(const Vec<T> (&m)[1], Vec<T> (&y)[1]) {
    y[0] = m[0];
  }
};

/// The transforms of a tile whose axes are Rows and Columns.
template <class T, class Rows, class Columns>
struct WinogradTile {
  static constexpr int kHeight = Rows::kInputs, kWidth = Columns::kInputs;

  /// One vector of channels; pixel(i, j) loads.
  template <class Pixel>
  CONVOLITH_INLINE static void input_vector(const Pixel& pixel, T* transformed,
                                            std::int64_t frequency_stride) {
    Vec<T> columns[kWidth][kHeight];
    CONVOLITH_UNROLL(8)
    for (int j = 0; j < kWidth; ++j) {
      Vec<T> x[kHeight];
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kHeight; ++i) x[i] = pixel(i, j);
      Rows::template input<T>(x, columns[j]);
    }
    CONVOLITH_UNROLL(8)
    for (int i = 0; i < kHeight; ++i) {
      Vec<T> row[kWidth], v[kWidth];
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kWidth; ++j) row[j] = columns[j][i];
      Columns::template input<T>(row, v);
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kWidth; ++j) {
        store<T>(transformed, v[j]);
        transformed += frequency_stride;
      }
    }
  }

  static void input(const WinogradInput<T>& in) {
    for (std::int64_t tile = 0; tile < in.tiles; ++tile) {
      const T* source = in.source + tile * in.source_tile_stride;
      T* transformed = in.transformed + tile * in.tile_stride;
      const std::int64_t whole = in.channels / kLanes<T> * kLanes<T>;
      const auto rest = static_cast<int>(in.channels - whole);
      if (in.pixels != nullptr) {
        const T* const* pixels = in.pixels;
        std::int64_t c = 0;
        for (; c < whole; c += kLanes<T>) {
          input_vector([&](int i, int j) { return load(pixels[i * kWidth + j] + c); },
                       transformed + c, in.frequency_stride);
        }
        if (rest > 0) {
          input_vector(
              [&](int i, int j) { return load_partial(pixels[i * kWidth + j] + c, rest); },
              transformed + c, in.frequency_stride);
        }
        continue;
      }
      const std::int64_t row_stride = in.row_stride, column_stride = in.column_stride;
      std::int64_t c = 0;
      for (; c < whole; c += kLanes<T>) {
        input_vector(
            [&](int i, int j) { return load(source + i * row_stride + j * column_stride + c); },
            transformed + c, in.frequency_stride);
      }
      if (rest > 0) {
        input_vector(
            [&](int i, int j) {
              return load_partial(source + i * row_stride + j * column_stride + c, rest);
            },
            transformed + c, in.frequency_stride);
      }
    }
  }

  static void weight(const WinogradWeight<T>& in) {
    for (std::int64_t c = 0; c < in.channels; ++c) {
      for (int lane = 0; lane < in.lanes; lane += kLanes<T>) {
        const T* taps = in.taps + c * in.channel_stride + lane;
        T* transformed = in.transformed + c * in.lanes + lane;
        Vec<T> columns[Columns::kTaps][kHeight];
        CONVOLITH_UNROLL(5)
        for (int j = 0; j < Columns::kTaps; ++j) {
          Vec<T> w[Rows::kTaps];
          CONVOLITH_UNROLL(5)
          for (int i = 0; i < Rows::kTaps; ++i) {
            w[i] = load(taps + i * in.row_stride + j * in.column_stride);
          }
          Rows::template weight<T>(w, columns[j]);
        }
        CONVOLITH_UNROLL(8)
        for (int i = 0; i < kHeight; ++i) {
          Vec<T> row[Columns::kTaps], u[kWidth];
          CONVOLITH_UNROLL(5)
          for (int j = 0; j < Columns::kTaps; ++j) row[j] = columns[j][i];
          Columns::template weight<T>(row, u);
          CONVOLITH_UNROLL(8)
          for (int j = 0; j < kWidth; ++j) {
            store<T>(transformed, u[j]);
            transformed += in.frequency_stride;
          }
        }
      }
    }
  }

  /// One vector of channels, `lanes` of which are stored.
  CONVOLITH_INLINE static void output_vector(const WinogradOutput<T>& out, const T* products,
                                             T* output, Vec<T> bias, int lanes) {
    Vec<T> columns[kWidth][Rows::kOutputs];
    CONVOLITH_UNROLL(8)
    for (int j = 0; j < kWidth; ++j) {
      Vec<T> m[kHeight];
      const T* product = products + j * out.frequency_stride;
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kHeight; ++i) {
        m[i] = load(product);
        product += kWidth * out.frequency_stride;
      }
      Rows::template output<T>(m, columns[j]);
    }
    const Vec<T> least = broadcast(out.least), greatest = broadcast(out.greatest);
    CONVOLITH_UNROLL(6)
    for (int i = 0; i < Rows::kOutputs; ++i) {
      if (i >= out.rows) break;
      Vec<T> row[kWidth], y[Columns::kOutputs];
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kWidth; ++j) row[j] = columns[j][i];
      Columns::template output<T>(row, y);
      T* at = output + i * out.row_stride;
      CONVOLITH_UNROLL(6)
      for (int j = 0; j < Columns::kOutputs; ++j) {
        if (j >= out.columns) break;
        const Vec<T> limited =
            min_keeping_nan<T>(max_keeping_nan<T>(y[j] + bias, least), greatest);
        store_upto<T>(at + j * out.column_stride, limited, lanes);
      }
    }
  }

  static void output(const WinogradOutput<T>& out) {
    for (std::int64_t tile = 0; tile < out.tiles; ++tile) {
      const T* products = out.products + tile * out.tile_stride;
      T* output = out.output + tile * out.output_tile_stride;
      for (std::int64_t k = 0; k < out.channels; k += kLanes<T>) {
        const int lanes =
            out.channels - k < kLanes<T> ? static_cast<int>(out.channels - k) : kLanes<T>;
        const Vec<T> bias = out.bias == nullptr ? zero<T>() : load_upto(out.bias + k, lanes);
        output_vector(out, products + k, output + k, bias, lanes);
      }
    }
  }
};

template <class T, int kOutputs, int kTaps>
constexpr WinogradForm<T> winograd_square() {
  using Axis = Transformed<kOutputs, kTaps>;
  using Tile = WinogradTile<T, Axis, Axis>;
  return {.input = Tile::input, .weight = Tile::weight, .output = Tile::output};
}

template <class T, int kOutputs, int kTaps>
constexpr WinogradForm<T> winograd_line() {
  using Tile = WinogradTile<T, Untransformed, Transformed<kOutputs, kTaps>>;
  return {.input = Tile::input, .weight = Tile::weight, .output = Tile::output};
}

template <class T>
void store_strip(const T* strip, int pixels, int channels, T* maps, std::int64_t channel_stride) {
  for (int p = 0; p < pixels; p += kLanes<T>) {
    const int count = pixels - p < kLanes<T> ? pixels - p : kLanes<T>;
    Vec<T> square[kLanes<T>];
    CONVOLITH_UNROLL(16)
    for (int i = 0; i < kLanes<T>; ++i) {
      square[i] = i < count ? load(strip + (p + i) * kLanes<T>) : zero<T>();
    }
    transpose<T>(square);
    CONVOLITH_UNROLL(16)
    for (int i = 0; i < kLanes<T>; ++i) {
      if (i < channels) store_upto<T>(maps + i * channel_stride + p, square[i], count);
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
