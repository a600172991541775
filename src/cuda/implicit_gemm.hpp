#pragma once

// A convolution as a matrix product whose left operand is never made: row m is a destination
// pixel, the reduction runs over (tap, channel). Index arithmetic for the host and the device.

#include <algorithm>
#include <cstdint>
#include <string>

#include "padding.hpp"
#include "phases.hpp"

namespace convolith::cuda {

/// One axis of a phase: destinations begin + j * step, j in [0, count), read the sources
/// j * source_step + first_offset + t * offset_step under the kernel taps first_tap + t * tap_step.
struct GemmAxis {
  int count, begin, step;
  int sources, source_step;
  int taps, first_offset, offset_step, first_tap, tap_step;
};

/// A phase of a problem as a matrix product. Channels are those of one group.
struct GemmGeometry {
  GemmAxis axes[kSpatialAxes];
  int kernel[kSpatialAxes], destinations[kSpatialAxes];
  int pixels, rows;        ///< of a sample of the phase, and of the whole batch
  int reduced, produced, groups;
  PaddingMode mode;

  constexpr int taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
  constexpr int depth() const { return taps() * reduced; }  ///< of the reduction
};

/// A destination: its sample and where its window begins among the sources.
struct GemmRow {
  int sample, origin[kSpatialAxes];
  std::int64_t destination;  ///< pixel
};

constexpr GemmRow gemm_row(const GemmGeometry& g, int row) {
  int rest = row % g.pixels;
  const int at[kSpatialAxes] = {rest / g.axes[2].count / g.axes[1].count,
                                rest / g.axes[2].count % g.axes[1].count,
                                rest % g.axes[2].count};
  GemmRow result{row / g.pixels, {}, 0};
  for (int i = 0; i < kSpatialAxes; ++i) {
    const GemmAxis& axis = g.axes[i];
    result.origin[i] = at[i] * axis.source_step + axis.first_offset;
    result.destination = result.destination * g.destinations[i] + axis.begin + at[i] * axis.step;
  }
  return result;
}

/// A place in the reduction, which walks on: a tap and a channel.
struct TapWalk {
  int tap[kSpatialAxes] = {0, 0, 0};
  int channel = 0;

  constexpr void advance(const GemmGeometry& g, int by) {
    channel += by;
    while (channel >= g.reduced) {
      channel -= g.reduced;
      if (++tap[2] < g.axes[2].taps) continue;
      tap[2] = 0;
      if (++tap[1] < g.axes[1].taps) continue;
      tap[1] = 0;
      ++tap[0];
    }
  }

  /// False beyond the end of the reduction, which is empty where an axis has no taps.
  constexpr bool inside(const GemmGeometry& g) const {
    return tap[0] < g.axes[0].taps && tap[1] < g.axes[1].taps && tap[2] < g.axes[2].taps;
  }

  /// The kernel tap, counted as the weights have them.
  constexpr int weight_tap(const GemmGeometry& g) const {
    int number = 0;
    for (int i = 0; i < kSpatialAxes; ++i) {
      number = number * g.kernel[i] + g.axes[i].first_tap + tap[i] * g.axes[i].tap_step;
    }
    return number;
  }

  /// The source pixel that a row reads here, or -1 in padding that counts as zero.
  constexpr std::int64_t source(const GemmGeometry& g, const GemmRow& row) const {
    int pixel = 0;  // not_as_gemm() sees to it that 31 bits do
    for (int i = 0; i < kSpatialAxes; ++i) {
      const GemmAxis& axis = g.axes[i];
      int at = row.origin[i] + tap[i] * axis.offset_step;
      if (static_cast<unsigned>(at) >= static_cast<unsigned>(axis.sources)) {
        if (g.mode == PaddingMode::zeros) return -1;
        at = static_cast<int>(padded_source(at, axis.sources, g.mode));
      }
      pixel = pixel * axis.sources + at;
    }
    return pixel;
  }
};

/// Why a problem is no such product, or nothing.
inline std::string not_as_gemm(const ConvProblem& p) {
  if (p.direction == Direction::backward_input) {
    if (std::string reason = not_in_phases(p); !reason.empty()) return reason;
  }
  constexpr double kMost = 2147483647.0;
  const auto product = [](auto... factors) { return (static_cast<double>(factors) * ...); };
  double longest = product(p.in_channels, p.taps());
  longest = std::max(longest, product(p.out_channels, p.taps()));
  longest = std::max(longest, product(p.batch, p.input_pixels()));
  longest = std::max(longest, product(p.batch, p.output_pixels()));
  for (const Window& w : p.windows) {
    longest = std::max(longest, product(w.output + 1, w.stride) + product(w.kernel, w.dilation) +
                                    static_cast<double>(w.before + w.after));
  }
  if (longest < kMost) return {};
  return "extents whose products do not fit 31 bits";
}

inline GemmGeometry gemm_geometry(const ConvProblem& p, const Phase& phase) {
  const bool adjoint = is_adjoint(p);
  const Extents sources = source_extents(p), destinations = destination_extents(p);
  GemmGeometry g{};
  g.pixels = 1;
  for (int i = 0; i < kSpatialAxes; ++i) {
    const AxisPhase& from = phase.axes[i];
    GemmAxis& axis = g.axes[i];
    axis.count = static_cast<int>(from.count);
    axis.begin = static_cast<int>(from.begin);
    axis.step = static_cast<int>(from.step);
    axis.sources = static_cast<int>(sources[i]);
    axis.source_step = static_cast<int>(from.source_step);
    axis.taps = static_cast<int>(from.taps.size());
    if (axis.taps > 0) {
      axis.first_offset = static_cast<int>(from.taps[0].offset);
      axis.first_tap = static_cast<int>(from.taps[0].tap);
    }
    if (axis.taps > 1) {
      axis.offset_step = static_cast<int>(from.taps[1].offset - from.taps[0].offset);
      axis.tap_step = static_cast<int>(from.taps[1].tap - from.taps[0].tap);
    }
    g.kernel[i] = static_cast<int>(p.windows[i].kernel);
    g.destinations[i] = static_cast<int>(destinations[i]);
    g.pixels *= axis.count;
  }
  g.rows = static_cast<int>(p.batch) * g.pixels;
  g.reduced = static_cast<int>(adjoint ? p.out_channels_per_group() : p.in_channels_per_group());
  g.produced = static_cast<int>(adjoint ? p.in_channels_per_group() : p.out_channels_per_group());
  g.groups = static_cast<int>(p.groups);
  g.mode = p.padding_mode;
  return g;
}

}  // namespace convolith::cuda
