#pragma once

// Elementary functions on vectors, to a few units in the last place. Approximations and
// constants: S. L. Moshier, Cephes Mathematical Library (exp.c, expf.c, tanh.c).

#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
struct ExpLimits;
template <>
struct ExpLimits<float> {
  static constexpr float least = -87.33f, beyond = 89.0f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23
  static constexpr int bias = 127, mantissa_bits = 23;
};
template <>
struct ExpLimits<double> {
  static constexpr double least = -708.39, beyond = 710.0;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
  static constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int bias = 1023, mantissa_bits = 52;
};

/// a b. On AMD's Zen 5 a multiplication that meets a subnormal number takes twice as long as
/// others, a fused multiply-add does not. (Of a b + -0 compilers make a multiplication.)
template <class T>
CONVOLITH_INLINE Vec<T> fused_product(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  const Vec<T> none = broadcast<T>(T(-0.0));
  if constexpr (sizeof(T) == 4) return _mm512_maskz_fmadd_ps(0xFFFF, a, b, none);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_fmadd_pd(0xFF, a, b, none);
#elif defined(__AVX2__)
  const Vec<T> none = broadcast<T>(T(-0.0));
  if constexpr (sizeof(T) == 4) return _mm256_fmadd_ps(a, b, none);
  if constexpr (sizeof(T) == 8) return _mm256_fmadd_pd(a, b, none);
#else
  return a * b;
#endif
}

/// a / b for whole b. On Zen 5 a division of a subnormal number takes 30 cycles longer: it is
/// divided 2^64 (2^128) times as large. The bits stay: it is k < 2^23 (2^52) times the least
/// number, k / b lies 1 / 2b or more beside every tie that it does not meet, and is first rounded
/// by less.
template <class T>
CONVOLITH_INLINE Vec<T> quotient(Vec<T> a, Vec<T> b) {
  if (__builtin_expect(any_subnormal<T>(a), 0) == 0) return a / b;
  constexpr T factor = sizeof(T) == 4 ? T(0x1p64) : T(0x1p128);
  const Vec<T> one = broadcast<T>(T(1));
  const auto small = absolute<T>(a) < broadcast<T>(sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022));
  const Vec<T> large = fused_product<T>(a, small ? broadcast<T>(factor) : one);
  return fused_product<T>(large / b, small ? broadcast<T>(T(1) / factor) : one);
}

/// 2^-60: nothing beside 1, and a number whose square is not subnormal.
template <class T>
constexpr T kNegligible = T(8.673617379884035e-19);

/// e^r for |r| <= ln 2 / 2, to one unit in the last place.
template <class T>
CONVOLITH_INLINE Vec<T> exponential_of_rest(Vec<T> r) {
  const Vec<T> rr = r * r;
  if constexpr (sizeof(T) == 4) {
    // 1 + r + r^2 P(r)
    Vec<T> p = r * broadcast<T>(1.9875691500e-4f) + broadcast<T>(1.3981999507e-3f);
    p = p * r + broadcast<T>(8.3334519073e-3f);
    p = p * r + broadcast<T>(4.1665795894e-2f);
    p = p * r + broadcast<T>(1.6666665459e-1f);
    p = p * r + broadcast<T>(5.0000001201e-1f);
    return (p * rr + r) + broadcast<T>(1.0f);
  } else {
    // 1 + 2 r P(r^2) / (Q(r^2) - r P(r^2))
    Vec<T> p = rr * broadcast<T>(T(1.26177193074810590878e-4)) +
               broadcast<T>(T(3.02994407707441961300e-2));
    p = (p * rr + broadcast<T>(T(9.99999999999999999910e-1))) * r;
    Vec<T> q = rr * broadcast<T>(T(3.00198505138664455042e-6)) +
               broadcast<T>(T(2.52448340349684104192e-3));
    q = q * rr + broadcast<T>(T(2.27265548208155028766e-1));
    q = q * rr + broadcast<T>(T(2.00000000000000000009e0));
    return broadcast<T>(T(1)) + broadcast<T>(T(2)) * p / (q - p);
  }
}

/// e^x to two units in the last place; infinity above the range of normal results, 0 below it,
/// NaN for NaN. An argument whose square is subnormal may take much longer: callers that can meet
/// one add kNegligible to it.
template <class T>
CONVOLITH_INLINE Vec<T> exponential(Vec<T> argument) {
  using L = ExpLimits<T>;
  using V = Vec<T>;
  const V least = broadcast<T>(L::least);
  const V x = min_keeping_nan<T>(max_keeping_nan<T>(argument, least), broadcast<T>(L::beyond));
  // x = n ln 2 + r, |r| <= ln 2 / 2
  const V shifted = x * broadcast<T>(T(1.44269504088896340736)) + broadcast<T>(L::round_magic);
  const V n = shifted - broadcast<T>(L::round_magic);
  V r = x - n * broadcast<T>(L::ln2_high);
  r = r - n * broadcast<T>(L::ln2_low);
  // 2^n in two factors: n may be more than the exponent field holds, and the product overflow.
  Mask<T> power = (Mask<T>)shifted - (Mask<T>)broadcast<T>(L::round_magic);
  const Mask<T> half = power >> 1;
  const auto two_to = [](Mask<T> e) { return (V)((e + L::bias) << L::mantissa_bits); };
  const V result = exponential_of_rest<T>(r) * two_to(half) * two_to(power - half);
  return argument < least ? zero<T>() : result;
}

/// factor x for exponential(): its square is not subnormal.
template <class T>
CONVOLITH_INLINE Vec<T> scaled_exponent(Vec<T> x, T factor) {
  return multiply_add(x, broadcast<T>(factor), broadcast<T>(kNegligible<T>));
}

template <class T>
struct LogLimits;
template <>
struct LogLimits<float> {
  static constexpr std::int32_t root_half = 0x3f3504f3;
};
template <>
struct LogLimits<double> {
  static constexpr std::int64_t root_half = 0x3fe6a09e667f3bcd;
};

/// ln x to one unit in the last place, for x that is positive and normal; infinity and NaN for
/// themselves. After Ng's e_log.c (fdlibm, Sun Microsystems 1993).
template <class T>
CONVOLITH_INLINE Vec<T> logarithm(Vec<T> x) {
  using L = ExpLimits<T>;
  using V = Vec<T>;
  // x = 2^n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
  const Mask<T> bits = (Mask<T>)x;
  const Mask<T> power = (bits - LogLimits<T>::root_half) >> L::mantissa_bits;
  const V f = (V)(bits - (power << L::mantissa_bits)) - broadcast<T>(T(1));
  const V magic = broadcast<T>(L::round_magic);
  const V n = (V)(power + (Mask<T>)magic) - magic;
  // ln(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R(s^2))), s = f / (2 + f)
  const V s = f / (f + broadcast<T>(T(2)));
  const V z = s * s;
  V r = broadcast<T>(T(1.479819860511658591e-01));
  r = r * z + broadcast<T>(T(1.531383769920937332e-01));
  r = r * z + broadcast<T>(T(1.818357216161805012e-01));
  r = r * z + broadcast<T>(T(2.222219843214978396e-01));
  r = r * z + broadcast<T>(T(2.857142874366239149e-01));
  r = r * z + broadcast<T>(T(3.999999999940941908e-01));
  r = r * z + broadcast<T>(T(6.666666666666735130e-01));
  const V half = f * f * broadcast<T>(T(0.5));
  const V low = s * (half + r * z) + n * broadcast<T>(L::ln2_low);
  const V result = n * broadcast<T>(L::ln2_high) - ((half - low) - f);
  const V infinity = broadcast<T>(static_cast<T>(__builtin_inf()));
  return x < infinity ? result : x;
}

template <class T>
CONVOLITH_INLINE Vec<T> square_root(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_maskz_sqrt_ps(0xFFFF, x);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_sqrt_pd(0xFF, x);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return _mm256_sqrt_ps(x);
  if constexpr (sizeof(T) == 8) return _mm256_sqrt_pd(x);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return _mm_sqrt_ps(x);
  if constexpr (sizeof(T) == 8) return _mm_sqrt_pd(x);
#else
  for (int i = 0; i < kLanes<T>; ++i) {
    x[i] = static_cast<T>(sizeof(T) == 4 ? __builtin_sqrtf(static_cast<float>(x[i]))
                                         : __builtin_sqrt(static_cast<double>(x[i])));
  }
  return x;
#endif
}

template <class T>
CONVOLITH_INLINE Vec<T> hyperbolic_tangent(Vec<T> x) {
  using V = Vec<T>;
  const V magnitude = absolute<T>(x);
  // Near zero: x + x z P(z) / Q(z), z = x^2
  const V z = multiply_add(x, x, broadcast<T>(kNegligible<T>));
  V p = z * broadcast<T>(T(-9.64399179425052238628e-1)) +
        broadcast<T>(T(-9.92877231001918586564e1));
  p = p * z + broadcast<T>(T(-1.61468768441708447952e3));
  V q = z + broadcast<T>(T(1.12811678491632931402e2));
  q = q * z + broadcast<T>(T(2.23548839060100448583e3));
  q = q * z + broadcast<T>(T(4.84406305325125486048e3));
  const V near = x + x * (z * (p / q));
  // Elsewhere: 1 - 2 / (e^2|x| + 1), with the sign of x
  const V one = broadcast<T>(T(1));
  const V power = exponential<T>(scaled_exponent<T>(magnitude, T(2)));
  const V far = one - broadcast<T>(T(2)) / (power + one);
  const Mask<T> sign = (Mask<T>)x & (Mask<T>)broadcast<T>(T(-0.0));
  const V signed_far = (V)((Mask<T>)far | sign);
  return magnitude < broadcast<T>(T(0.625)) ? near : signed_far;
}

template <class T>
CONVOLITH_INLINE Vec<T> logistic(Vec<T> x) {
  const Vec<T> one = broadcast<T>(T(1));
  return one / (one + exponential<T>(scaled_exponent<T>(x, T(-1))));
}

/// x / (1 + e^-x). With h = e^(-|x| / 2) that is x h (h / (1 + h h)) for negative x, where h^2
/// alone may underflow, and x (1 / (1 + h h)) for the others.
template <class T>
CONVOLITH_INLINE Vec<T> sigmoid_weighted(Vec<T> x) {
  const Vec<T> one = broadcast<T>(T(1));
  const Vec<T> h = exponential<T>(scaled_exponent<T>(absolute<T>(x), T(-0.5)));
  const Vec<T> root = x < zero<T>() ? h : one;
  return fused_product<T>(fused_product<T>(x, root), root / (one + h * h));
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
