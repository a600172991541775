#pragma once

// Winograd transforms. Lanes are channels. A two-dimensional transform applies the one-dimensional
// one to the columns of a tile and then to the rows of what that gives; a pair of points +-p shares
// its even and odd parts.

#include "kernels/cook_toom_table.hpp"
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

  // Frequencies come in passes of two, 0 and infinity first, then pairs of points.
  static constexpr int kPasses = kInputs / 2;
  static constexpr int kPassFrequencies = 2;
  static constexpr int frequency(int pass, int i) {
    return pass > 0 ? 2 * pass - 1 + i : i * (kInputs - 1);
  }

  /// The polynomials of 0 and infinity are even and odd; that of a pair is e +- p o. x(i) loads.
  template <class T, class Source>
  CONVOLITH_INLINE static void input(int pass, const Source& x, Vec<T> (&v)[2]) {
    const auto factor = [](int row, int k) {
      return broadcast<T>(static_cast<T>(kMatrices.input[row][k]));
    };
    if (pass == 0) {
      v[0] = x(kInputs - 2);
      v[1] = x(kInputs - 1);
      CONVOLITH_UNROLL(3)
      for (int k = kInputs - 4; k >= 0; k -= 2) {
        v[0] = multiply_add(factor(0, k), x(k), v[0]);
        v[1] = multiply_add(factor(0, k), x(k + 1), v[1]);
      }
      return;
    }
    Vec<T> even = x(kInputs - 2);
    Vec<T> odd = x(kInputs - 3);
    CONVOLITH_UNROLL(3)
    for (int k = kInputs - 4; k > 0; k -= 2) {
      even = multiply_add(factor(2 * pass - 1, k), x(k), even);
      odd = multiply_add(factor(2 * pass - 1, k), x(k - 1), odd);
    }
    const Vec<T> point = broadcast<T>(static_cast<T>(kMatrices.pair[pass - 1]));
    v[0] = multiply_add(point, odd, even);
    v[1] = multiply_add(-point, odd, even);
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

  // Outputs come in passes of one parity.
  static constexpr int kParities = 2;
  static constexpr int kParityOutputs = kOutputs / 2;

  /// Outputs parity, parity + 2, ...; m(i) loads.
  template <class T, class Source>
  CONVOLITH_INLINE static void output(int parity, const Source& m, Vec<T> (&y)[kParityOutputs]) {
    Vec<T> part[kPairs];
    CONVOLITH_UNROLL(3)
    for (int pair = 0; pair < kPairs; ++pair) {
      const Vec<T> plus = m(1 + 2 * pair), minus = m(2 + 2 * pair);
      part[pair] = parity == 0 ? plus + minus : plus - minus;
    }
    CONVOLITH_UNROLL(3)
    for (int i = 0; i < kParityOutputs; ++i) {
      const auto power = [&](int pair) {
        return broadcast<T>(static_cast<T>(kMatrices.output[parity + 2 * i][1 + 2 * pair]));
      };
      const bool first = parity + 2 * i == 0, last = parity + 2 * i == kOutputs - 1;
      if (first) {
        y[i] = m(0) + part[0];
      } else if (last) {
        y[i] = multiply_add(power(0), part[0], m(kInputs - 1));
      } else {
        y[i] = power(0) * part[0];
      }
      CONVOLITH_UNROLL(3)
      for (int pair = 1; pair < kPairs; ++pair) {
        y[i] = multiply_add(power(pair), part[pair], y[i]);
      }
    }
  }
};

struct Untransformed {
  static constexpr int kInputs = 1, kOutputs = 1, kTaps = 1;
  static constexpr int kPasses = 1, kPassFrequencies = 1;
  static constexpr int kParities = 1, kParityOutputs = 1;
  static constexpr int frequency(int, int) { return 0; }

  template <class T, class Source>
  CONVOLITH_INLINE static void input(int, const Source& x, Vec<T> (&v)[1]) {
    v[0] = x(0);
  }
  template <class T>
  CONVOLITH_INLINE static void weight(const Vec<T> (&w)[1], Vec<T> (&u)[1]) {
    u[0] = w[0];
  }
  template <class T, class Source>
  CONVOLITH_INLINE static void output(int, const Source& m, Vec<T> (&y)[1]) {
    y[0] = m(0);
  }
};

/// Addresses that lie evenly apart. x86 reaches p, p + stride and p + 2 stride from one register;
/// made opaque, or the compiler would compute all of a tile's at once and spill them.
template <class T, int kCount>
struct Strided {
  static constexpr int kThirds = (kCount + 2) / 3;
  T* third[kThirds];
  std::int64_t stride;

  CONVOLITH_INLINE Strided(T* first, std::int64_t step) : stride(step) {
    CONVOLITH_UNROLL(3)
    for (int i = 0; i < kThirds; ++i) third[i] = opaque(i == 0 ? first : third[i - 1] + 3 * step);
  }
  CONVOLITH_INLINE T* at(int i) const { return third[i / 3] + i % 3 * stride; }
};

/// The transforms of a tile whose axes are Rows and Columns.
template <class T, class Rows, class Columns>
struct WinogradTile {
  static constexpr int kHeight = Rows::kInputs, kWidth = Columns::kInputs;

  /// One vector of channels; column(j)(i) loads pixel (i, j). Two rows of frequencies at a time,
  /// which need no more registers than there are; `next` is where the next vector will be stored.
  template <class Column>
  CONVOLITH_INLINE static void input_vector(const Column& column, T* transformed,
                                            std::int64_t frequency_stride, std::int64_t next) {
    CONVOLITH_UNROLL(4)
    for (int pass = 0; pass < Rows::kPasses; ++pass) {
      Vec<T> columns[kWidth][Rows::kPassFrequencies];
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kWidth; ++j) Rows::template input<T>(pass, column(pass, j), columns[j]);
      CONVOLITH_UNROLL(2)
      for (int i = 0; i < Rows::kPassFrequencies; ++i) {
        T* first = transformed + Rows::frequency(pass, i) * kWidth * frequency_stride;
        const Strided<T, kWidth> row(first, frequency_stride), next_row(first + next, frequency_stride);
        CONVOLITH_UNROLL(4)
        for (int column_pass = 0; column_pass < Columns::kPasses; ++column_pass) {
          Vec<T> v[2];
          Columns::template input<T>(
              column_pass, [&](int j) { return columns[j][i]; }, v);
          CONVOLITH_UNROLL(2)
          for (int j = 0; j < 2; ++j) {
            const int frequency = Columns::frequency(column_pass, j);
            store<T>(row.at(frequency), v[j]);
            __builtin_prefetch(next_row.at(frequency), 1);
          }
        }
      }
    }
  }

  static void input(const WinogradInput<T>& in) {
    const std::int64_t whole = in.channels / kLanes<T> * kLanes<T>;
    const auto rest = static_cast<int>(in.channels - whole);
    for (std::int64_t tile = 0; tile < in.tiles; ++tile) {
      T* transformed = in.transformed + tile * in.tile_stride;
      const auto next = [&](std::int64_t c) {
        return c + kLanes<T> < in.channels ? kLanes<T> : in.tile_stride - c;
      };
      const auto vector = [&](const auto& column, std::int64_t c) {
        input_vector(column, transformed + c, in.frequency_stride, next(c));
      };
      std::int64_t c = 0;
      if (in.pixels != nullptr) {
        const T* const* pixels = in.pixels;
        for (; c < whole; c += kLanes<T>) {
          vector(
              [&](int, int j) {
                return [&, j](int i) { return load(pixels[i * kWidth + j] + c); };
              },
              c);
        }
        if (rest > 0) {
          vector(
              [&](int, int j) {
                return [&, j](int i) { return load_partial(pixels[i * kWidth + j] + c, rest); };
              },
              c);
        }
        continue;
      }
      const T* source = in.source + tile * in.source_tile_stride;
      for (; c < whole; c += kLanes<T>) {
        vector(
            [&](int pass, int j) {
              const Strided<const T, kHeight> rows(source + c + j * in.column_stride, in.row_stride);
              // The next tile of the run has this one's last columns.
              const bool fresh = pass == 0 && j >= Columns::kTaps - 1;
              return [&, rows, fresh](int i) {
                if (fresh) __builtin_prefetch(rows.at(i) + in.source_tile_stride);
                return load(rows.at(i));
              };
            },
            c);
      }
      if (rest > 0) {
        vector(
            [&](int, int j) {
              const Strided<const T, kHeight> rows(source + c + j * in.column_stride, in.row_stride);
              return [=](int i) { return load_partial(rows.at(i), rest); };
            },
            c);
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

  /// One vector of channels. Unless kWhole, `lanes` of them are stored for the wanted outputs.
  template <bool kWhole, bool kPastCaches>
  CONVOLITH_INLINE static void output_vector(const WinogradOutput<T>& out, const T* products,
                                             const T* residual, T* output, Vec<T> bias, int lanes) {
    const Vec<T> least = broadcast(out.least), greatest = broadcast(out.greatest);
    CONVOLITH_UNROLL(2)
    for (int parity = 0; parity < Rows::kParities; ++parity) {
      Vec<T> columns[kWidth][Rows::kParityOutputs];
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kWidth; ++j) {
        const Strided<const T, kHeight> product(products + j * out.frequency_stride,
                                                kWidth * out.frequency_stride);
        Rows::template output<T>(
            parity, [&](int i) { return load(product.at(i)); }, columns[j]);
      }
      CONVOLITH_UNROLL(3)
      for (int i = 0; i < Rows::kParityOutputs; ++i) {
        const int row = parity + i * Rows::kParities;
        if (!kWhole && row >= out.rows) break;
        const Strided<T, Columns::kOutputs> pixels(output + row * out.row_stride,
                                                   out.column_stride);
        CONVOLITH_UNROLL(2)
        for (int column_parity = 0; column_parity < 2; ++column_parity) {
          Vec<T> y[Columns::kParityOutputs];
          Columns::template output<T>(
              column_parity, [&](int j) { return columns[j][i]; }, y);
          CONVOLITH_UNROLL(3)
          for (int j = 0; j < Columns::kParityOutputs; ++j) {
            const int column = column_parity + 2 * j;
            Vec<T> sum = y[j] + bias;
            if (residual != nullptr && (kWhole || column < out.columns)) {
              const T* at = residual + row * out.residual_row_stride +
                            column * out.residual_column_stride;
              sum = sum + (kWhole ? load(at) : load_upto(at, lanes));
            }
            const Vec<T> limited = min_keeping_nan<T>(max_keeping_nan<T>(sum, least), greatest);
            if (kWhole && kPastCaches) {
              stream<T>(pixels.at(column), limited);
            } else if (kWhole) {
              store<T>(pixels.at(column), limited);
            } else if (column < out.columns) {
              store_upto<T>(pixels.at(column), limited, lanes);
            }
          }
        }
      }
    }
  }

  static void output(const WinogradOutput<T>& out) {
    const bool whole = out.rows == Rows::kOutputs && out.columns == Columns::kOutputs;
    const std::int64_t strides = out.row_stride | out.column_stride | out.output_tile_stride;
    const bool past_caches = out.past_caches && rows_aligned(out.output, strides, kVectorBytes);
    for (std::int64_t tile = 0; tile < out.tiles; ++tile) {
      const T* products = out.products + tile * out.tile_stride;
      const T* residual = out.residual == nullptr ? nullptr
                                                  : out.residual + tile * out.residual_tile_stride;
      T* output = out.output + tile * out.output_tile_stride;
      for (std::int64_t k = 0; k < out.channels; k += kLanes<T>) {
        const int lanes =
            out.channels - k < kLanes<T> ? static_cast<int>(out.channels - k) : kLanes<T>;
        const Vec<T> bias = out.bias == nullptr ? zero<T>() : load_upto(out.bias + k, lanes);
        const T* added = residual == nullptr ? nullptr : residual + k;
        if (!whole || lanes < kLanes<T>) {
          output_vector<false, false>(out, products + k, added, output + k, bias, lanes);
        } else if (past_caches) {
          output_vector<true, true>(out, products + k, added, output + k, bias, lanes);
        } else {
          output_vector<true, false>(out, products + k, added, output + k, bias, lanes);
        }
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
