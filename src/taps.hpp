#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolith/problem.hpp"
#include "kernels/kernel_table.hpp"
#include "padding.hpp"

namespace convolith {

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

/// The destinations of an axis, each once, as runs. Computed and not listed: an axis may be longer
/// than memory.
class Runs {
 public:
  std::int64_t size() const noexcept { return size_; }
  Run operator[](std::int64_t index) const noexcept;

  /// Adds the destinations of [begin, end) in runs of at most `most`: those of the first residue
  /// of the step, then those of the next.
  void append(std::int64_t begin, std::int64_t end, std::int64_t step, std::int64_t most,
              std::int64_t source_step);

 private:
  struct Stretch {
    Run first;                    ///< with the most destinations that a run may have
    std::int64_t each, longer;    ///< destinations of a residue; the first `longer` have one more
    std::int64_t first_index;     ///< of its runs
  };
  std::vector<Stretch> stretches_;
  std::int64_t size_ = 0;
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

  /// Runs of at most `most` destinations whose taps lie inside, and of those without any taps.
  Runs runs(std::int64_t most) const;

  /// A bound on the taps of a destination, which most axes attain.
  std::int64_t most_taps() const noexcept { return most_taps_; }

 private:
  /// Destinations whose taps lie at a constant distance: [begin, end), all phases.
  struct Interior {
    std::int64_t begin, end;
  };
  Interior interior() const noexcept;
  std::int64_t bound_taps() const noexcept;

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
  Runs runs(std::int64_t most) const { return axes_[2].runs(most); }

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

/// The share of an axis' taps, over its destinations, that find no padding; about.
double share_inside(const Window& window) noexcept;

}  // namespace convolith
