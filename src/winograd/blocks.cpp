#include "winograd/blocks.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"

namespace convolith {
namespace {

std::int64_t fitting(const WinogradWork& work, std::size_t bytes, std::int64_t elements) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(bytes / work.element) / elements);
}

/// The most tiles of a block. Weights stream past it from L3 or memory; four register tiles of rows
/// hide that.
std::int64_t longest_block(const WinogradWork& work, const Machine& machine) {
  constexpr std::size_t kFarWeights = std::size_t{8} << 20;
  const std::size_t l2_bytes = machine.l2_bytes;
  const std::int64_t rows = 4 * work.tile_rows;
  const auto weights =
      static_cast<std::size_t>(work.frequencies * work.terms * work.panels * work.columns) *
      work.element;
  const std::int64_t sources = work.frequencies * work.row;  // of a tile
  if (l3_is_far(machine) && !work.transforms_weights && weights <= kPastL3) {
    // V stays in L2, and M too where the weights do.
    const std::int64_t fewest = weights > l2_bytes ? 2 * work.tile_rows : work.tile_rows;
    const std::int64_t products = work.frequencies * work.produced;
    const std::int64_t most = weights > l2_bytes ? fitting(work, l2_bytes, sources)
                                                 : fitting(work, l2_bytes / 2, sources + products);
    return std::clamp(most, fewest, rows);
  }
  // V may outgrow L2, for it is read once for a group of panels. Blocks are twice as long where
  // weights are far or to be transformed, and where there would be two of few tiles.
  if (work.tiles <= 2 * rows || work.transforms_weights || weights > kFarWeights) {
    return std::min(2 * rows, fitting(work, (weights > kPastL3 ? 8 : 4) * l2_bytes, sources));
  }
  return std::min(rows, fitting(work, 2 * l2_bytes, sources));
}

}  // namespace

WinogradBlocks::WinogradBlocks(const WinogradWork& work, const Machine& machine, int threads)
    : all_tiles_(work.tiles) {
  cut(work, divide_up(work.tiles, longest_block(work, machine)), threads);
  tiles = divide_up(work.tiles, count);
  panels = std::min(divide_up(work.panels, shares),
                    fitting(work, machine.l2_bytes / 2, work.frequencies * tiles * work.columns));
  panel_groups = std::min(work.panels, round_up(divide_up(work.panels, panels), shares));
  panels = divide_up(work.panels, panel_groups);
  panel_groups = divide_up(work.panels, panels);
}

/// So many blocks at least, and shares of the panels, that what one thread has to do is the least:
/// in products of a tile with a column, of which those of few tiles take as long as it takes to
/// fetch the weights, and transforms, of a tile's source and of a column's weights, that take as
/// long as some.
void WinogradBlocks::cut(const WinogradWork& work, std::int64_t fewest, int threads) noexcept {
  constexpr std::int64_t kFetched = 10, kSource = 24, kWeights = 8;
  std::int64_t least = -1;
  const std::int64_t most = std::min(work.tiles, round_up(fewest, std::int64_t{threads}));
  for (std::int64_t blocks = fewest; blocks <= most; ++blocks) {
    const std::int64_t rows = divide_up(work.tiles, blocks);
    const std::int64_t products = std::max(rows, kFetched) +
                                  (work.transforms_weights ? kWeights : 0);
    for (std::int64_t parts = 1; parts <= std::min<std::int64_t>(threads, work.panels); ++parts) {
      const std::int64_t columns =
          std::min(divide_up(work.panels, parts) * work.columns, work.produced);
      const std::int64_t share = divide_up(work.groups * blocks * parts, threads) *
                                 (products * columns + rows * kSource);
      if (least >= 0 && share >= least) continue;
      least = share;
      count = blocks;
      shares = parts;
    }
  }
}

}  // namespace convolith
