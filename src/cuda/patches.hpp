#pragma once

// The patches of x that output pixels read, for sums over pixels: index arithmetic for the host
// and the device.

#include <cstdint>

#include "convolith/problem.hpp"
#include "padding.hpp"

namespace convolith::cuda {

struct PatchAxis {
  int input, output, kernel, stride, dilation, before;
};

/// Channels are those of one group.
struct PatchGeometry {
  PatchAxis axes[kSpatialAxes];
  int batch, groups, in_channels, out_channels;
  PaddingMode mode;

  constexpr int pixels() const { return axes[0].output * axes[1].output * axes[2].output; }
  constexpr int terms() const { return batch * pixels(); }  ///< of the sum over pixels
  /// Of the matrix of patches, (tap, channel).
  constexpr int columns() const {
    return axes[0].kernel * axes[1].kernel * axes[2].kernel * in_channels;
  }
};

inline PatchGeometry patch_geometry(const ConvProblem& p) {
  PatchGeometry g{};
  for (int i = 0; i < kSpatialAxes; ++i) {
    const Window& w = p.windows[i];
    g.axes[i] = {static_cast<int>(w.input),  static_cast<int>(w.output),
                 static_cast<int>(w.kernel), static_cast<int>(w.stride),
                 static_cast<int>(w.dilation), static_cast<int>(w.before)};
  }
  g.batch = static_cast<int>(p.batch);
  g.groups = static_cast<int>(p.groups);
  g.in_channels = static_cast<int>(p.in_channels_per_group());
  g.out_channels = static_cast<int>(p.out_channels_per_group());
  g.mode = p.padding_mode;
  return g;
}

/// How far a tap lies from the first input of its window.
struct PatchTap {
  int offset[kSpatialAxes];
};

constexpr PatchTap patch_tap(const PatchGeometry& g, int column) {
  int tap = column / g.in_channels;
  PatchTap result{};
  for (int i = kSpatialAxes; i-- > 0;) {
    result.offset[i] = tap % g.axes[i].kernel * g.axes[i].dilation - g.axes[i].before;
    tap /= g.axes[i].kernel;
  }
  return result;
}

/// An output pixel of the batch, which walks on.
struct PixelWalk {
  int sample = 0, at[kSpatialAxes] = {0, 0, 0};

  constexpr void start(const PatchGeometry& g, int term) {
    sample = term / g.pixels();
    int rest = term % g.pixels();
    for (int i = kSpatialAxes; i-- > 0;) {
      at[i] = rest % g.axes[i].output;
      rest /= g.axes[i].output;
    }
  }

  constexpr void advance(const PatchGeometry& g, int by) {
    at[2] += by;
    while (at[2] >= g.axes[2].output) {
      at[2] -= g.axes[2].output;
      if (++at[1] < g.axes[1].output) continue;
      at[1] = 0;
      if (++at[0] < g.axes[0].output) continue;
      at[0] = 0;
      ++sample;
    }
  }

  constexpr std::int64_t pixel(const PatchGeometry& g) const {
    return (std::int64_t{at[0]} * g.axes[1].output + at[1]) * g.axes[2].output + at[2];
  }

  /// The input pixel under a tap, or -1 in padding that counts as zero.
  constexpr std::int64_t source(const PatchGeometry& g, const PatchTap& tap) const {
    int found = 0;  // not_as_gemm() sees to it that 31 bits do
    for (int i = 0; i < kSpatialAxes; ++i) {
      const PatchAxis& axis = g.axes[i];
      int in_axis = at[i] * axis.stride + tap.offset[i];
      if (static_cast<unsigned>(in_axis) >= static_cast<unsigned>(axis.input)) {
        if (g.mode == PaddingMode::zeros) return -1;
        in_axis = static_cast<int>(padded_source(in_axis, axis.input, g.mode));
      }
      found = found * axis.input + in_axis;
    }
    return found;
  }
};

}  // namespace convolith::cuda
