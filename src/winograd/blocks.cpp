#include "winograd/blocks.hpp"

#include <algorithm>

#include "arithmetic.hpp"

namespace convolith {
namespace {

constexpr std::size_t kMostSharedBytes = std::size_t{8} << 20;

}  // namespace

WinogradBlocks::WinogradBlocks(const WinogradWork& work, std::size_t l2_bytes, int threads)
    : all_tiles_(work.tiles) {
  const auto fitting = [&](std::size_t bytes, std::int64_t elements) {
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(bytes / work.element) / elements);
  };
  // Weights stream past a block of tiles from L3 or memory. Four register tiles of rows hide
  // that; V may then outgrow L2, for it is read once for a group of panels.
  const std::int64_t rows = 4 * work.tile_rows;
  const std::int64_t weights = work.frequencies * work.terms * work.panels * work.columns;
  const std::int64_t sources = work.frequencies * work.row;  // of a tile
  shared = divide_up(work.tiles, rows) * work.groups < threads ||
           (work.few_tiles && work.groups == 1 && weights > sources * work.tiles) ||
           weights > static_cast<std::int64_t>(kMostSharedBytes / work.element);
  if (shared) {
    count = divide_up(work.tiles, std::min(2 * rows, fitting(kMostSharedBytes, sources)));
  } else {
    const std::int64_t most =
        std::min(work.few_tiles ? 2 * rows : rows, fitting(2 * l2_bytes, sources));
    count = divide_up(work.tiles, most);
    if (work.groups % threads != 0) count = std::min(work.tiles, round_up(count, threads));
  }
  tiles = divide_up(work.tiles, count);
  panels = std::min(work.panels, fitting(l2_bytes / 2, work.frequencies * tiles * work.columns));
  if (shared) balance(work, threads);
  panel_groups = divide_up(work.panels, panels);
  panels = divide_up(work.panels, panel_groups);
  if (shared && panel_groups == 1) {
    // Nobody else reads the V of a part: it is a block of the thread that multiplies it.
    count *= parts;
    tiles = divide_up(work.tiles, count);
    parts = 1;
    shared = false;
  }
}

/// As many panels in a group, no more than now, and parts of a block that the largest share of a
/// thread is smallest. A product of a few tiles takes as long as it takes to fetch the weights.
void WinogradBlocks::balance(const WinogradWork& work, int threads) noexcept {
  constexpr std::int64_t kFewestRows = 8;
  const std::int64_t most = panels;
  std::int64_t least = -1;
  for (std::int64_t p = 1; p <= divide_up(tiles, kFewestRows); ++p) {
    const std::int64_t rows = std::max(divide_up(tiles, p), kFewestRows);
    for (std::int64_t together = most; together > 0; --together) {
      const std::int64_t jobs = divide_up(work.panels, together) * p;
      const std::int64_t columns = std::min(together * work.columns, work.produced);
      const std::int64_t share = divide_up(jobs, threads) * columns * rows;
      if (least >= 0 && share >= least) continue;
      least = share;
      panels = together;
      parts = p;
    }
  }
}

}  // namespace convolith
