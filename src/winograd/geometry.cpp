#include "winograd/geometry.hpp"

#include <algorithm>
#include <string>

#include "arithmetic.hpp"

namespace convolith {

std::int64_t WinogradAxis::tiles() const noexcept {
  if (!transformed) return outputs;
  const std::int64_t longer = outputs % dilation;
  return longer * divide_up(outputs / dilation + 1, tile_outputs) +
         (dilation - longer) * divide_up(outputs / dilation, tile_outputs);
}

AxisTile WinogradAxis::tile(std::int64_t index) const noexcept {
  if (!transformed) return {index, 1, index * stride - before, 0};
  std::int64_t extent = outputs / dilation + 1;
  std::int64_t tiles = divide_up(extent, tile_outputs);
  std::int64_t phase = outputs % dilation;
  if (index < phase * tiles) {
    phase = index / tiles;
    index %= tiles;
  } else {
    index -= phase * tiles;
    tiles = divide_up(--extent, tile_outputs);
    phase += index / tiles;
    index %= tiles;
  }
  const std::int64_t first = phase + index * tile_outputs * dilation;
  return {first, std::min<std::int64_t>(tile_outputs, extent - index * tile_outputs),
          first - before, phase};
}

std::optional<WinogradGeometry> WinogradGeometry::make(const ConvProblem& problem, int outputs,
                                                       std::string* reason) {
  const auto refuse = [&](std::string why) {
    if (reason != nullptr) *reason = std::move(why);
    return std::nullopt;
  };
  const bool adjoint = problem.direction == Direction::backward_input;
  if (problem.direction == Direction::backward_weight) {
    return refuse("direction backward_weight has another transform");
  }
  if (adjoint && problem.padding_mode != PaddingMode::zeros) {
    return refuse(std::string("backward_input folds padding_mode ") + name(problem.padding_mode) +
                  " back onto the border");
  }
  if (problem.taps() > kMostTaps) {
    return refuse("the kernel has " + std::to_string(problem.taps()) + " elements, above " +
                  std::to_string(kMostTaps));
  }

  WinogradGeometry geometry{};
  geometry.reduced = adjoint ? problem.out_channels_per_group() : problem.in_channels_per_group();
  geometry.produced = adjoint ? problem.in_channels_per_group() : problem.out_channels_per_group();
  for (int a = 0; a < kSpatialAxes; ++a) {
    const Window& w = problem.windows[a];
    geometry.axes[a] = {w.input, w.output, w.kernel, w.stride, w.dilation, w.before};
    if (adjoint) {
      // Of stride 1: output i reads i + before - t * dilation; with the taps turned round,
      // i + t * dilation - (reach - before).
      geometry.axes[a].sources = w.output;
      geometry.axes[a].outputs = w.input;
      geometry.axes[a].before = w.effective_kernel() - 1 - w.before;
    }
  }

  geometry.size = -1;
  geometry.row_axis = geometry.column_axis = -1;
  for (int size = 0; size < kWinogradSizeCount && geometry.size < 0; ++size) {
    if (kWinogradSizes[size].outputs != outputs) continue;
    const auto serves = [&](int a) {
      return geometry.axes[a].stride == 1 && geometry.axes[a].taps == kWinogradSizes[size].taps;
    };
    for (int a = kSpatialAxes - 1; a >= 0; --a) {
      if (!serves(a)) continue;
      if (geometry.column_axis < 0) {
        geometry.column_axis = a;
      } else if (geometry.column_axis == 2 && a == 1) {
        geometry.row_axis = a;
      }
    }
    if (geometry.column_axis >= 0) geometry.size = size;
  }
  if (geometry.size < 0) {
    return refuse(std::string("no axis has stride 1 and 3 ") + (outputs < 6 ? "or 5 " : "") +
                  "kernel elements");
  }
  for (int a : {geometry.row_axis, geometry.column_axis}) {
    if (a < 0) continue;
    WinogradAxis& axis = geometry.axes[a];
    axis.transformed = true;
    axis.tile_outputs = outputs;
    axis.tile_inputs = outputs + static_cast<int>(axis.taps) - 1;
  }
  geometry.reduced_taps = 1;
  for (const WinogradAxis& axis : geometry.axes) {
    if (axis.transformed) continue;
    geometry.reduced_taps *= axis.taps;
    if (adjoint && axis.stride != 1) return refuse("backward_input of a stride above 1");
  }
  return geometry;
}

ReducedTap WinogradGeometry::reduced_tap(std::int64_t index) const noexcept {
  ReducedTap at{};
  for (int a = kSpatialAxes - 1; a >= 0; --a) {
    if (axes[a].transformed) continue;
    at[a] = index % axes[a].taps;
    index /= axes[a].taps;
  }
  return at;
}

}  // namespace convolith
