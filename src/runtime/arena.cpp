#include "runtime/arena.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>
#include <utility>

#include "runtime/pages.hpp"

namespace convolith {
namespace {

constexpr std::size_t kRegion = std::size_t{256} << 20;

std::size_t whole_pages(std::size_t bytes) noexcept {
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

void* Arena::take(std::size_t bytes) noexcept {
  try {
    auto segment = find(bytes);
    if (segment == segments_.end()) {
      if (!reserve(bytes)) return nullptr;
      segment = find(bytes);
    }
    if (segment->second.bytes > bytes) cut(segment, bytes);
    Segment& taken = segment->second;
    if (taken.state == State::kept) kept_bytes_ -= taken.bytes;
    taken.node = list(taken.state).extract(taken.place);
    taken.state = State::used;
    return segment->first;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void Arena::give(void* data) noexcept {
  const auto segment = segments_.find(static_cast<char*>(data));
  kept_bytes_ += segment->second.bytes;
  enlist(segment, State::kept);
  merge(segment);
}

void Arena::release(std::size_t bytes) noexcept {
  while (bytes > 0 && !kept_.empty()) {
    auto segment = segments_.find(std::prev(kept_.end())->second);
    const std::size_t wanted = whole_pages(bytes);
    if (segment->second.bytes > wanted) {
      try {
        segment = cut(segment, segment->second.bytes - wanted);
      } catch (const std::bad_alloc&) {  // then all of it
      }
    }
    Segment& released = segment->second;
    release_pages(segment->first, released.bytes);
    kept_bytes_ -= released.bytes;
    bytes -= std::min(bytes, released.bytes);
    released.node = kept_.extract(released.place);
    enlist(segment, State::fresh);
    segment = merge(segment);
    if (segment->second.bytes == regions_.find(segment->second.region)->second) forget(segment);
  }
}

/// A free segment at least so long: the shortest, and before all others one with pages.
Arena::Segments::iterator Arena::find(std::size_t bytes) noexcept {
  for (FreeList* free : {&kept_, &fresh_}) {
    const auto found = free->lower_bound(bytes);
    if (found != free->end()) return segments_.find(found->second);
  }
  return segments_.end();
}

/// A region for the block and many others, or where that cannot be had, for it alone.
bool Arena::reserve(std::size_t bytes) {
  std::size_t length = std::max(kRegion, whole_pages(bytes));
  void* data = allocate_pages(length, kHugePage);
  if (data == nullptr) {
    length = bytes;
    data = allocate_pages(length, kHugePage);
  }
  if (data == nullptr) return false;
  auto* const region = static_cast<char*>(data);
  try {
    regions_.emplace(region, length);
    const auto segment = segments_.emplace(region, Segment{region, length, State::fresh}).first;
    segment->second.place = fresh_.emplace(length, region);
  } catch (const std::bad_alloc&) {
    segments_.erase(region);
    regions_.erase(region);
    std::free(data);
    throw;
  }
  return true;
}

/// Cuts a free segment at so many bytes; returns the second piece. Nothing changes if it throws.
Arena::Segments::iterator Arena::cut(Segments::iterator segment, std::size_t bytes) {
  Segment& first = segment->second;
  char* const at = segment->first + bytes;
  FreeList holder;
  holder.emplace(first.bytes - bytes, at);
  const auto second =
      segments_.emplace(at, Segment{first.region, first.bytes - bytes, first.state}).first;
  FreeList& free = list(first.state);
  second->second.place = free.insert(holder.extract(holder.begin()));
  auto node = free.extract(first.place);
  node.key() = first.bytes = bytes;
  first.place = free.insert(std::move(node));
  return second;
}

/// Lists a segment that holds its node as free.
void Arena::enlist(Segments::iterator segment, State state) noexcept {
  Segment& freed = segment->second;
  freed.state = state;
  freed.node.key() = freed.bytes;
  freed.node.mapped() = segment->first;
  freed.place = list(state).insert(std::move(freed.node));
}

void Arena::merge_with_next(Segments::iterator segment) noexcept {
  const auto next = std::next(segment);
  Segment& first = segment->second;
  if (next == segments_.end() || next->second.state != first.state ||
      next->second.region != first.region) {
    return;
  }
  FreeList& free = list(first.state);
  auto node = free.extract(first.place);
  node.key() = first.bytes += next->second.bytes;
  first.place = free.insert(std::move(node));
  free.erase(next->second.place);
  segments_.erase(next);
}

/// Merges a free segment with free neighbours of its kind; returns what it became.
Arena::Segments::iterator Arena::merge(Segments::iterator segment) noexcept {
  merge_with_next(segment);
  if (segment == segments_.begin()) return segment;
  const auto previous = std::prev(segment);
  const bool joins = previous->second.state == segment->second.state &&
                     previous->second.region == segment->second.region;
  if (!joins) return segment;
  merge_with_next(previous);
  return previous;
}

/// Returns a region, all of which is free, to the system.
void Arena::forget(Segments::iterator segment) noexcept {
  char* const region = segment->second.region;
  list(segment->second.state).erase(segment->second.place);
  segments_.erase(segment);
  regions_.erase(region);
  std::free(region);
}

}  // namespace convolith
