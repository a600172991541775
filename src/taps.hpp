#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolith/problem.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// The input coordinate that stands at padded coordinate q (0 is the first true input), or -1
/// where padding counts as zero.
std::int64_t padded_source(std::int64_t q, std::int64_t input, PaddingMode mode) noexcept;

/// One kernel tap of one axis and the source coordinate that a destination reads under it.
struct AxisTap {
  std::int64_t tap;
  std::int64_t source;
};

/// Destinations begin, begin + step, ... that have the taps of the first one, their sources
/// moving on by source_step from each to the next.
struct Run {
  std::int64_t begin;
  std::int64_t step;
  std::int64_t count;
  std::int64_t source_step;
};

/// How one axis of a convolution gathers. Forward: destinations are outputs, sources inputs.
/// Adjoint: the other way round, so that backward-input is a gather too.
class AxisGather {
 public:
  AxisGather(const Window& window, PaddingMode mode, bool adjoint);

  std::int64_t destinations() const noexcept {
    return adjoint_ ? window_.input : window_.output;
  }
  std::int64_t sources() const noexcept { return adjoint_ ? window_.output : window_.input; }

  /// Writes the taps that reach a source from `destination`, in order of tap and source, and
  /// returns their number, most_taps() at most. Taps in padding that counts as zero are left out.
  std::int64_t taps_at(std::int64_t destination, AxisTap* taps) const noexcept;

  /// Every destination, once, in runs of at most `most` destinations.
  std::vector<Run> runs(std::int64_t most) const;

  std::int64_t most_taps() const noexcept { return most_taps_; }

 private:
  /// Destinations whose taps lie at a constant distance: [begin, end), all phases.
  struct Interior {
    std::int64_t begin, end;
  };
  Interior interior() const noexcept;

  /// visit(tap, source) for every tap of `destination`, in no particular order.
  template <class Visit>
  void for_each_tap(std::int64_t destination, const Visit& visit) const noexcept;

  Window window_;
  PaddingMode mode_;
  bool adjoint_;
  std::int64_t most_taps_ = 0;
};

/// How many elements a tap's source and weight lie apart: of neighbouring source pixels, and of
/// neighbouring kernel taps in the source and in the weights.
struct TapStrides {
  std::int64_t source_pixel;
  std::int64_t source_tap;
  std::int64_t weight_tap;
};

/// The gather of a whole problem. A row is a destination of the first two axes.
class Gather {
 public:
  Gather(const ConvProblem& problem, bool adjoint);

  std::int64_t rows() const noexcept { return axes_[0].destinations() * axes_[1].destinations(); }
  std::int64_t row_pixels() const noexcept { return axes_[2].destinations(); }

  /// Runs of at most `most` pixels that make up every row.
  std::vector<Run> runs(std::int64_t most) const { return axes_[2].runs(most); }

  std::int64_t most_taps() const noexcept;
  std::size_t scratch_bytes() const noexcept;

  /// Lists the taps of a run at the start of `scratch`, as offsets from the sample's source and
  /// from the weights; returns their number.
  std::int64_t list_taps(std::int64_t row, const Run& run, const TapStrides& strides,
                         void* scratch) const noexcept;

 private:
  std::array<AxisGather, kSpatialAxes> axes_;
  std::int64_t kernel_height_, kernel_width_;
};

}  // namespace convolith
