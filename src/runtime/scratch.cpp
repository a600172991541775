#include "runtime/scratch.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "convolith/algorithm.hpp"
#include "runtime/pages.hpp"

namespace convolith {
namespace {

constexpr std::size_t kKeptBytes = std::size_t{128} << 20;

std::atomic<Poison> poison{Poison::none};

void fill_with_poison(void* data, std::size_t bytes) noexcept {
  const Poison kind = poison.load(std::memory_order_relaxed);
  if (kind == Poison::none) return;
  // As float and as double. All bits set is a NaN.
  constexpr std::uint64_t kSubnormal = 0x0008'0000'0008'0000;
  const std::uint64_t word = kind == Poison::nan ? ~std::uint64_t{0} : kSubnormal;
  auto* to = static_cast<std::byte*>(data);
  for (std::size_t i = 0; i < bytes; i += sizeof word) {
    std::memcpy(to + i, &word, std::min(sizeof word, bytes - i));
  }
}

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
  std::shared_ptr<void> memory(allocate(bytes), std::free);
  fill_with_poison(memory.get(), bytes);
  return memory;
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
  fill_with_poison(data_, bytes);
}

Scratch::~Scratch() {
  if (from_arena_) {
    arena.taken = false;
    if (!kKeepsBlocks || arena.bytes > kKeptBytes) arena.release();
  } else {
    std::free(data_);
  }
}

void set_poison(Poison kind) noexcept { poison.store(kind, std::memory_order_relaxed); }

}  // namespace convolith
