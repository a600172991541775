#include "implicit_gemm/column_segments.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {
namespace {

/// Those that find a tap inside a source of [0, sources).
Range destinations_inside(const AxisPhase& axis, const AxisPhase::Tap& tap, std::int64_t sources) {
  const std::int64_t begin =
      std::clamp<std::int64_t>(divide_up(-tap.offset, axis.source_step), 0, axis.count);
  return {begin, std::clamp(divide_up(sources - tap.offset, axis.source_step), begin, axis.count)};
}

ColumnSegment::Tap* find(ColumnSegment& segment, std::size_t index) {
  for (ColumnSegment::Tap& tap : segment.taps) {
    if (tap.index == index) return &tap;
  }
  return nullptr;
}

/// Joins a single column to its neighbour, if all its taps are the neighbour's too.
bool join(ColumnSegment& column, ColumnSegment& neighbour, unsigned edge) {
  if (column.columns.end - column.columns.begin != 1) return false;
  for (const ColumnSegment::Tap& tap : column.taps) {
    const ColumnSegment::Tap* same = find(neighbour, tap.index);
    if (same == nullptr || same->padded_edges != tap.padded_edges) return false;
  }
  const auto padded = [&](const ColumnSegment::Tap& tap) {
    return find(column, tap.index) == nullptr;
  };
  for (const ColumnSegment::Tap& tap : neighbour.taps) {
    if (padded(tap) && tap.padded_edges != 0) return false;
  }
  for (ColumnSegment::Tap& tap : neighbour.taps) {
    if (padded(tap)) tap.padded_edges = edge;
  }
  neighbour.columns.begin = std::min(neighbour.columns.begin, column.columns.begin);
  neighbour.columns.end = std::max(neighbour.columns.end, column.columns.end);
  return true;
}

}  // namespace

std::vector<ColumnSegment> whole_segment(const AxisPhase& width) {
  ColumnSegment segment{{0, width.count}, {}};
  for (std::size_t t = 0; t < width.taps.size(); ++t) segment.taps.push_back({t, 0});
  return {segment};
}

std::vector<Range> ranges_of_equal_taps(const AxisPhase& axis, std::int64_t sources) {
  std::vector<std::int64_t> cuts{0, axis.count};
  for (const AxisPhase::Tap& tap : axis.taps) {
    const Range inside = destinations_inside(axis, tap, sources);
    cuts.insert(cuts.end(), {inside.begin, inside.end});
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<Range> ranges;
  for (std::size_t i = 1; i < cuts.size(); ++i) ranges.push_back({cuts[i - 1], cuts[i]});
  return ranges;
}

std::vector<ColumnSegment> segments_inside(const AxisPhase& width, std::int64_t sources) {
  std::vector<ColumnSegment> segments;
  for (const Range& columns : ranges_of_equal_taps(width, sources)) {
    ColumnSegment segment{columns, {}};
    for (std::size_t t = 0; t < width.taps.size(); ++t) {
      const Range inside = destinations_inside(width, width.taps[t], sources);
      if (inside.begin <= columns.begin && columns.end <= inside.end) {
        segment.taps.push_back({t, 0});
      }
    }
    segments.push_back(std::move(segment));
  }
  if (segments.size() > 1 && join(segments[0], segments[1], kFirstPixel)) {
    segments.erase(segments.begin());
  }
  const std::size_t last = segments.size() - 1;
  if (last > 0 && join(segments[last], segments[last - 1], kLastPixel)) segments.pop_back();
  return segments;
}

double segment_products(const std::vector<ColumnSegment>& segments, int tile_pixels) {
  double products = 0;
  for (const ColumnSegment& segment : segments) {
    const std::int64_t columns = segment.columns.end - segment.columns.begin;
    const std::int64_t tiles = divide_up(columns, tile_pixels);
    products += static_cast<double>(std::max(columns, tiles * kIndependentPixels)) *
                static_cast<double>(segment.taps.size());
  }
  return products;
}

}  // namespace convolith
