#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/range.hpp"

namespace convolith {

/// Of a team.
inline constexpr int kMostThreads = 256;

/// The indices [0, count) as a team works them off: each thread its own share from the front, and
/// then half of what another has left. Nobody waits for one whom the system holds up.
class SharedIndices {
 public:
  /// A thread takes `grain` indices at once. With `backwards` the shares are in reverse order.
  SharedIndices(std::int64_t count, std::int64_t grain, int team, bool backwards) noexcept
      : count_(count), unit_(1 + (count >> 30)), team_(team) {
    const std::int64_t units = (count + unit_ - 1) / unit_;
    grain_ = static_cast<std::uint32_t>((grain + unit_ - 1) / unit_);
    for (int thread = 0; thread < team; ++thread) {
      const Range share = Range::share(units, backwards ? team - 1 - thread : thread, team);
      ends(thread).store(
          pack(static_cast<std::uint32_t>(share.begin), static_cast<std::uint32_t>(share.end)),
          std::memory_order_relaxed);
    }
  }

  /// The next indices for a thread; an empty range when there are none.
  Range take(int thread) noexcept {
    do {
      std::uint64_t seen = ends(thread).load(std::memory_order_relaxed);
      while (begin_of(seen) < end_of(seen)) {
        const std::uint32_t end = std::min(end_of(seen), begin_of(seen) + grain_);
        if (ends(thread).compare_exchange_weak(seen, pack(end, end_of(seen)),
                                               std::memory_order_relaxed)) {
          return {begin_of(seen) * unit_, std::min(count_, end * unit_)};
        }
      }
    } while (steal(thread));
    return {0, 0};
  }

  /// Calls body(range) for all that a thread takes.
  template <class Body>
  void for_each_taken(int thread, const Body& body) noexcept {
    for (Range range = take(thread); range.begin < range.end; range = take(thread)) body(range);
  }

 private:
  /// Moves the later half of what another thread has left into the empty share of this one.
  bool steal(int thread) noexcept {
    for (int i = 1; i < team_; ++i) {
      const int other = (thread + i) % team_;
      std::uint64_t seen = ends(other).load(std::memory_order_relaxed);
      while (begin_of(seen) < end_of(seen)) {
        const std::uint32_t left = end_of(seen) - begin_of(seen);
        const std::uint32_t grains = ((left + 1) / 2 + grain_ - 1) / grain_;
        const std::uint32_t middle = end_of(seen) - std::min(left, grains * grain_);
        if (ends(other).compare_exchange_weak(seen, pack(begin_of(seen), middle),
                                              std::memory_order_relaxed)) {
          ends(thread).store(pack(middle, end_of(seen)), std::memory_order_relaxed);
          return true;
        }
      }
    }
    return false;
  }

  static std::uint64_t pack(std::uint32_t begin, std::uint32_t end) noexcept {
    return std::uint64_t{end} << 32 | begin;
  }
  static std::uint32_t begin_of(std::uint64_t ends) noexcept {
    return static_cast<std::uint32_t>(ends);
  }
  static std::uint32_t end_of(std::uint64_t ends) noexcept {
    return static_cast<std::uint32_t>(ends >> 32);
  }

  /// Of a thread's share. An empty one is written by its thread alone.
  std::atomic_ref<std::uint64_t> ends(int thread) noexcept {
    return std::atomic_ref(shares_[static_cast<std::size_t>(thread)].ends);
  }

  struct alignas(64) Share {
    std::uint64_t ends;
  };
  std::array<Share, kMostThreads> shares_;
  std::int64_t count_, unit_;
  std::uint32_t grain_;
  int team_;
};

}  // namespace convolith
