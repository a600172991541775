#include "runtime/threads.hpp"

#include <atomic>
#include <string>

#include <pthread.h>

#include "convolith/error.hpp"
#include "runtime/floating_point.hpp"

#if defined(__SANITIZE_THREAD__)
#include <thread>
#include <vector>
#endif

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace convolith {
namespace {

std::atomic<int> chosen_threads{0};
thread_local int threads_of_thread = 0;

#if defined(_OPENMP)
std::atomic<bool> forked_child{false};
const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { forked_child.store(true, std::memory_order_relaxed); });
#endif

}  // namespace

int hardware_threads() noexcept {
#if defined(_OPENMP)
  return std::max(1, omp_get_num_procs());
#else
  return 1;
#endif
}

int default_threads() noexcept {
  if (threads_of_thread > 0) return threads_of_thread;
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0) return chosen;
#if defined(_OPENMP)
  // Read once: omp_set_num_threads of another library must not change it.
  static const int at_start =
      std::clamp(std::min(omp_get_max_threads(), omp_get_thread_limit()), 1, kMostThreads);
  return at_start;
#else
  return 1;
#endif
}

int resolve_threads(int threads) {
  if (threads < 0 || threads > kMostThreads) {
    throw InvalidArgument("threads is " + std::to_string(threads) + "; it must be 1 to " +
                          std::to_string(kMostThreads));
  }
  return threads > 0 ? threads : default_threads();
}

void set_default_threads(int threads) {
  chosen_threads.store(resolve_threads(threads), std::memory_order_relaxed);
}

int thread_override() noexcept { return threads_of_thread; }

void set_thread_override(int threads) {
  threads_of_thread = threads == 0 ? 0 : resolve_threads(threads);
}

const char* openmp_runtime() noexcept {
#if !defined(_OPENMP)
  return "none";
#elif defined(__clang__)
  return "LLVM libomp";
#else
  return "GNU libgomp";
#endif
}

namespace detail {

#if defined(__SANITIZE_THREAD__)
/// ThreadSanitizer does not see how threads of an OpenMP runtime wait for one another; plain ones
/// it knows.
void run_parallel(int threads, ThreadBody body, const void* closure) noexcept {
  thread_local bool in_team = false;
  if (threads <= 1 || in_team) {
    body(closure, 0, 1);
    return;
  }
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) {
    others.emplace_back([=] {
      in_team = true;
      body(closure, thread, threads);
    });
  }
  in_team = true;
  body(closure, 0, threads);
  in_team = false;
  for (std::thread& other : others) other.join();
}
#else
void run_parallel(int threads, ThreadBody body, const void* closure) noexcept {
#if defined(_OPENMP)
  if (threads > 1 && !forked_child.load(std::memory_order_relaxed) && !omp_in_parallel()) {
#pragma omp parallel num_threads(threads)
    {
      const DefaultFloatingPoint mode;
      body(closure, omp_get_thread_num(), omp_get_num_threads());
    }
    return;
  }
#else
  (void)threads;
#endif
  body(closure, 0, 1);
}
#endif

}  // namespace detail
}  // namespace convolith
