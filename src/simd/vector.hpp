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
#define CONVOLITH_INLINE_LAMBDA __attribute__((always_inline))

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 14;  // 14 x 2 accumulators, 2 columns, 1 spare of 32 registers
constexpr int kPairedRows = 6;  // 6 x 4 accumulators, 4 columns, 4 spare
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;  // 6 x 2 accumulators, 2 columns, 1 broadcast of 16 registers
constexpr int kPairedRows = 0;
#elif defined(__SSE2__)
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 5;  // 5 x 2 accumulators, 2 columns, broadcast and product of 16
constexpr int kPairedRows = 0;
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 8;
constexpr int kPairedRows = 0;
#endif

template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  typedef std::int32_t Bits __attribute__((vector_size(kVectorBytes)));
  using Integer = std::int32_t;
};
template <>
struct VectorTypes<double> {
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef double Half __attribute__((vector_size(kVectorBytes / 2)));
  typedef std::int64_t Bits __attribute__((vector_size(kVectorBytes)));
  using Integer = std::int64_t;
};

template <class T>
using Vec = typename VectorTypes<T>::Vector;
template <class T>
using HalfVec = typename VectorTypes<T>::Half;
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

/// Whether rows begin on multiples of so many bytes; `strides` is one stride in elements, or
/// several combined by |.
template <class T>
CONVOLITH_INLINE bool rows_aligned(const T* first, std::int64_t strides, int bytes) {
  const auto step = static_cast<std::uintptr_t>(strides) * sizeof(T);
  return (reinterpret_cast<std::uintptr_t>(first) | step) % static_cast<std::uintptr_t>(bytes) == 0;
}

/// Stores past the caches, to memory; p is aligned to the vector. Other threads may read it after
/// `drain_streams` by this one.
template <class T>
CONVOLITH_INLINE void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}

CONVOLITH_INLINE void drain_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
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

/// Keeps a value in a register, where the compiler would rather load it again for every use.
template <class V>
CONVOLITH_INLINE void keep(V& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__SSE2__)
  asm("" : "+x"(v));
#else
  (void)v;
#endif
}

/// Masked loads and stores escape the sanitizers, which are shown their elements instead.
template <class T>
CONVOLITH_INLINE void show_elements([[maybe_unused]] const T* p, [[maybe_unused]] int begin,
                                    [[maybe_unused]] int end) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  for (int i = begin; i < end; ++i) static_cast<void>(static_cast<const volatile T*>(p)[i]);
#endif
}

/// The first `count` lanes from memory, zeros behind; nothing beyond p + count is touched.
template <class T>
CONVOLITH_INLINE Vec<T> load_partial(const T* p, int count) {
  show_elements(p, 0, count);
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
  show_elements(p, 0, count);
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

/// Some lanes, a bit each.
struct LaneSet {
  unsigned bits;
};

/// All bits of those lanes.
template <class T>
CONVOLITH_INLINE Mask<T> mask_of(LaneSet lanes) {
  Mask<T> bit;
  for (int i = 0; i < kLanes<T>; ++i) bit[i] = 1 << i;
  return ((Mask<T>{} + static_cast<typename VectorTypes<T>::Integer>(lanes.bits)) & bit) != 0;
}

CONVOLITH_INLINE LaneSet lanes_between(int begin, int end) {
  return {((1u << end) - 1) & ~((1u << begin) - 1)};
}

/// Those lanes from memory, zeros in the others, which are not touched, so that p itself may lie
/// outside an array. Slow without AVX2.
template <class T>
CONVOLITH_INLINE Vec<T> load_lanes(const T* p, LaneSet lanes) {
  for (int i = 0; i < kLanes<T>; ++i) {
    show_elements(p, i, i + static_cast<int>(lanes.bits >> i & 1));
  }
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes.bits), p);
  } else {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes.bits), p);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return _mm256_maskload_ps(p, (__m256i)mask_of<T>(lanes));
  } else {
    return _mm256_maskload_pd(p, (__m256i)mask_of<T>(lanes));
  }
#else
  Vec<T> v{};
  for (int i = 0; i < kLanes<T>; ++i) {
    if ((lanes.bits >> i & 1) != 0) v[i] = p[i];
  }
  return v;
#endif
}

/// Lanes [begin, end) from memory, `fill` around them; nothing but p[begin] to p[end - 1] is
/// touched, so p itself may lie outside an array.
template <class T>
CONVOLITH_INLINE Vec<T> load_between(const T* p, int begin, int end, Vec<T> fill) {
  show_elements(p, begin, end);
#if defined(__AVX512F__)
  const unsigned lanes = lanes_between(begin, end).bits;
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_loadu_ps(fill, static_cast<__mmask16>(lanes), p);
  } else {
    return _mm512_mask_loadu_pd(fill, static_cast<__mmask8>(lanes), p);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i lanes = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane),
                                              _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, lanes), _mm256_castsi256_ps(lanes));
  } else {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    const __m256i lanes = _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_set1_epi64x(begin), lane),
                                              _mm256_cmpgt_epi64(_mm256_set1_epi64x(end), lane));
    return _mm256_blendv_pd(fill, _mm256_maskload_pd(p, lanes), _mm256_castsi256_pd(lanes));
  }
#else
  for (int i = begin; i < end; ++i) fill[i] = p[i];
  return fill;
#endif
}

/// Whether half a vector takes half the time of a whole one, where units are half as wide.
constexpr bool kHasHalves = kVectorBytes == 64;

/// The first `count` lanes of the lower half, zeros behind.
template <class T>
CONVOLITH_INLINE HalfVec<T> load_partial_half(const T* p, int count) {
  show_elements(p, 0, count);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm256_maskz_loadu_ps(static_cast<__mmask8>((1u << count) - 1), p);
  } else {
    return _mm256_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p);
  }
#else
  HalfVec<T> v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}

template <class T>
CONVOLITH_INLINE HalfVec<T> broadcast_half(T s) {
  if constexpr (kLanes<T> == 16) {
    return HalfVec<T>{s, s, s, s, s, s, s, s};
  } else if constexpr (kLanes<T> == 8) {
    return HalfVec<T>{s, s, s, s};
  } else if constexpr (kLanes<T> == 4) {
    return HalfVec<T>{s, s};
  } else {
    return HalfVec<T>{s};
  }
}

/// Zeros in the upper half.
template <class T>
CONVOLITH_INLINE Vec<T> widen(HalfVec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_insertf32x8(0xFFFF, Vec<T>{}, v, 0);
  } else {
    return _mm512_maskz_insertf64x4(0xFF, Vec<T>{}, v, 0);
  }
#else
  Vec<T> whole{};
  for (int i = 0; i < kLanes<T> / 2; ++i) whole[i] = v[i];
  return whole;
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

/// Lanes [first, first + count) from p[0], p[step], ..., zeros around them.
template <class T>
CONVOLITH_INLINE Vec<T> load_strided(const T* p, std::int64_t step, int count, int first = 0) {
  alignas(kVectorBytes) T lanes[kLanes<T>] = {};
  for (int i = 0; i < count; ++i) lanes[first + i] = p[i * step];
  return load<T>(lanes);
}

template <class T>
CONVOLITH_INLINE void store_strided(T* p, std::int64_t step, Vec<T> v, int count) {
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store<T>(lanes, v);
  for (int i = 0; i < count; ++i) p[i * step] = lanes[i];
}

/// The same address, of which the compiler cannot compute others beforehand.
template <class T>
CONVOLITH_INLINE T* opaque(T* p) {
  asm volatile("" : "+r"(p));
  return p;
}

// ---- shuffles ------------------------------------------------------------------------------

/// Lanes of a, then of b, by number.
template <class T, int... kNumbers>
CONVOLITH_INLINE Vec<T> shuffle(Vec<T> a, Vec<T> b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kNumbers...);
#else
  return __builtin_shuffle(a, b, Mask<T>{kNumbers...});
#endif
}

/// Lane i is lane numbers[i] of v.
template <class T>
CONVOLITH_INLINE Vec<T> permute(Vec<T> v, const std::int32_t* numbers) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_maskz_permutexvar_ps(0xffff, _mm512_loadu_si512(numbers), v);
  } else {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers));
    return _mm512_maskz_permutexvar_pd(0xff, _mm512_maskz_cvtepi32_epi64(0xff, narrow), v);
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    return _mm256_permutevar8x32_ps(
        v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers)));
  } else {
    // Lane n of four is the lanes 2n and 2n + 1 of eight.
    const __m256i wide =
        _mm256_cvtepi32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers)));
    const __m256i first = _mm256_add_epi64(wide, wide);
    const __m256i second = _mm256_slli_epi64(_mm256_add_epi64(first, _mm256_set1_epi64x(1)), 32);
    return _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v),
                                                     _mm256_or_si256(first, second)));
  }
#else
  Vec<T> result{};
  for (int i = 0; i < kLanes<T>; ++i) result[i] = v[numbers[i]];
  return result;
#endif
}

/// result[i] = lane numbers[i] of a, or beyond its last one of b
template <class T>
CONVOLITH_INLINE Vec<T> permute(Vec<T> a, Vec<T> b, const std::int32_t* numbers) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_permutex2var_ps(a, _mm512_loadu_si512(numbers), b);
  } else {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers));
    return _mm512_permutex2var_pd(a, _mm512_maskz_cvtepi32_epi64(0xff, narrow), b);
  }
#else
  Vec<T> result{};
  for (int i = 0; i < kLanes<T>; ++i) {
    result[i] = numbers[i] < kLanes<T> ? a[numbers[i]] : b[numbers[i] - kLanes<T>];
  }
  return result;
#endif
}

/// Every other lane of a, then of b from its second lane on: with b loaded lanes - 1 elements
/// behind a, every other element from a's first on.
template <class T>
CONVOLITH_INLINE Vec<T> every_other(Vec<T> a, Vec<T> b) {
  if constexpr (kLanes<T> == 16) {
    return shuffle<T, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31>(a, b);
  } else if constexpr (kLanes<T> == 8) {
    return shuffle<T, 0, 2, 4, 6, 9, 11, 13, 15>(a, b);
  } else if constexpr (kLanes<T> == 4) {
    return shuffle<T, 0, 2, 5, 7>(a, b);
  } else {
    return shuffle<T, 0, 3>(a, b);
  }
}

/// Every other lane of a and b, from the first lane on or from the second.
template <class T, int kFirst>
CONVOLITH_INLINE Vec<T> every_second(Vec<T> a, Vec<T> b) {
  constexpr int k = kFirst;
  if constexpr (kLanes<T> == 16) {
    return shuffle<T, k, k + 2, k + 4, k + 6, k + 8, k + 10, k + 12, k + 14, k + 16, k + 18, k + 20,
                   k + 22, k + 24, k + 26, k + 28, k + 30>(a, b);
  } else if constexpr (kLanes<T> == 8) {
    return shuffle<T, k, k + 2, k + 4, k + 6, k + 8, k + 10, k + 12, k + 14>(a, b);
  } else if constexpr (kLanes<T> == 4) {
    return shuffle<T, k, k + 2, k + 4, k + 6>(a, b);
  } else {
    return shuffle<T, k, k + 2>(a, b);
  }
}

/// Lanes kFirst and on of a, then of b from its first lane on.
template <class T, int kFirst>
CONVOLITH_INLINE Vec<T> neighbours(Vec<T> a, Vec<T> b) {
  constexpr int k = kFirst;
  if constexpr (kFirst == 0) {
    return a;
  } else if constexpr (kLanes<T> == 16) {
#if defined(__AVX512F__)
    return (Vec<T>)_mm512_maskz_alignr_epi32(0xFFFF, (__m512i)b, (__m512i)a, kFirst);
#endif
  } else if constexpr (kLanes<T> == 8) {
#if defined(__AVX512F__)
    return (Vec<T>)_mm512_maskz_alignr_epi64(0xFF, (__m512i)b, (__m512i)a, kFirst);
#endif
    return shuffle<T, k, k + 1, k + 2, k + 3, k + 4, k + 5, k + 6, k + 7>(a, b);
  } else if constexpr (kLanes<T> == 4) {
    return shuffle<T, k, k + 1, k + 2, k + 3>(a, b);
  } else {
    return shuffle<T, k, k + 1>(a, b);
  }
}

template <int... kNumbers>
struct Numbers {};

/// Numbers<0, 1, ..., kCount - 1>
template <int kCount, int... kBehind>
struct CountTo : CountTo<kCount - 1, kCount - 1, kBehind...> {};
template <int... kNumbers>
struct CountTo<0, kNumbers...> {
  using List = Numbers<kNumbers...>;
};

template <class T>
using LaneNumbers = typename CountTo<kLanes<T>>::List;

/// The elements p[lane * kStep], from kStep vectors, none of which goes beyond the last of them.
template <class T, int kStep>
struct EveryNth {
  static constexpr int begin(int part) {
    constexpr int kLast = (kLanes<T> - 1) * (kStep - 1);
    return part * kLanes<T> < kLast ? part * kLanes<T> : kLast;
  }
  /// With the lanes that vector number kPart has, and those behind it.
  template <int kPart, int... kLane>
  CONVOLITH_INLINE static Vec<T> with(Vec<T> so_far, const T* p, Numbers<kLane...> lanes) {
    if constexpr (kPart < kStep) {
      const Vec<T> merged =
          shuffle<T, (kLane * kStep / kLanes<T> == kPart ? kLanes<T> + kLane * kStep - begin(kPart)
                      : kPart == 1 && kLane * kStep < kLanes<T> ? kLane * kStep
                                                                : kLane)...>(
              so_far, load(p + begin(kPart)));
      return with<kPart + 1>(merged, p, lanes);
    } else {
      return so_far;
    }
  }
};

/// p[0], p[kStep], p[2 * kStep], ...; nothing beyond the last of them is touched.
template <class T, int kStep>
CONVOLITH_INLINE Vec<T> load_every(const T* p) {
  return EveryNth<T, kStep>::template with<1>(load(p), p, LaneNumbers<T>());
}

/// a0 b0 a1 b1 ..., from the lower halves.
template <class T>
CONVOLITH_INLINE Vec<T> interleave_low(Vec<T> a, Vec<T> b) {
  if constexpr (kLanes<T> == 16) {
    return shuffle<T, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
  } else if constexpr (kLanes<T> == 8) {
    return shuffle<T, 0, 8, 1, 9, 2, 10, 3, 11>(a, b);
  } else if constexpr (kLanes<T> == 4) {
    return shuffle<T, 0, 4, 1, 5>(a, b);
  } else {
    return shuffle<T, 0, 2>(a, b);
  }
}

/// The same from the upper halves.
template <class T>
CONVOLITH_INLINE Vec<T> interleave_high(Vec<T> a, Vec<T> b) {
  if constexpr (kLanes<T> == 16) {
    return shuffle<T, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b);
  } else if constexpr (kLanes<T> == 8) {
    return shuffle<T, 4, 12, 5, 13, 6, 14, 7, 15>(a, b);
  } else if constexpr (kLanes<T> == 4) {
    return shuffle<T, 2, 6, 3, 7>(a, b);
  } else {
    return shuffle<T, 1, 3>(a, b);
  }
}

/// A square of kLanes vectors, transposed: log2(kLanes) perfect shuffles of the rows.
template <class T>
CONVOLITH_INLINE void transpose(Vec<T> (&row)[kLanes<T>]) {
  constexpr int kHalf = kLanes<T> / 2;
  CONVOLITH_UNROLL(4)
  for (int round = 1; round < kLanes<T>; round *= 2) {
    Vec<T> shuffled[kLanes<T>];
    CONVOLITH_UNROLL(8)
    for (int i = 0; i < kHalf; ++i) {
      shuffled[2 * i] = interleave_low<T>(row[i], row[i + kHalf]);
      shuffled[2 * i + 1] = interleave_high<T>(row[i], row[i + kHalf]);
    }
    CONVOLITH_UNROLL(16)
    for (int i = 0; i < kLanes<T>; ++i) row[i] = shuffled[i];
  }
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

/// a + b in some lanes, a in the others.
template <class T>
CONVOLITH_INLINE Vec<T> add_lanes(Vec<T> a, Vec<T> b, LaneSet lanes) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_add_ps(a, static_cast<__mmask16>(lanes.bits), a, b);
  } else {
    return _mm512_mask_add_pd(a, static_cast<__mmask8>(lanes.bits), a, b);
  }
#else
  // A mask costs more than a branch, and most sets are whole.
  if (lanes.bits == lanes_between(0, kLanes<T>).bits) return a + b;
  return select<T>(mask_of<T>(lanes), a + b, a);
#endif
}

/// Whether a lane is subnormal; no, where the ISA does not tell in one instruction.
template <class T>
CONVOLITH_INLINE bool any_subnormal([[maybe_unused]] Vec<T> a) {
#if defined(__AVX512DQ__)
  constexpr int kSubnormal = 0x20;
  if constexpr (sizeof(T) == 4) return _mm512_fpclass_ps_mask((__m512)a, kSubnormal) != 0;
  if constexpr (sizeof(T) == 8) return _mm512_fpclass_pd_mask((__m512d)a, kSubnormal) != 0;
#endif
  return false;
}

/// The greater; a NaN in `a` stays, one in `b` is lost. x86 returns its second operand where the
/// first is not greater. (The unmasked forms for 512 bits warn in GCC 12.)
template <class T>
CONVOLITH_INLINE Vec<T> max_keeping_nan(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_maskz_max_ps(0xFFFF, b, a);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_max_pd(0xFF, b, a);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return _mm256_max_ps(b, a);
  if constexpr (sizeof(T) == 8) return _mm256_max_pd(b, a);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return _mm_max_ps(b, a);
  if constexpr (sizeof(T) == 8) return _mm_max_pd(b, a);
#else
  return select<T>((Mask<T>)(a < b), b, a);
#endif
}

/// The lesser; a NaN in `a` stays, one in `b` is lost.
template <class T>
CONVOLITH_INLINE Vec<T> min_keeping_nan(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_maskz_min_ps(0xFFFF, b, a);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_min_pd(0xFF, b, a);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return _mm256_min_ps(b, a);
  if constexpr (sizeof(T) == 8) return _mm256_min_pd(b, a);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return _mm_min_ps(b, a);
  if constexpr (sizeof(T) == 8) return _mm_min_pd(b, a);
#else
  return select<T>((Mask<T>)(a > b), b, a);
#endif
}

template <class T>
CONVOLITH_INLINE Vec<T> absolute(Vec<T> a) {
  return (Vec<T>)((Mask<T>)a & ~(Mask<T>)broadcast<T>(T(-0.0)));
}

/// Halves onto halves, in every ISA: lane i gets lanes i and i + kLanes / 2, and so on.
template <class T>
CONVOLITH_INLINE T sum_of_lanes(Vec<T> v) {
  CONVOLITH_UNROLL(4)
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    v = interleave_low<T>(v, v) + interleave_high<T>(v, v);
  }
  return v[0];
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
