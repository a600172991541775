#pragma once

#include <cstddef>
#include <map>

namespace convolith {

/// Memory for large blocks, cut from regions of the address space. Free neighbours merge, so that
/// what was many blocks serves one of another length: the system would have to clear fresh pages.
/// Not for several threads at once.
class Arena {
 public:
  /// Whole pages; null where they cannot be had.
  void* take(std::size_t bytes) noexcept;

  /// A block, as it was taken; its pages are kept.
  void give(void* data) noexcept;

  /// Returns so many bytes of kept pages to the system, or a little more, or all.
  void release(std::size_t bytes) noexcept;

  std::size_t kept_bytes() const noexcept { return kept_bytes_; }

 private:
  using FreeList = std::multimap<std::size_t, char*>;  ///< by length

  enum class State { used, kept, fresh };  ///< fresh: without pages

  struct Segment {
    char* region;
    std::size_t bytes;
    State state;
    FreeList::iterator place{};  ///< if free
    FreeList::node_type node{};  ///< if used: for its place, so that to free takes no memory
  };
  using Segments = std::map<char*, Segment>;

  FreeList& list(State state) noexcept { return state == State::kept ? kept_ : fresh_; }
  bool reserve(std::size_t bytes);
  Segments::iterator find(std::size_t bytes) noexcept;
  Segments::iterator cut(Segments::iterator segment, std::size_t bytes);
  void enlist(Segments::iterator segment, State state) noexcept;
  void merge_with_next(Segments::iterator segment) noexcept;
  Segments::iterator merge(Segments::iterator segment) noexcept;
  void forget(Segments::iterator segment) noexcept;

  Segments segments_;
  FreeList kept_, fresh_;
  std::map<char*, std::size_t> regions_;
  std::size_t kept_bytes_ = 0;
};

}  // namespace convolith
