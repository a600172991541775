#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/range.hpp"
#include "winograd/geometry.hpp"

namespace convolith {

/// Tiles that are neighbours on the last axis, in one phase: `count` of them, the last of which
/// has `last_outputs` outputs on that axis.
struct TileRun {
  std::int64_t sample;
  AxisTile depth, height, width;  ///< of the first tile
  std::int64_t count, last_outputs;
};

/// The tiles of a batch, in order, and which source pixels they read.
class TileRuns {
 public:
  TileRuns(const WinogradGeometry& geometry, PaddingMode padding_mode) noexcept
      : geometry_(geometry),
        padding_mode_(padding_mode),
        vertical_axis_(geometry.square()           ? geometry.row_axis
                       : geometry.column_axis != 2 ? geometry.column_axis
                                                   : -1) {}

  /// The transformed axis that is not the last one, or -1.
  int vertical_axis() const noexcept { return vertical_axis_; }
  /// Rows of a tile's source.
  int rows() const noexcept {
    return vertical_axis_ < 0 ? 1 : geometry_.axes[vertical_axis_].tile_inputs;
  }
  const AxisTile& tile_of(const TileRun& run, int axis) const noexcept {
    return axis == 0 ? run.depth : axis == 1 ? run.height : run.width;
  }

  /// visit(run, index of its first tile) for runs of `longest` tiles at most that make up the tiles
  /// [begin, end).
  template <class Visit>
  void for_each(const Range& tiles, std::int64_t longest, const Visit& visit) const noexcept {
    for (std::int64_t index = tiles.begin; index < tiles.end;) {
      const TileRun run = at(index, std::min(longest, tiles.end - index));
      visit(run, index);
      index += run.count;
    }
  }

  /// The first pixel of the source row that the tile reads in its row `v` under a tap of the other
  /// axes, or -1 where all of it counts as zero.
  std::int64_t source_row(const TileRun& run, const ReducedTap& tap, std::int64_t v) const noexcept;

  /// Coordinates that a run reads on the last axis: first, first + step, ..., `count` of them.
  struct Columns {
    std::int64_t first, step, count;
  };
  Columns source_columns(const TileRun& run, const ReducedTap& tap) const noexcept;
  /// The source of one of them, or -1.
  std::int64_t source_column(const Columns& columns, std::int64_t x) const noexcept;

 private:
  /// The run that begins with a tile.
  TileRun at(std::int64_t index, std::int64_t most_tiles) const noexcept;

  WinogradGeometry geometry_;
  PaddingMode padding_mode_;
  int vertical_axis_;
};

}  // namespace convolith
