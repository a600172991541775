#pragma once

// The vector wrapper: the same few dozen operations for each ISA, over the compiler's vector
// extensions. Included by ISA units alone; everything has internal linkage, so that the linker
// can never give code of one ISA to another.

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define CONVOLITH_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define CONVOLITH_UNROLL(count) CONVOLITH_PRAGMA(unroll count)
#else
#define CONVOLITH_UNROLL(count) CONVOLITH_PRAGMA(GCC unroll count)
#endif
#define CONVOLITH_INLINE inline __attribute__((always_inline))

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 14;  // 14 x 2 accumulators, 2 columns, 1 spare of 32 registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;  // 6 x 2 accumulators, 2 columns, 1 broadcast of 16 registers
#elif defined(__SSE2__)
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 5;  // 5 x 2 accumulators, 2 columns, broadcast and product of 16
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 8;
#endif

template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(kVectorBytes)));
  using Integer = std::int32_t;
};
template <>
struct VectorTypes<double> {
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(kVectorBytes)));
  using Integer = std::int64_t;
};

template <class T>
using Vec = typename VectorTypes<T>::Vector;
template <class T>
using Mask = typename VectorTypes<T>::Bits;  // all bits of a lane set, or none

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// ---- memory --------------------------------------------------------------------------------

template <class T>
CONVOLITH_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorTypes<T>::Unaligned*>(p);
}

template <class T>
CONVOLITH_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VectorTypes<T>::Unaligned*>(p) = v;
}

template <class T>
CONVOLITH_INLINE Vec<T> zero() {
  return Vec<T>{};
}

template <class T>
CONVOLITH_INLINE Vec<T> broadcast(T s) {
  // One broadcasting load; `Vec<T>{} + s` would cost an addition. -0.0 survives.
  if constexpr (kLanes<T> == 16) {
    return Vec<T>{s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s};
  } else if constexpr (kLanes<T> == 8) {
    return Vec<T>{s, s, s, s, s, s, s, s};
  } else if constexpr (kLanes<T> == 4) {
    return Vec<T>{s, s, s, s};
  } else {
    return Vec<T>{s, s};
  }
}

/// The first `count` lanes from memory, zeros behind; nothing beyond p + count is touched.
template <class T>
CONVOLITH_INLINE Vec<T> load_partial(const T* p, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
  } else {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
  } else {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane));
  }
#else
  Vec<T> v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}

template <class T>
CONVOLITH_INLINE void store_partial(T* p, Vec<T> v, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), v);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane), v);
  } else {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    _mm256_maskstore_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane), v);
  }
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
}

/// load or load_partial, whichever count asks for.
template <class T>
CONVOLITH_INLINE Vec<T> load_upto(const T* p, int count) {
  return count >= kLanes<T> ? load(p) : load_partial(p, count);
}

template <class T>
CONVOLITH_INLINE void store_upto(T* p, Vec<T> v, int count) {
  if (count >= kLanes<T>) {
    store(p, v);
  } else {
    store_partial(p, v, count);
  }
}

template <class T>
CONVOLITH_INLINE Vec<T> load_strided(const T* p, std::int64_t step, int count) {
  alignas(kVectorBytes) T lanes[kLanes<T>] = {};
  for (int i = 0; i < count; ++i) lanes[i] = p[i * step];
  return load<T>(lanes);
}

template <class T>
CONVOLITH_INLINE void store_strided(T* p, std::int64_t step, Vec<T> v, int count) {
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store<T>(lanes, v);
  for (int i = 0; i < count; ++i) p[i * step] = lanes[i];
}

// ---- arithmetic ----------------------------------------------------------------------------

/// a * b + c, rounded once where the ISA has FMA (-ffp-contract=fast fuses it).
template <class V>
CONVOLITH_INLINE V multiply_add(V a, V b, V c) {
  return a * b + c;
}

/// Lane by lane: mask ? a : b.
template <class T>
CONVOLITH_INLINE Vec<T> select(Mask<T> mask, Vec<T> a, Vec<T> b) {
  return (Vec<T>)((mask & (Mask<T>)a) | (~mask & (Mask<T>)b));
}

/// The greater; a NaN in `a` stays, one in `b` is lost.
template <class T>
CONVOLITH_INLINE Vec<T> max_keeping_nan(Vec<T> a, Vec<T> b) {
  return select<T>((Mask<T>)(a < b), b, a);
}

/// The lesser; a NaN in `a` stays, one in `b` is lost.
template <class T>
CONVOLITH_INLINE Vec<T> min_keeping_nan(Vec<T> a, Vec<T> b) {
  return select<T>((Mask<T>)(a > b), b, a);
}

template <class T>
CONVOLITH_INLINE Vec<T> absolute(Vec<T> a) {
  return (Vec<T>)((Mask<T>)a & ~(Mask<T>)broadcast<T>(T(-0.0)));
}

template <class T>
CONVOLITH_INLINE T sum_of_lanes(Vec<T> v) {
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store<T>(lanes, v);
  CONVOLITH_UNROLL(4)
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
