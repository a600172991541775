#pragma once

#include <algorithm>
#include <cstdint>

#include "arithmetic.hpp"

namespace convolith {

/// How a team shares rows of a channels_last output: the rows, or the vectors of channels where
/// rows are few. `vectors` are cut into `most_parts` at most.
struct RowShare {
  int vector_parts = 1, row_parts = 1;

  RowShare() = default;
  RowShare(std::int64_t rows, std::int64_t vectors, std::int64_t most_parts, int threads) {
    std::int64_t best = -1;
    const std::int64_t most = std::clamp<std::int64_t>(most_parts, 1, threads);
    for (int parts = 1; parts <= most; ++parts) {
      const std::int64_t cost = divide_up(rows, threads / parts) * divide_up(vectors, parts);
      if (best >= 0 && cost >= best) continue;
      best = cost;
      vector_parts = parts;
      row_parts = threads / parts;
    }
  }
};

}  // namespace convolith
