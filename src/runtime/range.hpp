#pragma once

#include <algorithm>
#include <cstdint>

namespace convolith {

/// Indices [begin, end).
struct Range {
  std::int64_t begin, end;

  /// The part of [0, count) that belongs to `thread` of a team, cut as evenly as can be.
  static Range share(std::int64_t count, int thread, int team) noexcept {
    const std::int64_t each = count / team;
    const std::int64_t extra = count % team;
    const std::int64_t begin = thread * each + std::min<std::int64_t>(thread, extra);
    return {begin, begin + each + (thread < extra ? 1 : 0)};
  }
};

}  // namespace convolith
