#include "column_sums/tables.hpp"

#include <algorithm>
#include <numeric>

#include "arithmetic.hpp"

namespace convolith {
namespace {

template <class Condition>
std::uint16_t lanes_where(std::int64_t lanes, const Condition& holds) {
  unsigned bits = 0;
  for (std::int64_t lane = 0; lane < lanes; ++lane) bits |= (holds(lane) ? 1u : 0u) << lane;
  return static_cast<std::uint16_t>(bits);
}

}  // namespace

ColumnSumsTables::ColumnSumsTables(const DensePhase& phase, std::int64_t lanes, std::int64_t step)
    : lanes_(lanes),
      depth_(phase.phase.axes[0].count),
      columns_(phase.extents[2] * step),
      first_row_(phase.phase.axes[1].taps[0].offset * columns_),
      pixels_(phase.phase.axes[1].count * columns_),
      period_(columns_ / std::gcd(columns_, lanes)),
      vectors_(divide_up(pixels_, lanes)),
      turns_(step / std::gcd(step, lanes)) {
  constexpr std::int64_t kPieceVectors = 512;
  piece_vectors_ = round_up(divide_up(vectors_, divide_up(vectors_, kPieceVectors)), step);
  plane_pieces_ = divide_up(vectors_, piece_vectors_);
  const std::int64_t kernel = phase.width.taps();

  // Under kernel row i, vector v reads pixels first_row + (v * lanes + i * columns) and on.
  const std::int64_t source_pixels = phase.extents[1] * columns_;
  inner_.begin = std::clamp<std::int64_t>(divide_up(-first_row_, lanes), 0, vectors_);
  const std::int64_t last_row = first_row_ + (kernel - 1) * columns_;
  inner_.end = std::clamp<std::int64_t>((source_pixels - last_row) / lanes, inner_.begin, vectors_);
  for (std::int64_t v = 0; v < vectors_; ++v) {
    if (v == inner_.begin) v = inner_.end;
    if (v == vectors_) break;
    for (std::int64_t i = 0; i < kernel; ++i) {
      const std::int64_t first = first_row_ + v * lanes + i * columns_;
      rows_inside_.push_back(lanes_where(lanes, [&](std::int64_t lane) {
        return first + lane >= 0 && first + lane < source_pixels;
      }));
    }
  }

  for (std::int64_t v = 0; v < period_; ++v) {
    for (std::int64_t j = 0; j < kernel; ++j) {
      columns_inside_.push_back(lanes_where(lanes, [&](std::int64_t lane) {
        const std::int64_t column = (v * lanes + lane) % columns_ + (j - kernel / 2) * step;
        return column >= 0 && column < columns_;
      }));
    }
  }

  for (std::int64_t j = 0; j < kernel; ++j) {
    const std::int64_t distance = (j - kernel / 2) * step;
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      // Of two vectors the second one has what stands to the left, the first what is right of it.
      const std::int64_t place = lane + distance + (distance < 0 ? lanes : 0);
      beside_.push_back(static_cast<std::int32_t>(place));
    }
  }

  for (std::int64_t d = 0; d < depth_; ++d) {
    plane_begins_.push_back(static_cast<std::int64_t>(planes_.size()));
    for (std::int64_t z = 0; z < phase.depth.taps(); ++z) {
      const std::int64_t plane = phase.depth.source(d, z);
      if (plane < 0) continue;
      planes_.push_back(plane * source_pixels);
      plane_taps_.push_back(z * phase.plane_taps());
    }
  }
  plane_begins_.push_back(static_cast<std::int64_t>(planes_.size()));
}

Range ColumnSumsTables::output_range(std::int64_t piece) const noexcept {
  const Range vectors = vectors_of(piece);
  return {vectors.begin * lanes_, std::min(vectors.end * lanes_, pixels_)};
}

}  // namespace convolith
