#pragma once

#include <cstdint>
#include <vector>

#include "phases.hpp"
#include "runtime/threads.hpp"

namespace convolith {

/// Destination columns that have the same taps, save where the padding of one column at either end
/// takes some away.
struct ColumnSegment {
  struct Tap {
    std::size_t index;      ///< among the taps of the axis
    unsigned padded_edges;  ///< bits of kFirstPixel and kLastPixel
  };
  Range columns;
  std::vector<Tap> taps;
};

/// The destinations of an axis, cut where a tap comes to stand inside a source of [0, sources) or
/// leaves it.
std::vector<Range> ranges_of_equal_taps(const AxisPhase& axis, std::int64_t sources);

/// All columns with all taps: for sources that hold their padding.
std::vector<ColumnSegment> whole_segment(const AxisPhase& width);

/// Columns with the taps under which a source of [0, sources) stands.
std::vector<ColumnSegment> segments_inside(const AxisPhase& width, std::int64_t sources);

/// Pixels that a tile must have lest its multiply-adds wait for one another.
inline constexpr std::int64_t kIndependentPixels = 4;

/// Products of tiles of at most `tile_pixels` columns, a channel, in pixels of one tap. Small tiles
/// cost more than they hold.
double segment_products(const std::vector<ColumnSegment>& segments, int tile_pixels);

}  // namespace convolith
