#pragma once

#include <cstdint>

#include "implicit_gemm/gradient_geometry.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// Panels of some channels, pixel by pixel, in which those of `count` panels are shared evenly.
template <class T>
struct GradientPanels {
  std::int64_t first, channels;  ///< of a group
  std::int64_t count, width, stride;
  T* data;
};

/// The channels of a panel, from the first panel's.
Range panel_channels(std::int64_t panel, std::int64_t panels, std::int64_t channels) noexcept;

/// Packs the pixels of a block, with the padding that a product reads: those of the source as
/// strips, those of the output one behind the other. `group_channel` is the group's first.
template <class T>
class GradientPacking {
 public:
  GradientPacking(const GradientGeometry& geometry, const Kernels<T>& kernels)
      : geometry_(geometry), kernels_(kernels) {}

  void pack_source(const Maps<const T>& x, std::int64_t group_channel, const PixelBlock& block,
                   const GradientPanels<T>& panels) const noexcept;
  void pack_output(const Maps<const T>& y, std::int64_t group_channel, const PixelBlock& block,
                   const GradientPanels<T>& panels) const noexcept;

 private:
  void pack_line(const Maps<const T>& x, const T* line, const PixelBlock& block,
                 const GradientPanels<T>& panels, T* strip) const noexcept;
  void copy_pixels(const Maps<const T>& maps, const T* from, std::int64_t step, std::int64_t pixels,
                   const GradientPanels<T>& panels, T* to, std::int64_t to_stride) const noexcept;

  const GradientGeometry& geometry_;
  const Kernels<T>& kernels_;
};

}  // namespace convolith
