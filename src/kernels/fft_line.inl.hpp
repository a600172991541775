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

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
