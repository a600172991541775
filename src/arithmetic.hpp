#pragma once

#include <cstddef>
#include <cstdint>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Rounded towards plus infinity, without overflow; b > 0.
constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) noexcept {
  return a > 0 ? (a - 1) / b + 1 : -(-a / b);
}

constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) noexcept {
  return divide_up(a, b) * b;
}

/// Bytes of `count` elements of T, rounded up so that what follows is aligned too.
template <class T>
constexpr std::size_t aligned_bytes(std::int64_t count) noexcept {
  return (static_cast<std::size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
}

/// `count` elements of T, rounded up to an odd number of cache lines: what lies so far apart falls
/// into different sets of the cache.
template <class T>
constexpr std::int64_t odd_lines(std::int64_t count) noexcept {
  constexpr std::int64_t kLine = kAlignment / sizeof(T);
  return (divide_up(count, kLine) | 1) * kLine;
}

/// A way of L1: it has a line in every set.
constexpr std::int64_t kWayBytes = 4096;

/// Whether what lies so many bytes apart shares a set of L1.
constexpr bool share_a_set(std::int64_t bytes) noexcept { return bytes % kWayBytes == 0; }

}  // namespace convolith
