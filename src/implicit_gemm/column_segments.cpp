#include "implicit_gemm/column_segments.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {
namespace {

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

std::vector<ColumnSegment> segments_inside(const AxisPhase& width, std::int64_t sources) {
  std::vector<Range> inside;
  std::vector<std::int64_t> cuts{0, width.count};
  for (const AxisPhase::Tap& tap : width.taps) {
    const std::int64_t begin =
        std::clamp<std::int64_t>(divide_up(-tap.offset, width.source_step), 0, width.count);
    const std::int64_t end =
        std::clamp(divide_up(sources - tap.offset, width.source_step), begin, width.count);
    inside.push_back({begin, end});
    cuts.insert(cuts.end(), {begin, end});
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());

  std::vector<ColumnSegment> segments;
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    ColumnSegment segment{{cuts[i - 1], cuts[i]}, {}};
    for (std::size_t t = 0; t < inside.size(); ++t) {
      if (inside[t].begin <= cuts[i - 1] && cuts[i] <= inside[t].end) {
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
  constexpr std::int64_t kIndependentPixels = 4;
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
