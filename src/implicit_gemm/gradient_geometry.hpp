#pragma once

#include <array>
#include <cstdint>

#include "convolith/problem.hpp"
#include "implicit_gemm/strip_gemm.hpp"
#include "kernels/weight_gemm_table.hpp"
#include "pixel_blocks.hpp"

namespace convolith {

/// Where the pixels of an operand stand: packed, block by block, or in the array itself.
struct OperandStrides {
  std::int64_t pixel, sample;
  bool packed;
};

/// Which pixels of the source and of the output every tap of a backward-weight multiplies, and
/// where these lie.
class GradientGeometry {
 public:
  explicit GradientGeometry(const ConvProblem& problem);

  const std::array<Window, kSpatialAxes>& windows() const noexcept { return windows_; }
  const std::array<StripAxis, kSpatialAxes>& axes() const noexcept { return axes_; }
  PaddingMode padding_mode() const noexcept { return padding_mode_; }
  /// Whether products with padding are left out.
  bool clips() const noexcept { return padding_mode_ == PaddingMode::zeros; }
  /// One tap, of stride 1, without padding.
  bool pointwise() const noexcept;

  /// Whether the taps of a kernel row lie one behind the other in a strip.
  bool taps_touch() const noexcept;
  /// The same as one tap, those of `lines` kernel rows together.
  void take_spans(std::int64_t lines) noexcept;
  bool spans() const noexcept { return lines_ > 0; }
  /// Kernel rows of a span; their strips are filled with zeros where they are padding.
  bool several_lines() const noexcept { return lines_ > 1; }
  /// Taps, or spans, which have lists of runs of their own.
  std::int64_t lists() const noexcept;

  /// Packed pixels of the source that a block reads, padding included.
  std::int64_t source_pixels(const PixelBlock& block) const noexcept;
  /// Between kernel rows of a block's strips.
  std::int64_t line_pixels(const PixelBlock& block) const noexcept;
  /// The coordinate that stands at a place of a strip.
  std::int64_t coordinate(int axis, std::int64_t first, std::int64_t place) const noexcept;
  /// Between the sources of neighbouring outputs.
  std::int64_t source_step(const OperandStrides& source) const noexcept;
  /// Of the first pixel of a block of the output.
  std::int64_t output_at(const OperandStrides& output, const PixelBlock& block) const noexcept;

  /// Lists the pixels of a block that a tap, or a span, multiplies; returns how many runs there
  /// are. Rows are the source, or with `swapped` the output.
  std::int64_t list_runs(const OperandStrides& source, const OperandStrides& output,
                         const PixelBlock& block, std::int64_t list, bool swapped,
                         PixelRun* runs) const noexcept;

 private:
  struct Tap {
    std::array<std::int64_t, kSpatialAxes> offsets;
    std::int64_t begin, end;  ///< columns of a block that it takes
  };

  std::int64_t offset(int axis, std::int64_t tap) const noexcept;
  std::int64_t source_at(const OperandStrides& source, const PixelBlock& block, const Tap& tap,
                         std::int64_t plane, std::int64_t row) const noexcept;
  std::int64_t output_at(const OperandStrides& output, const PixelBlock& block, const Tap& tap,
                         std::int64_t plane, std::int64_t row) const noexcept;

  std::array<Window, kSpatialAxes> windows_;
  std::array<StripAxis, kSpatialAxes> axes_;
  PaddingMode padding_mode_;
  std::int64_t lines_ = 0;  ///< of a span; 0: there are none
};

}  // namespace convolith
