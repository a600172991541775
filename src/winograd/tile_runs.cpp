#include "winograd/tile_runs.hpp"

#include <algorithm>

#include "padding.hpp"

namespace convolith {

TileRun TileRuns::at(std::int64_t index, std::int64_t most_tiles) const noexcept {
  const auto& [depth, height, width] = geometry_.axes;
  const std::int64_t row_tiles = width.tiles();
  std::int64_t rest = index;
  const std::int64_t w = rest % row_tiles;
  rest /= row_tiles;
  TileRun run{};
  run.width = width.tile(w);
  run.height = height.tile(rest % height.tiles());
  rest /= height.tiles();
  run.depth = depth.tile(rest % depth.tiles());
  run.sample = rest / depth.tiles();
  const std::int64_t most = std::min(row_tiles - w, most_tiles);
  run.count = 1;
  run.last_outputs = run.width.count;
  // A phase ends where the next tile begins anew.
  while (run.count < most) {
    const AxisTile next = width.tile(w + run.count);
    if (next.phase != run.width.phase) break;
    run.last_outputs = next.count;
    ++run.count;
  }
  return run;
}

std::int64_t TileRuns::source_row(const TileRun& run, const ReducedTap& tap,
                                  std::int64_t v) const noexcept {
  std::int64_t pixel = 0;
  for (int a = 0; a < 2; ++a) {
    const WinogradAxis& axis = geometry_.axes[a];
    const AxisTile& tile = tile_of(run, a);
    std::int64_t coordinate = tile.source;
    if (axis.transformed) {
      if (v >= tile.count + axis.taps - 1) return -1;  // read by no output that exists
      coordinate += v * axis.dilation;
    } else {
      coordinate += tap[a] * axis.dilation;
    }
    const std::int64_t source = padded_source(coordinate, axis.sources, padding_mode_);
    if (source < 0) return -1;
    pixel = pixel * axis.sources + source;
  }
  return pixel * geometry_.axes[2].sources;
}

TileRuns::Columns TileRuns::source_columns(const TileRun& run,
                                           const ReducedTap& tap) const noexcept {
  const WinogradAxis& width = geometry_.axes[2];
  if (!width.transformed) {
    return {run.width.source + tap[2] * width.dilation, width.stride, run.count};
  }
  return {run.width.source, width.dilation,
          (run.count - 1) * width.tile_outputs + run.last_outputs + width.taps - 1};
}

std::int64_t TileRuns::source_column(const Columns& columns, std::int64_t x) const noexcept {
  if (x >= columns.count) return -1;  // read by no output that exists
  return padded_source(columns.first + x * columns.step, geometry_.axes[2].sources, padding_mode_);
}

}  // namespace convolith
