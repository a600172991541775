#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/column_sums_table.hpp"
#include "packed_rows.hpp"
#include "runtime/range.hpp"

namespace convolith {

/// What ColumnSums wants to know of a phase, and how its outputs are cut into pieces: some
/// vectors of a plane each.
class ColumnSumsTables {
 public:
  /// Pixels lie `step` elements apart: as many channels take turns.
  ColumnSumsTables(const DensePhase& phase, std::int64_t lanes, std::int64_t step = 1);

  std::int64_t pieces() const noexcept { return depth_ * plane_pieces_; }

  /// Distance of a piece's plane from the first one of its channel.
  std::int64_t output_place(std::int64_t piece) const noexcept {
    return piece / plane_pieces_ * pixels_;
  }

  /// The elements of a piece, in its plane; whole pixels.
  Range output_range(std::int64_t piece) const noexcept;

  /// Vectors after which the same channel begins one.
  std::int64_t turns() const noexcept { return turns_; }

  template <class T>
  void fill(std::int64_t piece, ColumnSums<T>& sums) const noexcept {
    const std::int64_t d = piece / plane_pieces_;
    sums.planes = planes_.data() + plane_begins_[d];
    sums.plane_taps = plane_taps_.data() + plane_begins_[d];
    sums.plane_count = plane_begins_[d + 1] - plane_begins_[d];
    const Range vectors = vectors_of(piece);
    sums.begin = vectors.begin;
    sums.end = vectors.end;
    sums.columns = columns_;
    sums.first_row = first_row_;
    sums.inner_begin = inner_.begin;
    sums.inner_end = inner_.end;
    sums.rows_inside = rows_inside_.data();
    sums.columns_inside = columns_inside_.data();
    sums.period = period_;
    sums.pixels = pixels_;
    sums.turns = turns_;
    sums.beside = beside_.data();
  }

 private:
  Range vectors_of(std::int64_t piece) const noexcept {
    const std::int64_t begin = piece % plane_pieces_ * piece_vectors_;
    return {begin, std::min(begin + piece_vectors_, vectors_)};
  }

  std::int64_t lanes_, depth_;  ///< depth_: planes of the output
  std::int64_t columns_, first_row_, pixels_, period_, vectors_;
  std::int64_t piece_vectors_, plane_pieces_, turns_;
  Range inner_{};
  std::vector<std::int64_t> planes_, plane_taps_, plane_begins_;  ///< begins: of each depth
  std::vector<std::uint16_t> rows_inside_, columns_inside_;
  std::vector<std::int32_t> beside_;
};

}  // namespace convolith
