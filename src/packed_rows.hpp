#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "convolith/problem.hpp"
#include "kernels/depthwise_table.hpp"
#include "phases.hpp"

namespace convolith {

/// One axis of a phase, as kernels without dilation see it. Destinations fall into classes
/// a, a + classes, a + 2 classes, ...; those of a class read sources `gap` apart, neighbours
/// `stride` steps of the gap from each other.
class DenseAxis {
 public:
  DenseAxis(const AxisPhase& phase, std::int64_t extent, PaddingMode mode);

  std::int64_t taps() const noexcept { return static_cast<std::int64_t>(phase_.taps.size()); }
  std::int64_t classes() const noexcept;
  std::int64_t class_step() const noexcept { return classes_; }
  std::int64_t count(std::int64_t a) const noexcept;

  /// Steps from one destination of a class to the next; as many as there are taps where
  /// neighbours share none.
  std::int64_t stride() const noexcept { return stride_; }
  bool shared() const noexcept { return shared_; }

  /// Steps that `destinations` neighbours of a class read.
  std::int64_t steps(std::int64_t destinations) const noexcept {
    return destinations == 0 || taps() == 0 ? 0 : (destinations - 1) * stride_ + taps();
  }

  /// The source at a step of the destinations from `first` on, or -1 for zero.
  std::int64_t source(std::int64_t first, std::int64_t step) const noexcept;

  /// Whether none of the sources of `destinations` neighbours is padding.
  bool inside(std::int64_t first, std::int64_t destinations) const noexcept;

 private:
  std::int64_t coordinate(std::int64_t first, std::int64_t step) const noexcept;

  AxisPhase phase_;
  std::int64_t extent_;
  PaddingMode mode_;
  std::int64_t gap_, classes_, stride_;
  bool shared_;
};

/// Neighbours of a class: destinations first, first + class_step, ... of an axis.
struct Strip {
  std::int64_t first, count;
};

/// Every destination, once, in strips of at most `most`, none much shorter than the others.
std::vector<Strip> strips(const DenseAxis& axis, std::int64_t most);

/// A phase with its axes, and the extents of its source.
struct DensePhase {
  Phase phase;
  std::array<std::int64_t, kSpatialAxes> extents;
  PaddingMode mode;
  DenseAxis depth, height, width;

  DensePhase(const Phase& p, const std::array<std::int64_t, kSpatialAxes>& source_extents,
             PaddingMode padding_mode);

  std::int64_t plane_taps() const noexcept { return height.taps() * width.taps(); }
};

/// Rows that are packed with their padding, columns of one residue of the stride together: tap t
/// of output column o stands at tap_columns[t] + o.
struct RowPacking {
  struct Columns {
    std::int64_t begin, count;     ///< outputs
    std::size_t runs, run_count;
  };
  std::vector<Columns> blocks;     ///< of output columns, packed one at a time
  std::vector<PackedRun> runs;     ///< zeros are left out where there is one block
  std::vector<std::int64_t> tap_columns;
  std::int64_t stride = 0;         ///< elements of a row
};

RowPacking row_packing(const DensePhase& phase, std::int64_t lanes);

/// The same of rows that stay where they lie: one block, and nothing to pack.
RowPacking rows_in_place(const DensePhase& phase);

/// A plane so narrow that its outputs do better one row behind the other: output (h, w) of a
/// vector's lane h * pitch + w sums packed[tap_places[t] + lane].
struct FlatPlane {
  std::vector<std::int64_t> row_sources;  ///< -1: zeros
  std::vector<std::int64_t> row_places;
  std::vector<PackedRun> runs;            ///< zeros are left out
  std::vector<std::int64_t> tap_places;
  std::vector<std::int32_t> lanes;        ///< [vector][lane]: the one that goes there
  std::vector<std::int32_t> places;       ///< in the output, of each vector's first lane
  std::int64_t elements = 0;              ///< packed; zeros at first; 0: not worth while
};

FlatPlane flat_plane(const DensePhase& phase, std::int64_t lanes);

}  // namespace convolith
