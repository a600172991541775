#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "depthwise/depthwise.hpp"

namespace convolith {

/// Columns of the source for every step of every class of output columns, or -1.
struct RollColumns {
  std::vector<std::int64_t> columns;
  std::vector<std::int64_t> class_begins;

  RollColumns() = default;
  explicit RollColumns(const DenseAxis& width) {
    for (std::int64_t a = 0; a < width.classes(); ++a) {
      class_begins.push_back(static_cast<std::int64_t>(columns.size()));
      const std::int64_t steps = width.steps(width.count(a));
      for (std::int64_t j = 0; j < steps; ++j) columns.push_back(width.source(a, j));
      // The last outputs take as many steps as the others.
      columns.insert(columns.end(), static_cast<std::size_t>(width.stride() - 1), -1);
    }
  }
};

/// A thread's lists of what a kernel reads, in its workspace.
template <class T>
struct SourceLists {
  const T** pointers;                ///< to pixels, or to rows
  std::int64_t* weights;             ///< offsets
  const std::int64_t** row_columns;  ///< of each row, `columns` or `no_columns`
  std::int64_t* columns;             ///< offsets of pixels from the begin of a row
  std::int64_t* no_columns;          ///< zeros

  /// How long each of them may be.
  struct Lengths {
    std::int64_t pointers = 0, weights = 0, columns = 0;

    std::size_t bytes() const noexcept {
      return aligned_bytes<const T*>(pointers) + aligned_bytes<std::int64_t>(weights) +
             aligned_bytes<const std::int64_t*>(pointers) +
             2 * aligned_bytes<std::int64_t>(columns);
    }
  };

  SourceLists(std::byte* at, const Lengths& lengths) noexcept {
    pointers = reinterpret_cast<const T**>(at);
    at += aligned_bytes<const T*>(lengths.pointers);
    weights = reinterpret_cast<std::int64_t*>(at);
    at += aligned_bytes<std::int64_t>(lengths.weights);
    row_columns = reinterpret_cast<const std::int64_t**>(at);
    at += aligned_bytes<const std::int64_t*>(lengths.pointers);
    columns = reinterpret_cast<std::int64_t*>(at);
    no_columns = reinterpret_cast<std::int64_t*>(at + aligned_bytes<std::int64_t>(lengths.columns));
  }

  void list_columns(const RollColumns& roll, std::int64_t pixel_stride) const noexcept {
    for (std::size_t j = 0; j < roll.columns.size(); ++j) {
      columns[j] = roll.columns[j] < 0 ? -1 : roll.columns[j] * pixel_stride;
      no_columns[j] = 0;
    }
  }
};

/// Sums a few output rows of a phase, for which `p` names the weights, the channels and how the
/// output lies. The lists have their columns; source_row(plane, step) is a row of the source, null
/// in zero padding, and output(a) the place of the rows' first output of class a.
template <class T, class SourceRow, class Output>
void roll_rows(const DepthwiseKernels<T>& kernels, const DepthwisePhase<T>& plan,
               const RollColumns& columns, const SourceLists<T>& lists, const T* zeros,
               std::int64_t lanes, std::int64_t d, const Strip& rows, DepthwiseRoll<T> p,
               const SourceRow& source_row, const Output& output) noexcept {
  p.rows = lists.pointers;
  p.row_columns = lists.row_columns;
  p.columns = lists.columns;
  p.plane_rows = plan.height.steps(rows.count);
  p.plane_weights = lists.weights;
  p.planes = 0;
  std::int64_t listed = 0;
  for (std::int64_t z = 0; z < plan.depth.taps(); ++z) {
    const std::int64_t plane = plan.depth.source(d, z);
    if (plane < 0) continue;
    lists.weights[p.planes++] = z * plan.plane_taps() * lanes;
    for (std::int64_t i = 0; i < p.plane_rows; ++i) {
      const T* row = source_row(plane, i);
      lists.pointers[listed] = row != nullptr ? row : zeros;
      lists.row_columns[listed++] = row != nullptr ? lists.columns : lists.no_columns;
    }
  }
  p.stride = static_cast<int>(plan.width.stride());
  p.output_rows = static_cast<int>(rows.count);
  p.vector_weights = plan.phase.taps() * lanes;
  for (std::int64_t a = 0; a < plan.width.classes(); ++a) {
    p.first_column = columns.class_begins[a];
    p.output_columns = plan.width.count(a);
    p.output = output(a);
    kernels.roll(p, plan.kernel);
  }
}

}  // namespace convolith
