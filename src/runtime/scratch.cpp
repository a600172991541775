#include "runtime/scratch.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "convolith/algorithm.hpp"
#include "runtime/pages.hpp"

namespace convolith {
namespace {

constexpr std::size_t kKeptBytes = std::size_t{128} << 20;

std::atomic<bool> poison{false};

/// Whole huge pages, from half of one on.
void* allocate(std::size_t bytes) {
  const std::size_t unit = !kKeepsBlocks ? 1 : bytes >= kHugePage / 2 ? kHugePage : kAlignment;
  const std::size_t rounded = (bytes + unit - 1) / unit * unit;
  if (rounded < bytes) throw std::bad_alloc();
  void* data = allocate_pages(rounded, kHugePage);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

struct Arena {
  void* data = nullptr;
  std::size_t bytes = 0;
  bool taken = false;

  void release() noexcept {
    std::free(data);
    data = nullptr;
    bytes = 0;
  }
  ~Arena() { release(); }
};

thread_local Arena arena;

}  // namespace

std::shared_ptr<void> allocate_aligned(std::size_t bytes) {
  return std::shared_ptr<void>(allocate(bytes), std::free);
}

Scratch::Scratch(std::size_t bytes) {
  if (bytes == 0) return;
  if (arena.taken) {
    data_ = allocate(bytes);
  } else {
    if (arena.bytes < bytes) {
      arena.release();
      arena.data = allocate(bytes);
      arena.bytes = bytes;
    }
    arena.taken = true;
    from_arena_ = true;
    data_ = arena.data;
  }
  // All bits set is a NaN in every floating type.
  if (poison.load(std::memory_order_relaxed)) std::memset(data_, 0xFF, bytes);
}

Scratch::~Scratch() {
  if (from_arena_) {
    arena.taken = false;
    if (!kKeepsBlocks || arena.bytes > kKeptBytes) arena.release();
  } else {
    std::free(data_);
  }
}

void set_poison(bool on) noexcept { poison.store(on, std::memory_order_relaxed); }

}  // namespace convolith
