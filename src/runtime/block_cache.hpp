#pragma once

#include <cstddef>
#include <map>
#include <mutex>

#include "runtime/arena.hpp"

namespace convolith {

/// Memory for arrays, aligned to kAlignment. Blocks that are given back are kept for the next that
/// fit them: the system would have to clear their pages anew, which takes longer than most
/// kernels. What is kept and what is in use are together no more than what was in use at most of
/// late, an eighth of it, and a little.
class BlockCache {
 public:
  /// Null where the memory cannot be had.
  void* take(std::size_t bytes) noexcept;
  void give(void* data) noexcept;

  /// As realloc.
  void* resize(void* data, std::size_t bytes) noexcept;

  /// Returns what is kept to the system.
  void clear() noexcept;

  std::size_t kept_bytes() const noexcept;

  /// Around a fork: the child finds the cache whole.
  void lock() noexcept;
  void unlock() noexcept;

 private:
  void* take_block(std::size_t bytes) noexcept;
  void* take_kept(std::size_t bytes) noexcept;
  std::size_t kept() const noexcept { return kept_small_ + arena_.kept_bytes(); }
  void note_use() noexcept;
  std::size_t most_to_hold() const noexcept;
  void shrink(std::size_t most) noexcept;

  mutable std::mutex mutex_;
  Arena arena_;                             ///< of large blocks
  std::multimap<std::size_t, void*> kept_;  ///< of the others, by size
  std::size_t kept_small_ = 0, used_bytes_ = 0;
  std::size_t most_used_ = 0, most_used_before_ = 0;  ///< in this and in the last epoch
  std::size_t taken_in_epoch_ = 0;
};

/// The one of all arrays. It outlives them.
BlockCache& array_blocks() noexcept;

}  // namespace convolith
