#pragma once

#include <algorithm>
#include <cstdint>

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
inline constexpr int kMostThreads = 256;
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

/// The part of [0, count) that belongs to `thread` of a team, cut as evenly as can be.
struct Range {
  std::int64_t begin, end;

  static Range share(std::int64_t count, int thread, int team) noexcept {
    const std::int64_t each = count / team;
    const std::int64_t extra = count % team;
    const std::int64_t begin = thread * each + std::min<std::int64_t>(thread, extra);
    return {begin, begin + each + (thread < extra ? 1 : 0)};
  }
};

/// Calls body(index, thread) for every index in [0, count), statically cut.
template <class Body>
void parallel_for(int threads, std::int64_t count, const Body& body) noexcept {
  const int team = static_cast<int>(std::min<std::int64_t>(threads, count));
  parallel(team, [&](int thread, int actual_team) {
    const Range range = Range::share(count, thread, actual_team);
    for (std::int64_t i = range.begin; i < range.end; ++i) body(i, thread);
  });
}

}  // namespace convolith
