#include "packed_rows.hpp"

#include <algorithm>
#include <numeric>

#include "arithmetic.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"

namespace convolith {

DenseAxis::DenseAxis(const AxisPhase& phase, std::int64_t extent, PaddingMode mode)
    : phase_(phase), extent_(extent), mode_(mode) {
  gap_ = taps() > 1 ? phase.taps[1].offset - phase.taps[0].offset : 1;
  const std::int64_t common = std::gcd(gap_, phase.source_step);
  classes_ = gap_ / common;
  stride_ = phase.source_step / common;
  shared_ = stride_ <= taps();
  if (!shared_) stride_ = taps();
}

std::int64_t DenseAxis::classes() const noexcept { return std::min(classes_, phase_.count); }

std::int64_t DenseAxis::count(std::int64_t a) const noexcept {
  return divide_up(phase_.count - a, classes_);
}

std::int64_t DenseAxis::coordinate(std::int64_t first, std::int64_t step) const noexcept {
  std::int64_t tap = step;
  if (!shared_) {
    first += step / taps() * classes_;
    tap = step % taps();
  }
  return first * phase_.source_step + tap * gap_ + phase_.taps[0].offset;
}

std::int64_t DenseAxis::source(std::int64_t first, std::int64_t step) const noexcept {
  return padded_source(coordinate(first, step), extent_, mode_);
}

bool DenseAxis::inside(std::int64_t first, std::int64_t destinations) const noexcept {
  const std::int64_t last = first + (destinations - 1) * classes_;
  return taps() > 0 && coordinate(first, 0) >= 0 &&
         last * phase_.source_step + phase_.taps.back().offset < extent_;
}

std::vector<Strip> strips(const DenseAxis& axis, std::int64_t most) {
  std::vector<Strip> result;
  for (std::int64_t a = 0; a < axis.classes(); ++a) {
    const std::int64_t count = axis.count(a);
    const auto parts = static_cast<int>(divide_up(count, most));
    for (int part = 0; part < parts; ++part) {
      const Range range = Range::share(count, part, parts);
      result.push_back({a + range.begin * axis.class_step(), range.end - range.begin});
    }
  }
  return result;
}

DensePhase::DensePhase(const Phase& p,
                       const std::array<std::int64_t, kSpatialAxes>& source_extents,
                       PaddingMode padding_mode)
    : phase(p),
      extents(source_extents),
      mode(padding_mode),
      depth(p.axes[0], source_extents[0], padding_mode),
      height(p.axes[1], source_extents[1], padding_mode),
      width(p.axes[2], source_extents[2], padding_mode) {}

namespace {

/// Columns of one residue of the stride: source columns first + n * stride for n < count stand
/// at packed[place + n].
struct Residue {
  std::int64_t number, place, count;
};

std::int64_t from_first(const AxisPhase& width, const AxisPhase::Tap& tap) {
  return tap.offset - width.taps[0].offset;
}

Residue& residue_of(std::vector<Residue>& residues, std::int64_t number) {
  for (Residue& residue : residues) {
    if (residue.number == number) return residue;
  }
  residues.push_back({number, 0, 0});
  return residues.back();
}

/// The residues that the taps of a row of `columns` outputs read.
std::vector<Residue> residues_of(const AxisPhase& width, std::int64_t columns) {
  std::vector<Residue> result;
  for (const AxisPhase::Tap& tap : width.taps) {
    const std::int64_t distance = from_first(width, tap);
    Residue& residue = residue_of(result, distance % width.source_step);
    residue.count = std::max(residue.count, columns + distance / width.source_step);
  }
  return result;
}

/// Inner columns first: kernels write zeros beyond their end.
void list_runs(const DensePhase& phase, const Residue& residue, std::int64_t first_output,
               std::int64_t count, bool with_zeros, std::vector<PackedRun>& runs) {
  const AxisPhase& width = phase.phase.axes[2];
  const std::int64_t extent = phase.extents[2];
  const std::int64_t step = width.source_step;
  const std::int64_t first = first_output * step + width.taps[0].offset + residue.number;
  const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-first, step), 0, count);
  const std::int64_t end = std::clamp<std::int64_t>(divide_up(extent - first, step), begin, count);
  if (begin < end) runs.push_back({residue.place + begin, first + begin * step, step, end - begin});
  const auto border = [&](std::int64_t from, std::int64_t to) {
    if (phase.mode == PaddingMode::zeros) {
      if (from < to && with_zeros) runs.push_back({residue.place + from, -1, 1, to - from});
      return;
    }
    for (std::int64_t n = from; n < to; ++n) {
      const std::int64_t column = padded_source(first + n * step, extent, phase.mode);
      runs.push_back({residue.place + n, column, 1, 1});
    }
  };
  border(end, count);
  border(0, begin);
}

}  // namespace

RowPacking row_packing(const DensePhase& phase, std::int64_t lanes) {
  constexpr std::int64_t kMostColumns = 4096;
  const AxisPhase& width = phase.phase.axes[2];
  const auto blocks = static_cast<int>(divide_up(width.count, kMostColumns));
  const std::int64_t most = divide_up(width.count, blocks);
  RowPacking packing{};
  std::vector<Residue> residues = residues_of(width, most);
  for (Residue& residue : residues) {
    // The first column that exists is aligned.
    const std::int64_t border = std::clamp<std::int64_t>(
        divide_up(-(width.taps[0].offset + residue.number), width.source_step), 0, residue.count);
    residue.place = round_up(packing.stride + border, lanes) - border;
    packing.stride = residue.place + residue.count + lanes;
  }
  packing.stride = round_up(packing.stride, lanes);
  for (const AxisPhase::Tap& tap : width.taps) {
    const std::int64_t distance = from_first(width, tap);
    packing.tap_columns.push_back(residue_of(residues, distance % width.source_step).place +
                                  distance / width.source_step);
  }
  for (int n = 0; n < blocks; ++n) {
    const Range range = Range::share(width.count, n, blocks);
    const std::int64_t columns = range.end - range.begin;
    const std::size_t begin = packing.runs.size();
    for (const Residue& residue : residues) {
      list_runs(phase, residue, range.begin, residue.count - (most - columns), blocks > 1,
                packing.runs);
    }
    packing.blocks.push_back({range.begin, columns, begin, packing.runs.size() - begin});
  }
  return packing;
}

RowPacking rows_in_place(const DensePhase& phase) {
  const AxisPhase& width = phase.phase.axes[2];
  RowPacking packing{};
  packing.blocks.push_back({0, width.count, 0, 0});
  for (const AxisPhase::Tap& tap : width.taps) packing.tap_columns.push_back(tap.offset);
  return packing;
}

FlatPlane flat_plane(const DensePhase& phase, std::int64_t lanes) {
  constexpr std::int64_t kMostTaps = 64;
  const auto& axes = phase.phase.axes;
  const std::int64_t columns = axes[2].count;
  const std::int64_t rows = axes[1].count;
  FlatPlane flat;
  if (phase.phase.taps() == 0 || phase.phase.taps() > kMostTaps || !phase.phase.dense()) return flat;
  if (axes[0].count != 1 || phase.depth.taps() != 1 || phase.depth.source(0, 0) < 0) return flat;
  if (phase.height.class_step() != 1 || columns > 2 * lanes || rows > 2 * lanes) return flat;
  std::vector<Residue> residues = residues_of(axes[2], columns);
  std::int64_t pitch = 0;
  for (const Residue& residue : residues) pitch = std::max(pitch, residue.count);
  const std::int64_t vectors = divide_up((rows - 1) * pitch + columns, lanes);
  // Its loads are not shared between rows, and lanes must be moved: it has to save a third.
  if (3 * vectors >= 2 * rows * divide_up(columns, lanes)) return flat;

  // [residue of the row's step][residue of the column][row][pitch]
  const std::int64_t stride = phase.height.stride();
  const std::int64_t steps = phase.height.steps(rows);
  const std::int64_t plane = divide_up(steps, stride) * pitch + 2 * lanes;
  const auto count = static_cast<std::int64_t>(residues.size());
  const auto row_place = [&](std::int64_t step) {
    return step % stride * count * plane + step / stride * pitch;
  };
  for (std::int64_t i = 0; i < count; ++i) residues[i].place = i * plane;
  for (const Residue& residue : residues) {
    list_runs(phase, residue, 0, residue.count, false, flat.runs);
  }
  for (std::int64_t i = 0; i < steps; ++i) {
    const std::int64_t h = phase.height.source(0, i);
    flat.row_sources.push_back(
        h < 0 ? -1 : (phase.depth.source(0, 0) * phase.extents[1] + h) * phase.extents[2]);
    flat.row_places.push_back(row_place(i));
  }
  for (std::int64_t h = 0; h < phase.height.taps(); ++h) {
    for (const AxisPhase::Tap& tap : axes[2].taps) {
      const std::int64_t distance = from_first(axes[2], tap);
      flat.tap_places.push_back(row_place(h) +
                                residue_of(residues, distance % axes[2].source_step).place +
                                distance / axes[2].source_step);
    }
  }
  std::int32_t outputs = 0;
  for (std::int64_t v = 0; v < vectors; ++v) {
    flat.places.push_back(outputs);
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      const std::int64_t at = v * lanes + lane;
      if (at / pitch >= rows || at % pitch >= columns) continue;
      flat.lanes.push_back(static_cast<std::int32_t>(lane));
      ++outputs;
    }
    flat.lanes.resize(static_cast<std::size_t>((v + 1) * lanes), 0);
  }
  flat.elements = stride * count * plane + vectors * lanes;
  return flat;
}

}  // namespace convolith
