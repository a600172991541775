#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/shared_indices.hpp"

namespace convolith {

/// Processors that this process may use.
int hardware_threads() noexcept;

/// Number of threads for calls that do not say: what set_thread_override told the calling thread,
/// else what set_default_threads did, at first OMP_NUM_THREADS or hardware_threads().
int default_threads() noexcept;
void set_default_threads(int threads);

/// For calls from this thread; 0 leaves it to set_default_threads.
int thread_override() noexcept;
void set_thread_override(int threads);

/// The number of threads of a call that asks for `threads`, 0 being default_threads().
/// InvalidArgument outside 0 .. kMostThreads: an OpenMP runtime ends the process when the system
/// refuses it a thread.
int resolve_threads(int threads);

/// Name and version of the OpenMP runtime's interface, or "none".
const char* openmp_runtime() noexcept;

namespace detail {
using ThreadBody = void (*)(const void* closure, int thread, int threads);
void run_parallel(int threads, ThreadBody body, const void* closure) noexcept;
}  // namespace detail

/// Calls body(thread, team) once for each thread of a team of at most `threads`. Runs serially in
/// a forked child, where OpenMP's threads no longer exist, and inside another parallel region.
template <class Body>
void parallel(int threads, const Body& body) noexcept {
  detail::run_parallel(
      threads,
      [](const void* closure, int thread, int team) {
        (*static_cast<const Body*>(closure))(thread, team);
      },
      &body);
}

/// Calls body(range, thread) for ranges that make up [0, count), of about `grain` indices, or all
/// of them where there is one thread. A thread's ranges ascend, but for those that it takes over.
/// With `backwards` the threads' shares are in reverse order.
template <class Body>
void parallel_ranges(int threads, std::int64_t count, std::int64_t grain, const Body& body,
                     bool backwards = false) noexcept {
  if (count <= 0) return;
  const auto team = static_cast<int>(std::min<std::int64_t>(threads, (count - 1) / grain + 1));
  if (team <= 1) {
    body(Range{0, count}, 0);
    return;
  }
  SharedIndices indices(count, grain, team, backwards);
  parallel(team, [&](int thread, int) {
    indices.for_each_taken(thread, [&](const Range& range) { body(range, thread); });
  });
}

/// Calls body(index, thread) for every index in [0, count).
template <class Body>
void parallel_for(int threads, std::int64_t count, const Body& body) noexcept {
  parallel_ranges(threads, count, 1, [&](const Range& range, int thread) {
    for (std::int64_t i = range.begin; i < range.end; ++i) body(i, thread);
  });
}

/// As parallel_for, but each thread begins with its last index: what it has just been over is in
/// its caches.
template <class Body>
void parallel_for_backwards(int threads, std::int64_t count, const Body& body) noexcept {
  const auto mirrored = [&](const Range& range, int thread) {
    for (std::int64_t i = range.begin; i < range.end; ++i) body(count - 1 - i, thread);
  };
  parallel_ranges(threads, count, 1, mirrored, true);
}

}  // namespace convolith
