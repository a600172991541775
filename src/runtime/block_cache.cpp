#include "runtime/block_cache.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "convolith/algorithm.hpp"
#include "runtime/pages.hpp"

namespace convolith {
namespace {

/// Blocks shorter than this are malloc's business: it gives them back without a system call.
constexpr std::size_t kShortest = std::size_t{32} << 10;
constexpr std::size_t kPage = 4096;
/// From here on blocks are cut from an arena.
constexpr std::size_t kLarge = std::size_t{1} << 20;
/// A smaller block that is kept serves for one that is shorter by this share at most.
constexpr std::size_t kWaste = 8;
constexpr std::size_t kEpoch = 1024;
/// What may be kept beyond the most that was in use, and this part of it: what is kept lies in
/// pieces that not every array fits, and small arrays of many lengths, in turns, would push out one
/// another.
constexpr std::size_t kSpare = std::size_t{32} << 20;
constexpr std::size_t kSparePart = 8;

/// Lies in front of the data, a cache line long.
struct alignas(kAlignment) Header {
  std::size_t bytes;  ///< of the block, header included
};

Header* header_of(void* data) noexcept { return static_cast<Header*>(data) - 1; }

/// Bytes of the block for an array, or 0 where their number overflows.
std::size_t block_bytes(std::size_t bytes) noexcept {
  if (bytes > SIZE_MAX / 2) return 0;
  bytes += sizeof(Header);
  if (!kKeepsBlocks) return bytes;
  const std::size_t unit = bytes < kShortest ? kAlignment : kPage;
  return (bytes + unit - 1) / unit * unit;
}

void* with_header(void* block, std::size_t bytes) noexcept {
  return block == nullptr ? nullptr : new (block) Header{bytes} + 1;
}

void* allocate(std::size_t bytes) noexcept {
  return with_header(allocate_pages(bytes, 2 * kHugePage), bytes);
}

}  // namespace

void* BlockCache::take(std::size_t bytes) noexcept {
  const std::size_t block = block_bytes(bytes);
  if (block == 0) return nullptr;
  if (!kKeepsBlocks || block < kShortest) return allocate(block);
  const std::lock_guard lock(mutex_);
  void* data = take_block(block);
  if (data == nullptr) {
    most_used_ = most_used_before_ = used_bytes_;
    shrink(0);
    data = take_block(block);
  }
  if (data == nullptr) return nullptr;
  used_bytes_ += header_of(data)->bytes;
  note_use();
  return data;
}

void* BlockCache::take_block(std::size_t bytes) noexcept {
  if (bytes >= kLarge) return with_header(arena_.take(bytes), bytes);
  void* const data = take_kept(bytes);
  return data == nullptr ? allocate(bytes) : data;
}

void* BlockCache::take_kept(std::size_t bytes) noexcept {
  const auto found = kept_.lower_bound(bytes);
  if (found == kept_.end() || found->first - bytes > bytes / kWaste) return nullptr;
  void* data = found->second;
  kept_small_ -= found->first;
  kept_.erase(found);
  return data;
}

void BlockCache::note_use() noexcept {
  if (++taken_in_epoch_ == kEpoch) {
    taken_in_epoch_ = 0;
    most_used_before_ = most_used_;
    most_used_ = 0;
  }
  most_used_ = std::max(most_used_, used_bytes_);
  shrink(most_to_hold());
}

std::size_t BlockCache::most_to_hold() const noexcept {
  const std::size_t most = std::max(most_used_, most_used_before_);
  return most + most / kSparePart + kSpare;
}

/// Until no more than `most` bytes are in use or kept. The largest blocks go first: the fewest
/// system calls.
void BlockCache::shrink(std::size_t most) noexcept {
  const auto excess = [&] {
    const std::size_t bytes = used_bytes_ + kept();
    return bytes > most ? bytes - most : 0;
  };
  arena_.release(excess());
  while (!kept_.empty() && excess() > 0) {
    const auto last = std::prev(kept_.end());
    kept_small_ -= last->first;
    std::free(header_of(last->second));
    kept_.erase(last);
  }
}

void BlockCache::give(void* data) noexcept {
  if (data == nullptr) return;
  const std::size_t bytes = header_of(data)->bytes;
  if (!kKeepsBlocks || bytes < kShortest) {
    std::free(header_of(data));
    return;
  }
  const std::lock_guard lock(mutex_);
  used_bytes_ -= bytes;
  if (bytes >= kLarge) {
    arena_.give(header_of(data));
  } else {
    try {
      kept_.emplace(bytes, data);
      kept_small_ += bytes;
    } catch (const std::bad_alloc&) {
      std::free(header_of(data));
    }
  }
  shrink(most_to_hold());
}

void* BlockCache::resize(void* data, std::size_t bytes) noexcept {
  void* const moved = take(bytes);
  if (moved == nullptr || data == nullptr) return moved;
  std::memcpy(moved, data, std::min(bytes, header_of(data)->bytes - sizeof(Header)));
  give(data);
  return moved;
}

void BlockCache::clear() noexcept {
  const std::lock_guard lock(mutex_);
  shrink(0);
  most_used_ = used_bytes_;
  most_used_before_ = 0;
}

std::size_t BlockCache::kept_bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return kept();
}

void BlockCache::lock() noexcept { mutex_.lock(); }
void BlockCache::unlock() noexcept { mutex_.unlock(); }

BlockCache& array_blocks() noexcept {
  static auto* const blocks = [] {
    // A child that is forked while another thread holds the lock would wait for ever.
    pthread_atfork([] { array_blocks().lock(); }, [] { array_blocks().unlock(); },
                   [] { array_blocks().unlock(); });
    return new BlockCache;
  }();
  return *blocks;
}

}  // namespace convolith
