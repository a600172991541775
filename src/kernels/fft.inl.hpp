#pragma once

// Mixed-radix transforms, decimated in frequency, each lane one of its own. An inverse is the
// forward transform with real and imaginary parts exchanged before and after.

#include "kernels/fft_table.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
struct Complex {
  Vec<T> re, im;
};

template <class T>
CONVOLITH_INLINE Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class T>
CONVOLITH_INLINE Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
/// -i a
template <class T>
CONVOLITH_INLINE Complex<T> turned(Complex<T> a) {
  return {a.im, -a.re};
}
template <class T>
CONVOLITH_INLINE Complex<T> exchanged(Complex<T> a) {
  return {a.im, a.re};
}
template <class T>
CONVOLITH_INLINE Complex<T> times(Complex<T> a, Vec<T> re, Vec<T> im) {
  return {a.re * re - a.im * im, a.re * im + a.im * re};
}
/// a times the number at p
template <class T>
CONVOLITH_INLINE Complex<T> times_scalar(Complex<T> a, const T* p) {
  return times<T>(a, broadcast(p[0]), broadcast(p[1]));
}
template <class T>
CONVOLITH_INLINE Complex<T> load_complex(const T* p) {
  return {load(p), load(p + kLanes<T>)};
}
template <class T>
CONVOLITH_INLINE void store_complex(T* p, Complex<T> a) {
  store<T>(p, a.re);
  store<T>(p + kLanes<T>, a.im);
}

template <class T>
constexpr int kComplex = 2 * kLanes<T>;

// ---- butterflies ---------------------------------------------------------------------------

/// cos and sin of 2 pi j / kRadix
template <int kRadix>
struct Roots;
template <>
struct Roots<3> {
  static constexpr double cos[] = {1, -0.5, -0.5};
  static constexpr double sin[] = {0, 0.86602540378443864676, -0.86602540378443864676};
};
template <>
struct Roots<5> {
  static constexpr double cos[] = {1, 0.30901699437494742410, -0.80901699437494742410,
                                   -0.80901699437494742410, 0.30901699437494742410};
  static constexpr double sin[] = {0, 0.95105651629515357212, 0.58778525229247312917,
                                   -0.58778525229247312917, -0.95105651629515357212};
};
template <>
struct Roots<7> {
  static constexpr double cos[] = {1,
                                   0.62348980185873353053,
                                   -0.22252093395631440429,
                                   -0.90096886790241912624,
                                   -0.90096886790241912624,
                                   -0.22252093395631440429,
                                   0.62348980185873353053};
  static constexpr double sin[] = {0,
                                   0.78183148246802980871,
                                   0.97492791218182360702,
                                   0.43388373911755812048,
                                   -0.43388373911755812048,
                                   -0.97492791218182360702,
                                   -0.78183148246802980871};
};

/// Primes: x[j] and x[kRadix - j] enter by their sum and their difference.
template <class T, int kRadix>
CONVOLITH_INLINE void butterfly_odd(Complex<T> (&x)[kRadix]) {
  constexpr int kHalf = (kRadix - 1) / 2;
  using R = Roots<kRadix>;
  Complex<T> sum[kHalf], difference[kHalf];
  Complex<T> total = x[0];
  CONVOLITH_UNROLL(3)
  for (int j = 0; j < kHalf; ++j) {
    sum[j] = x[1 + j] + x[kRadix - 1 - j];
    difference[j] = x[1 + j] - x[kRadix - 1 - j];
    total = total + sum[j];
  }
  CONVOLITH_UNROLL(3)
  for (int k = 1; k <= kHalf; ++k) {
    Complex<T> even = x[0];
    Complex<T> odd{};
    CONVOLITH_UNROLL(3)
    for (int j = 0; j < kHalf; ++j) {
      const Vec<T> c = broadcast(static_cast<T>(R::cos[(j + 1) * k % kRadix]));
      const Vec<T> s = broadcast(static_cast<T>(R::sin[(j + 1) * k % kRadix]));
      even = {sum[j].re * c + even.re, sum[j].im * c + even.im};
      odd = j == 0 ? Complex<T>{difference[j].re * s, difference[j].im * s}
                   : Complex<T>{difference[j].re * s + odd.re, difference[j].im * s + odd.im};
    }
    x[k] = even + turned(odd);
    x[kRadix - k] = even - turned(odd);
  }
  x[0] = total;
}

template <class T>
CONVOLITH_INLINE void butterfly_4(Complex<T>& a, Complex<T>& b, Complex<T>& c, Complex<T>& d) {
  const Complex<T> even = a + c, odd = a - c;
  const Complex<T> sum = b + d, difference = turned(b - d);
  a = even + sum;
  b = odd + difference;
  c = even - sum;
  d = odd - difference;
}

/// x[k] = sum over j of x[j] exp(-2 pi i j k / kRadix)
template <class T, int kRadix>
CONVOLITH_INLINE void butterfly(Complex<T> (&x)[kRadix]) {
  if constexpr (kRadix == 4) {
    butterfly_4(x[0], x[1], x[2], x[3]);
  } else if constexpr (kRadix == 6) {
    // Good-Thomas: residues modulo 2 and 3, without twiddles.
    Complex<T> a[3] = {x[0], x[2], x[4]};
    Complex<T> b[3] = {x[3], x[5], x[1]};
    butterfly_odd<T, 3>(a);
    butterfly_odd<T, 3>(b);
    x[0] = a[0] + b[0];
    x[4] = a[1] + b[1];
    x[2] = a[2] + b[2];
    x[3] = a[0] - b[0];
    x[1] = a[1] - b[1];
    x[5] = a[2] - b[2];
  } else if constexpr (kRadix == 8) {
    const Vec<T> root_half = broadcast(static_cast<T>(0.70710678118654752440));
    butterfly_4(x[0], x[2], x[4], x[6]);
    butterfly_4(x[1], x[3], x[5], x[7]);
    const Complex<T> w1{(x[3].re + x[3].im) * root_half, (x[3].im - x[3].re) * root_half};
    const Complex<T> w2 = turned(x[5]);
    const Complex<T> w3{(x[7].im - x[7].re) * root_half, (x[7].re + x[7].im) * -root_half};
    const Complex<T> even[4] = {x[0], x[2], x[4], x[6]};
    const Complex<T> odd[4] = {x[1], w1, w2, w3};
    CONVOLITH_UNROLL(4)
    for (int k = 0; k < 4; ++k) {
      x[k] = even[k] + odd[k];
      x[k + 4] = even[k] - odd[k];
    }
  } else {
    butterfly_odd<T, kRadix>(x);
  }
}

// ---- lines ---------------------------------------------------------------------------------

/// x[j + m i] over i, twiddled, to work[k m + j].
template <class T, int kRadix, class Load>
void first_pass(int n, const T* twiddle, const Load& point, T* work) {
  const int m = n / kRadix;
  for (int j = 0; j < m; ++j, twiddle += 2 * kRadix) {
    Complex<T> x[kRadix];
    CONVOLITH_UNROLL(8)
    for (int i = 0; i < kRadix; ++i) x[i] = point(j + m * i);
    butterfly<T, kRadix>(x);
    store_complex<T>(work + j * kComplex<T>, x[0]);
    CONVOLITH_UNROLL(8)
    for (int k = 1; k < kRadix; ++k) {
      store_complex<T>(work + (k * m + j) * kComplex<T>, times_scalar<T>(x[k], twiddle + 2 * k));
    }
  }
}

/// Blocks of n points, each onto itself as the first pass would.
template <class T, int kRadix>
void middle_pass(int blocks, int n, const T* twiddle, T* work) {
  const int m = n / kRadix;
  for (int b = 0; b < blocks; ++b, work += n * kComplex<T>) {
    const T* factors = twiddle;
    for (int j = 0; j < m; ++j, factors += 2 * kRadix) {
      Complex<T> x[kRadix];
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kRadix; ++i) x[i] = load_complex(work + (j + m * i) * kComplex<T>);
      butterfly<T, kRadix>(x);
      store_complex<T>(work + j * kComplex<T>, x[0]);
      CONVOLITH_UNROLL(8)
      for (int k = 1; k < kRadix; ++k) {
        store_complex<T>(work + (k * m + j) * kComplex<T>, times_scalar<T>(x[k], factors + 2 * k));
      }
    }
  }
}

/// Blocks of kRadix points: block k1 * inner + k2 holds the frequencies k1 + outer (k2 + inner k).
template <class T, int kRadix, class Store>
void last_pass(int outer, int inner, const T* work, const Store& put) {
  for (int k1 = 0; k1 < outer; ++k1) {
    for (int k2 = 0; k2 < inner; ++k2, work += kRadix * kComplex<T>) {
      Complex<T> x[kRadix];
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kRadix; ++i) x[i] = load_complex(work + i * kComplex<T>);
      butterfly<T, kRadix>(x);
      const int step = outer * inner;
      const int first = k1 + outer * k2;
      CONVOLITH_UNROLL(8)
      for (int k = 0; k < kRadix; ++k) put(first + step * k, x[k]);
    }
  }
}

/// put(k, sum over j of point(j) exp(-2 pi i j k / n)) for every k. Points may be overwritten by
/// put: the work lies between.
template <class T, class Load, class Store>
void transform(const FftLine<T>& line, T* work, const Load& point, const Store& put) {
  const int n = line.n;
  if (n == 1) {
    put(0, point(0));
    return;
  }
  const T* twiddle = line.twiddle[0];
  switch (line.radix[0]) {
    case 3: first_pass<T, 3>(n, twiddle, point, work); break;
    case 4: first_pass<T, 4>(n, twiddle, point, work); break;
    case 5: first_pass<T, 5>(n, twiddle, point, work); break;
    case 6: first_pass<T, 6>(n, twiddle, point, work); break;
    case 7: first_pass<T, 7>(n, twiddle, point, work); break;
    case 8: first_pass<T, 8>(n, twiddle, point, work); break;
  }
  int inner = 1;
  if (line.factors == 3) {
    const int blocks = line.radix[0];
    const int left = n / blocks;
    inner = line.radix[1];
    switch (inner) {
      case 3: middle_pass<T, 3>(blocks, left, line.twiddle[1], work); break;
      case 4: middle_pass<T, 4>(blocks, left, line.twiddle[1], work); break;
      case 5: middle_pass<T, 5>(blocks, left, line.twiddle[1], work); break;
      case 6: middle_pass<T, 6>(blocks, left, line.twiddle[1], work); break;
    }
  }
  const int outer = line.radix[0];
  switch (line.radix[line.factors - 1]) {
    case 3: last_pass<T, 3>(outer, inner, work, put); break;
    case 4: last_pass<T, 4>(outer, inner, work, put); break;
    case 5: last_pass<T, 5>(outer, inner, work, put); break;
    case 6: last_pass<T, 6>(outer, inner, work, put); break;
    case 7: last_pass<T, 7>(outer, inner, work, put); break;
    case 8: last_pass<T, 8>(outer, inner, work, put); break;
  }
}

// ---- scratch -------------------------------------------------------------------------------

constexpr int kChunk = kFftLongestLine;  // columns that are read or written at a time

/// The kernels' memory, cut up: the window between its lines along x and y, and single lines.
template <class T>
struct FftScratch {
  T* window;   ///< [y][pitch], complex vectors
  T* work;     ///< of transform
  T* line;     ///< complex
  T* part[2];  ///< [kChunk] vectors: real and imaginary parts that come and go
  T* rows;     ///< [lanes][kChunk]

  FftScratch(const FftShape<T>& shape, T* memory) {
    window = memory;
    work = window + shape.y.n * shape.pitch * kComplex<T>;
    line = work + kFftLongestLine * kComplex<T>;
    part[0] = line + kFftLongestLine * kComplex<T>;
    part[1] = part[0] + kChunk * kLanes<T>;
    rows = part[1] + kChunk * kLanes<T>;
  }
};

template <class T>
std::int64_t fft_scratch_size(const FftShape<T>& shape) {
  return (shape.y.n * shape.pitch + 2 * kFftLongestLine) * kComplex<T> + 3 * kChunk * kLanes<T>;
}

// ---- input ---------------------------------------------------------------------------------

/// Vectors `step` elements apart; null: zeros.
template <class T>
struct Vectors {
  const T* data;
  std::int64_t step;

  CONVOLITH_INLINE Vec<T> at(std::int64_t i) const { return load(data + i * step); }
};

/// Whether the coordinates under [0, count) are neighbours.
CONVOLITH_INLINE bool contiguous(const std::int64_t* columns, int count) {
  return columns[0] >= 0 && columns[count - 1] - columns[0] == count - 1;
}

/// One part of `count` columns of a row of the tiles, from `column` on.
template <class T>
Vectors<T> read_columns(const FftTiles<const T>& input, int part, std::int64_t row,
                        std::int64_t column, int count, const FftScratch<T>& scratch) {
  T* buffer = scratch.part[part];
  if (input.slots == 1 && input.channel_stride == 1) {
    const FftTile<const T>& tile = input.tiles[0][part];
    if (tile.data == nullptr) return {nullptr, 0};
    const std::int64_t y = input.rows[tile.row + row];
    if (y < 0) return {nullptr, 0};
    const T* source = tile.data + y * input.row_stride;
    const std::int64_t* columns = input.columns + tile.column + column;
    if (input.channels == kLanes<T> && contiguous(columns, count)) {
      return {source + columns[0] * input.pixel_stride, input.pixel_stride};
    }
    for (int i = 0; i < count; ++i) {
      const T* from = source + columns[i] * input.pixel_stride;
      store<T>(buffer + i * kLanes<T>,
               columns[i] < 0 ? zero<T>() : load_upto(from, input.channels));
    }
    return {buffer, kLanes<T>};
  }

  const T* lanes[kFftMostLanes] = {};
  bool any = false;
  for (int slot = 0; slot < input.slots; ++slot) {
    const FftTile<const T>& tile = input.tiles[slot][part];
    const std::int64_t y = tile.data == nullptr ? -1 : input.rows[tile.row + row];
    if (y < 0) continue;
    any = true;
    const std::int64_t* columns = input.columns + tile.column + column;
    const bool direct = input.pixel_stride == 1 && contiguous(columns, count);
    for (int c = 0; c < input.channels; ++c) {
      const int lane = slot * input.channels + c;
      const T* source = tile.data + c * input.channel_stride + y * input.row_stride;
      if (direct) {
        lanes[lane] = source + columns[0];
        continue;
      }
      T* composed = scratch.rows + lane * kChunk;
      for (int i = 0; i < count; ++i) {
        composed[i] = columns[i] < 0 ? T(0) : source[columns[i] * input.pixel_stride];
      }
      lanes[lane] = composed;
    }
  }
  if (!any) return {nullptr, 0};
  for (int first = 0; first < count; first += kLanes<T>) {
    const int some = count - first < kLanes<T> ? count - first : kLanes<T>;
    Vec<T> square[kLanes<T>];
    CONVOLITH_UNROLL(16)
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      square[lane] = lanes[lane] == nullptr ? zero<T>() : load_upto(lanes[lane] + first, some);
    }
    transpose<T>(square);
    CONVOLITH_UNROLL(16)
    for (int i = 0; i < kLanes<T>; ++i) store<T>(buffer + (first + i) * kLanes<T>, square[i]);
  }
  return {buffer, kLanes<T>};
}

/// Reads the window and transforms its lines along x: to scratch.window.
template <class T>
void forward_along_x(const FftShape<T>& shape, const FftTiles<const T>& input,
                     const FftScratch<T>& scratch) {
  static constexpr T kNone[kLanes<T>] = {};
  const auto or_zeros = [](Vectors<T> v) { return v.data == nullptr ? Vectors<T>{kNone, 0} : v; };
  if (shape.twist == nullptr) {
    for (int y = 0; y < shape.y.n; ++y) {
      T* to = scratch.window + y * shape.pitch * kComplex<T>;
      Vectors<T> re = read_columns(input, 0, y, 0, shape.x.n, scratch);
      Vectors<T> im = read_columns(input, 1, y, 0, shape.x.n, scratch);
      if (re.data == nullptr && im.data == nullptr) {
        for (int x = 0; x < shape.x.n; ++x) store_complex<T>(to + x * kComplex<T>, Complex<T>{zero<T>(), zero<T>()});
        continue;
      }
      re = or_zeros(re);
      im = or_zeros(im);
      transform<T>(
          shape.x, scratch.work, [&](int x) { return Complex<T>{re.at(x), im.at(x)}; },
          [&](int x, Complex<T> v) { store_complex<T>(to + x * kComplex<T>, v); });
    }
    return;
  }
  const int count = shape.x.n * shape.y.n;
  int x = 0, y = 0;
  for (int column = 0; column < count; column += kChunk) {
    const int some = count - column < kChunk ? count - column : kChunk;
    const Vectors<T> re = or_zeros(read_columns(input, 0, 0, column, some, scratch));
    const Vectors<T> im = or_zeros(read_columns(input, 1, 0, column, some, scratch));
    for (int i = 0; i < some; ++i) {
      store_complex<T>(scratch.window + (y * shape.pitch + x) * kComplex<T>, Complex<T>{re.at(i), im.at(i)});
      if (++y == shape.y.n) {
        y = 0;
        ++x;
      }
    }
  }
  for (y = 0; y < shape.y.n; ++y) {
    T* row = scratch.window + y * shape.pitch * kComplex<T>;
    const T* twist = shape.twist + 2 * y * shape.x.n;
    transform<T>(
        shape.x, scratch.work, [&](int i) { return load_complex(row + i * kComplex<T>); },
        [&](int k, Complex<T> v) {
          store_complex<T>(row + k * kComplex<T>, times_scalar<T>(v, twist + 2 * k));
        });
  }
}

/// The y of the frequency that is minus (x, y), whose x is minus x.
template <class T>
CONVOLITH_INLINE int mirrored(const FftShape<T>& shape, int x, int y) {
  if (shape.twist != nullptr && x > 0) return shape.y.n - 1 - y;
  return y == 0 ? 0 : shape.y.n - y;
}

template <class T>
void fft_forward(const FftShape<T>& shape, const FftTiles<const T>& input,
                 const FftSpectra<T>& spectra, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  forward_along_x(shape, input, scratch);
  for (int x = 0; x < shape.x.n; ++x) {
    const T* column = scratch.window + x * kComplex<T>;
    const std::int64_t step = shape.pitch * kComplex<T>;
    const auto point = [&](int y) { return load_complex(column + y * step); };
    if (2 * x <= shape.x.n) {
      T* to = spectra.data + x * shape.y.n * spectra.frequency_stride;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        T* at = to + y * spectra.frequency_stride;
        store_upto<T>(at, v.re, spectra.count);
        store_upto<T>(at + spectra.imaginary, v.im, spectra.count);
      });
    } else {
      T* to = spectra.data + (shape.x.n - x) * shape.y.n * spectra.frequency_stride +
              spectra.conjugate;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        T* at = to + mirrored(shape, x, y) * spectra.frequency_stride;
        store_upto<T>(at, v.re, spectra.count);
        store_upto<T>(at + spectra.imaginary, -v.im, spectra.count);
      });
    }
  }
}

// ---- output --------------------------------------------------------------------------------

/// Writes one part of `count` columns of a row of the tiles, from `column` on, from
/// scratch.part[part].
template <class T>
void write_columns(const FftTiles<T>& output, int part, std::int64_t row, std::int64_t column,
                   int count, const FftScratch<T>& scratch) {
  const T* buffer = scratch.part[part];
  const auto columns_of = [&](const FftTile<T>& tile) {
    if (tile.data == nullptr || row >= tile.row) return 0;
    const std::int64_t left = tile.column - column;
    return left < 0 ? 0 : left < count ? static_cast<int>(left) : count;
  };
  if (output.slots == 1 && output.channel_stride == 1) {
    const FftTile<T>& tile = output.tiles[0][part];
    const int columns = columns_of(tile);
    T* to = tile.data + row * output.row_stride + column * output.pixel_stride;
    for (int i = 0; i < columns; ++i) {
      store_upto<T>(to + i * output.pixel_stride, load(buffer + i * kLanes<T>), output.channels);
    }
    return;
  }
  T* lanes[kFftMostLanes] = {};
  int columns[kFftMostLanes] = {};
  for (int slot = 0; slot < output.slots; ++slot) {
    const FftTile<T>& tile = output.tiles[slot][part];
    for (int c = 0; c < output.channels; ++c) {
      const int lane = slot * output.channels + c;
      columns[lane] = columns_of(tile);
      if (columns[lane] == 0) continue;
      lanes[lane] = tile.data + c * output.channel_stride + row * output.row_stride +
                    column * output.pixel_stride;
    }
  }
  if (output.pixel_stride != 1) {
    for (int lane = 0; lane < output.slots * output.channels; ++lane) {
      for (int i = 0; i < columns[lane]; ++i) {
        lanes[lane][i * output.pixel_stride] = buffer[i * kLanes<T> + lane];
      }
    }
    return;
  }
  for (int first = 0; first < count; first += kLanes<T>) {
    Vec<T> square[kLanes<T>];
    CONVOLITH_UNROLL(16)
    for (int i = 0; i < kLanes<T>; ++i) square[i] = load(buffer + (first + i) * kLanes<T>);
    transpose<T>(square);
    CONVOLITH_UNROLL(16)
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const int some = columns[lane] - first;
      if (some > 0) store_upto<T>(lanes[lane] + first, square[lane], some);
    }
  }
}

/// Transforms the exchanged lines along x of scratch.window and writes what the tiles cover.
template <class T>
void inverse_along_x(const FftShape<T>& shape, const FftTiles<T>& output,
                     const FftScratch<T>& scratch) {
  std::int64_t rows = 0, columns = 0;
  for (int slot = 0; slot < output.slots; ++slot) {
    for (const FftTile<T>& tile : output.tiles[slot]) {
      if (tile.data == nullptr) continue;
      rows = rows < tile.row ? tile.row : rows;
      columns = columns < tile.column ? tile.column : columns;
    }
  }
  T* re = scratch.part[0];
  T* im = scratch.part[1];
  if (shape.twist == nullptr) {
    for (int y = 0; y < rows; ++y) {
      const T* row = scratch.window + y * shape.pitch * kComplex<T>;
      transform<T>(
          shape.x, scratch.work, [&](int x) { return load_complex(row + x * kComplex<T>); },
          [&](int x, Complex<T> v) {
            store<T>(re + x * kLanes<T>, v.im);
            store<T>(im + x * kLanes<T>, v.re);
          });
      write_columns(output, 0, y, 0, shape.x.n, scratch);
      write_columns(output, 1, y, 0, shape.x.n, scratch);
    }
    return;
  }
  for (int y = 0; y < shape.y.n; ++y) {
    T* row = scratch.window + y * shape.pitch * kComplex<T>;
    transform<T>(
        shape.x, scratch.work, [&](int x) { return load_complex(row + x * kComplex<T>); },
        [&](int x, Complex<T> v) { store_complex<T>(row + x * kComplex<T>, v); });
  }
  int x = 0, y = 0;
  for (std::int64_t column = 0; column < columns; column += kChunk) {
    const int some = columns - column < kChunk ? static_cast<int>(columns - column) : kChunk;
    for (int i = 0; i < some; ++i) {
      const Complex<T> v = load_complex(scratch.window + (y * shape.pitch + x) * kComplex<T>);
      store<T>(re + i * kLanes<T>, v.im);
      store<T>(im + i * kLanes<T>, v.re);
      if (++y == shape.y.n) {
        y = 0;
        ++x;
      }
    }
    write_columns(output, 0, 0, column, some, scratch);
    write_columns(output, 1, 0, column, some, scratch);
  }
}

/// A line of exchanged spectra along y, to column x of scratch.window, twisted back.
template <class T, class Load>
CONVOLITH_INLINE void inverse_along_y(const FftShape<T>& shape, int x, const Load& point,
                                      const FftScratch<T>& scratch) {
  T* column = scratch.window + x * kComplex<T>;
  const std::int64_t step = shape.pitch * kComplex<T>;
  if (shape.twist == nullptr) {
    transform<T>(shape.y, scratch.work, point,
                 [&](int y, Complex<T> v) { store_complex<T>(column + y * step, v); });
    return;
  }
  // Exchanged, the product with the conjugate is one with the number itself.
  const T* twist = shape.twist + 2 * x;
  transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
    store_complex<T>(column + y * step, times_scalar<T>(v, twist + 2 * y * shape.x.n));
  });
}

template <class T>
void fft_inverse(const FftShape<T>& shape, const FftSpectra<const T>& spectra,
                 const FftTiles<T>& output, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  for (int x = 0; x < shape.x.n; ++x) {
    if (2 * x <= shape.x.n) {
      const T* from = spectra.data + x * shape.y.n * spectra.frequency_stride;
      inverse_along_y(
          shape, x,
          [&](int y) {
            const T* at = from + y * spectra.frequency_stride;
            return Complex<T>{load_upto(at + spectra.imaginary, spectra.count),
                              load_upto(at, spectra.count)};
          },
          scratch);
    } else {
      const T* from = spectra.data + (shape.x.n - x) * shape.y.n * spectra.frequency_stride +
                      spectra.conjugate;
      inverse_along_y(
          shape, x,
          [&](int y) {
            const T* at = from + mirrored(shape, x, y) * spectra.frequency_stride;
            return Complex<T>{-load_upto(at + spectra.imaginary, spectra.count),
                              load_upto(at, spectra.count)};
          },
          scratch);
    }
  }
  inverse_along_x(shape, output, scratch);
}

// ---- products ------------------------------------------------------------------------------

template <class T>
void fft_depthwise(const FftShape<T>& shape, const FftTiles<const T>& input, const T* weights,
                   const FftTiles<T>& output, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  forward_along_x(shape, input, scratch);
  for (int x = 0; x < shape.x.n; ++x) {
    const T* column = scratch.window + x * kComplex<T>;
    const std::int64_t step = shape.pitch * kComplex<T>;
    const auto point = [&](int y) { return load_complex(column + y * step); };
    const auto exchanged_point = [&](int y) { return load_complex(scratch.line + y * kComplex<T>); };
    if (2 * x <= shape.x.n) {
      const T* of_column = weights + x * shape.y.n * kComplex<T>;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        const Complex<T> w = load_complex(of_column + y * kComplex<T>);
        store_complex<T>(scratch.line + y * kComplex<T>, exchanged(times<T>(v, w.re, w.im)));
      });
    } else {
      const T* of_column = weights + (shape.x.n - x) * shape.y.n * kComplex<T>;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        const Complex<T> w = load_complex(of_column + mirrored(shape, x, y) * kComplex<T>);
        store_complex<T>(scratch.line + y * kComplex<T>, exchanged(times<T>(v, w.re, -w.im)));
      });
    }
    inverse_along_y(shape, x, exchanged_point, scratch);
  }
  inverse_along_x(shape, output, scratch);
}

template <class T, int kRows>
void fft_product_of(const FftProduct<T>& p) {
  Vec<T> re[kRows] = {}, im[kRows] = {};
  RowPointers<T, kRows> real(p.a, p.a_row_stride);
  RowPointers<T, kRows> imaginary(p.a + p.a_imaginary, p.a_row_stride);
  const T* b = p.b;
  for (std::int64_t k = 0; k < p.k; ++k) {
    const Complex<T> column = load_complex(b);
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> a_re = broadcast(real.at(r));
      re[r] = multiply_add(a_re, column.re, re[r]);
      im[r] = multiply_add(a_re, column.im, im[r]);
      const Vec<T> a_im = broadcast(imaginary.at(r));
      re[r] = multiply_add(-a_im, column.im, re[r]);
      im[r] = multiply_add(a_im, column.re, im[r]);
    }
    real.advance();
    imaginary.advance();
    b += kComplex<T>;
  }
  CONVOLITH_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    T* c = p.c + r * p.c_row_stride;
    if (p.accumulate) {
      re[r] = load_upto(c, p.columns) + re[r];
      im[r] = load_upto(c + p.c_imaginary, p.columns) + im[r];
    }
    store_upto<T>(c, re[r], p.columns);
    store_upto<T>(c + p.c_imaginary, im[r], p.columns);
  }
}

template <class T>
struct FftProductRows {
  template <int kRows>
  struct Rows {
    static void run(const FftProduct<T>& product) { fft_product_of<T, kRows>(product); }
  };
};

template <class T>
void fft_product(const FftProduct<T>& product) {
  ForRows<FftProductRows<T>::template Rows, kTileRows>::run(product.rows, product);
}

// ---- weights -------------------------------------------------------------------------------

template <class T>
void fft_weights(const FftShape<T>& shape, const FftWeights<T>& weights, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  const bool twisted = shape.twist != nullptr;
  const Vec<T> scale = broadcast(weights.scale);
  const auto read = [&](int y, int x) {
    if (y >= weights.rows || x >= weights.columns) return Complex<T>{};
    const std::int64_t at = (static_cast<std::int64_t>(y) * weights.columns + x) * kLanes<T>;
    return Complex<T>{load(weights.real + at) * scale,
                      weights.imaginary == nullptr ? zero<T>()
                                                   : load(weights.imaginary + at) * scale};
  };
  for (int y = 0; y < shape.y.n; ++y) {
    T* row = scratch.window + y * shape.pitch * kComplex<T>;
    if (!twisted && y >= weights.rows) {
      for (int x = 0; x < shape.x.n; ++x) store_complex<T>(row + x * kComplex<T>, Complex<T>{zero<T>(), zero<T>()});
      continue;
    }
    const T* twist = shape.twist + 2 * y * shape.x.n;
    transform<T>(
        shape.x, scratch.work,
        [&](int x) { return twisted ? read(0, x * shape.y.n + y) : read(y, x); },
        [&](int x, Complex<T> v) {
          store_complex<T>(row + x * kComplex<T>,
                           twisted ? times_scalar<T>(v, twist + 2 * x) : v);
        });
  }
  const std::int64_t step = shape.pitch * kComplex<T>;
  for (int x = 0; x < shape.x.n; ++x) {
    T* column = scratch.window + x * kComplex<T>;
    transform<T>(
        shape.y, scratch.work, [&](int y) { return load_complex(column + y * step); },
        [&](int y, Complex<T> v) { store_complex<T>(column + y * step, v); });
  }
  // Z = A + iB with A and B those of real windows: A(f) = (Z(f) + conj Z(-f)) / 2 and
  // B(f) = (Z(f) - conj Z(-f)) / 2i. A correlation multiplies by the conjugates.
  const Vec<T> half = broadcast(T(0.5));
  for (int x = 0; 2 * x <= shape.x.n; ++x) {
    const int minus_x = x == 0 ? 0 : shape.x.n - x;
    for (int y = 0; y < shape.y.n; ++y) {
      const Complex<T> z = load_complex(scratch.window + y * step + x * kComplex<T>);
      const Complex<T> m = load_complex(scratch.window + mirrored(shape, x, y) * step +
                                        minus_x * kComplex<T>);
      const std::int64_t at = (x * shape.y.n + y) * weights.frequency_stride;
      store_complex<T>(weights.spectrum[0] + at,
                       {(z.re + m.re) * half, (m.im - z.im) * half});
      if (weights.spectrum[1] != nullptr) {
        store_complex<T>(weights.spectrum[1] + at,
                         {(z.im + m.im) * half, (z.re - m.re) * half});
      }
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
