#pragma once

// Elements of a row that lie some step apart, brought together.

#include <cstdint>

#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// Lanes [begin, end) of p[0], p[step], p[2 * step], ..., zeros around them.
template <class T>
CONVOLITH_INLINE Vec<T> load_lanes(const T* p, std::int64_t step, int begin, int end) {
  if (step == 1) return load_between(p, begin, end, zero<T>());
  if (step == 2) {
    const auto clamp = [](int lane) { return lane < 0 ? 0 : lane > kLanes<T> ? kLanes<T> : lane; };
    constexpr int kBehind = kLanes<T> - 1;
    const Vec<T> low = load_between(p, clamp(2 * begin), clamp(2 * end - 1), zero<T>());
    const Vec<T> high = load_between(p + kBehind, clamp(2 * begin - kBehind),
                                     clamp(2 * end - 1 - kBehind), zero<T>());
    return every_other<T>(low, high);
  }
  return load_strided(p + begin * step, step, end - begin, begin);
}

/// to[i] = from[i * step]. With kBeyond, up to lanes - 1 elements behind the last may be written.
template <class T, bool kBeyond>
CONVOLITH_INLINE void copy_steps(std::int64_t count, const T* from, std::int64_t step, T* to) {
  std::int64_t i = 0;
  const auto copy = [&](const auto& load_from) {
    for (; i + kLanes<T> <= count; i += kLanes<T>) store<T>(to + i, load_from(from + i * step));
  };
  switch (step) {
    case 1: copy([](const T* p) { return load(p); }); break;
    case 2: copy([](const T* p) { return load_every<T, 2>(p); }); break;
    case 3: copy([](const T* p) { return load_every<T, 3>(p); }); break;
    case 4: copy([](const T* p) { return load_every<T, 4>(p); }); break;
    default:  // among them 0 and negative ones
      for (; i < count; ++i) to[i] = from[i * step];
  }
  if (i == count) return;
  const auto rest = static_cast<int>(count - i);
  const Vec<T> last = load_lanes<T>(from + i * step, step, 0, rest);
  kBeyond ? store<T>(to + i, last) : store_partial<T>(to + i, last, rest);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
