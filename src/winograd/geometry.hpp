#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "convolith/algorithm.hpp"
#include "kernels/winograd_table.hpp"

namespace convolith {

/// Outputs `first`, `first + step`, ... of an axis, and the padded coordinate that the first one
/// reads under the first tap.
struct AxisTile {
  std::int64_t first;
  std::int64_t count;
  std::int64_t source;
  std::int64_t phase;
};

/// An axis of a convolution with outputs to compute, forward or adjoint: output o reads padded
/// coordinate o * stride + t * dilation - before under tap t.
struct WinogradAxis {
  std::int64_t sources, outputs, taps, stride, dilation, before;
  bool transformed = false;
  int tile_outputs = 1;  ///< m where transformed
  int tile_inputs = 1;   ///< m + taps - 1 where transformed

  /// Tiles hold the outputs of one phase modulo the dilation.
  std::int64_t phases() const noexcept { return transformed ? dilation : 1; }
  std::int64_t tiles() const noexcept;
  AxisTile tile(std::int64_t index) const noexcept;

  /// Distance in the source from one pixel of a tile to the next.
  std::int64_t source_step() const noexcept { return transformed ? dilation : stride; }
};

/// A coordinate for every axis that is not transformed.
using ReducedTap = std::array<std::int64_t, kSpatialAxes>;

/// A problem as Winograd transforms see it: one or two transformed axes; the taps of the others,
/// with the channels, are what the product of the transforms sums over.
struct WinogradGeometry {
  static constexpr std::int64_t kMostTaps = 125;

  int size;                ///< F(m, r), as kWinogradSizes counts them
  int row_axis;            ///< -1: one transformed axis
  int column_axis;
  std::array<WinogradAxis, kSpatialAxes> axes;
  std::int64_t reduced, produced;  ///< channels per group that are read and written
  std::int64_t reduced_taps;       ///< of the axes that are not transformed

  /// Nothing, and the reason, where F(outputs, r) cannot serve.
  static std::optional<WinogradGeometry> make(const ConvProblem& problem, int outputs,
                                              std::string* reason);

  /// The taps of the axes that are not transformed, in row-major order.
  ReducedTap reduced_tap(std::int64_t index) const noexcept;

  const WinogradAxis& column() const noexcept { return axes[column_axis]; }
  bool square() const noexcept { return row_axis >= 0; }
  std::int64_t frequencies() const noexcept {
    return column().tile_inputs * (square() ? column().tile_inputs : 1);
  }
  std::int64_t tiles() const noexcept {  ///< of a sample
    return axes[0].tiles() * axes[1].tiles() * axes[2].tiles();
  }

  /// Whether a batch has no more tiles than one block, so that a thread reads every transformed
  /// weight once at most.
  bool few_tiles(std::int64_t batch, int tile_rows) const noexcept {
    return reduced_taps == 1 && batch * tiles() <= 8 * tile_rows;
  }
};

}  // namespace convolith
