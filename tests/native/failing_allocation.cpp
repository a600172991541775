// Preloaded into Python by test_out_of_memory.py: makes chosen allocations of the calling thread
// fail, and counts the blocks that the library took meanwhile and has not freed.

#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

namespace {

enum class Owner { library, numpy, other };

/// Who calls, by the file that the return address lies in. The C library, the loader and OpenMP's
/// runtime count as nobody: they end the process where they cannot have memory for a thread.
Owner owner_of(void* address) {
  Dl_info info;
  if (dladdr(address, &info) == 0 || info.dli_fname == nullptr) return Owner::other;
  const char* file = info.dli_fname;
  if (std::strstr(file, "convolith/_core") || std::strstr(file, "libstdc++")) return Owner::library;
  return std::strstr(file, "numpy") ? Owner::numpy : Owner::other;
}

thread_local long until_failure = -1;  ///< allocations that still succeed; -1: all do
thread_local long failures_left = 0;
thread_local long failed = 0;

/// Blocks that the library took while failures were due.
constexpr std::size_t kSlots = 1 << 14;
std::atomic<void*> taken[kSlots];
std::atomic<long> live{0};

std::size_t slot_of(const void* block) {
  return (reinterpret_cast<std::uintptr_t>(block) >> 4) * 0x9E3779B97F4A7C15u % kSlots;
}

void note(void* block) {
  if (block == nullptr) return;
  for (std::size_t slot = slot_of(block), tried = 0; tried < 64; ++tried, ++slot) {
    void* empty = nullptr;
    if (taken[slot % kSlots].compare_exchange_strong(empty, block)) {
      ++live;
      return;
    }
  }
}

void forget(void* block) {
  if (block == nullptr || live.load(std::memory_order_relaxed) == 0) return;
  for (std::size_t slot = slot_of(block), tried = 0; tried < 64; ++tried, ++slot) {
    void* expected = block;
    if (taken[slot % kSlots].compare_exchange_strong(expected, nullptr)) {
      --live;
      return;
    }
  }
}

/// `allocate` unless it is time to fail.
template <class Allocate>
void* attempt(void* caller, const Allocate& allocate) {
  if (until_failure < 0) return allocate();
  const Owner owner = owner_of(caller);
  if (owner != Owner::other) {
    if (until_failure > 0) {
      --until_failure;
    } else if (failures_left > 0) {
      --failures_left;
      ++failed;
      errno = ENOMEM;
      return nullptr;
    }
  }
  void* block = allocate();
  if (owner == Owner::library) note(block);
  return block;
}

#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

}  // namespace

extern "C" {

/// The next `first` allocations of the library and of NumPy succeed, the `count` after fail.
void fail_allocations(long first, long count) {
  failed = 0;
  failures_left = count;
  until_failure = first;
}

/// Ends it; returns how many failed.
long stop_failing() {
  until_failure = -1;
  return failed;
}

long live_blocks() { return live.load(); }

void* malloc(std::size_t bytes) {
  return attempt(CALLER, [&] { return __libc_malloc(bytes); });
}

void* calloc(std::size_t count, std::size_t size) {
  return attempt(CALLER, [&] { return __libc_calloc(count, size); });
}

void* realloc(void* block, std::size_t bytes) {
  return attempt(CALLER, [&] {
    void* moved = __libc_realloc(block, bytes);
    if (moved != nullptr || bytes == 0) forget(block);
    return moved;
  });
}

void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return attempt(CALLER, [&] { return __libc_memalign(alignment, bytes); });
}

int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) {
  *block = attempt(CALLER, [&] { return __libc_memalign(alignment, bytes); });
  return *block == nullptr ? ENOMEM : 0;
}

void free(void* block) {
  forget(block);
  __libc_free(block);
}
}
