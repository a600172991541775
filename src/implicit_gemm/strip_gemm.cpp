#include "implicit_gemm/strip_gemm.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"

namespace convolith {

StripAxis::StripAxis(std::vector<std::int64_t> offsets, std::int64_t source_step,
                     std::int64_t destinations)
    : offsets_(std::move(offsets)), source_step_(source_step) {
  std::sort(offsets_.begin(), offsets_.end());
  offsets_.erase(std::unique(offsets_.begin(), offsets_.end()), offsets_.end());
  const auto count = static_cast<std::int64_t>(offsets_.size());
  span_ = count > 0 ? offsets_.back() - offsets_.front() + 1 : 1;
  shared_ = (destinations - 1) * source_step + span_ <= destinations * count;
  step_ = shared_ ? source_step : std::max<std::int64_t>(count, 1);
  if (!shared_) span_ = std::max<std::int64_t>(count, 1);
}

std::int64_t StripAxis::place(std::int64_t offset) const noexcept {
  if (shared_) return offset - offsets_.front();
  return std::lower_bound(offsets_.begin(), offsets_.end(), offset) - offsets_.begin();
}

bool StripAxis::read_before(std::int64_t place, std::int64_t j) const noexcept {
  if (!shared_) return false;
  for (std::int64_t before = j - 1; before >= 0; --before) {
    const std::int64_t from_first = place - before * step_;
    if (from_first >= span_) return false;
    if (std::binary_search(offsets_.begin(), offsets_.end(), from_first + offsets_.front())) {
      return true;
    }
  }
  return false;
}

std::vector<StripAxis::Place> StripAxis::places(std::int64_t destinations) const {
  std::vector<Place> found;
  for (std::int64_t j = 0; j < destinations; ++j) {
    for (const std::int64_t offset : offsets_) {
      const std::int64_t at = j * step_ + place(offset);
      if (!read_before(at, j)) found.push_back({at, j * source_step_ + offset, j});
    }
  }
  return found;
}

template <class T>
StripGemm<T>::StripGemm(const ConvProblem& problem, const Machine& machine, int threads,
                        int tile_pixels, int column_unit, int panel_width)
    : problem_(problem),
      kernels_(kernels_for<T>(machine)),
      l2_bytes_(machine.l2_bytes),
      threads_(threads),
      tile_pixels_(tile_pixels),
      column_unit_(column_unit),
      panel_width_(panel_width),
      adjoint_(is_adjoint(problem)),
      channels_last_(problem.layout == Layout::channels_last) {
  reduced_ = adjoint_ ? problem.out_channels_per_group() : problem.in_channels_per_group();
  produced_ = adjoint_ ? problem.in_channels_per_group() : problem.out_channels_per_group();
  panels_ = divide_up(produced_, panel_width_);
  // pack_taps takes all reduced channels together, or in an adjoint one at a time.
  places_.assign(static_cast<std::size_t>(problem.taps()), -1);
  std::int64_t place = 0;
  for (Phase& phase : phases(problem)) {
    PhasePlan plan{std::move(phase), place * reduced_ * panel_width_};
    for_each_tap(plan.phase, problem, [&](std::int64_t, std::int64_t tap) {
      places_[static_cast<std::size_t>(tap)] = place++ * (adjoint_ ? reduced_ : 1);
    });
    phases_.push_back(std::move(plan));
  }
  panel_elements_ = place * reduced_ * panel_width_;
  sources_ = source_extents(problem);
  outputs_ = destination_extents(problem);
  pointwise_ = true;
  for (int axis = 0; axis < kSpatialAxes; ++axis) {
    destinations_[axis] = 0;
    for (const PhasePlan& plan : phases_) {
      const AxisPhase& phase = plan.phase.axes[axis];
      source_step_[axis] = phase.source_step;
      destinations_[axis] = std::max(destinations_[axis], phase.count);
      pointwise_ = pointwise_ && phase.source_step == 1 && phase.taps.size() == 1 &&
                   phase.taps[0].offset == 0 && phase.count <= sources_[axis];
    }
  }
  flatten();
  for (int axis = 0; axis < kSpatialAxes; ++axis) {
    std::vector<std::int64_t> offsets;
    for (const PhasePlan& plan : phases_) {
      for (const AxisPhase::Tap& tap : plan.phase.axes[axis].taps) offsets.push_back(tap.offset);
    }
    // A block has one depth, some rows, and tiles of columns.
    const std::int64_t typical[] = {1, 4, tile_pixels_};
    axes_[axis] = StripAxis(std::move(offsets), source_step_[axis],
                            std::min(destinations_[axis], typical[axis]));
  }
}

/// All pixels of a 1x1 kernel may be taken as one row.
template <class T>
void StripGemm<T>::flatten() {
  if (!pointwise_ || !phases_[0].phase.dense() || destinations_ != sources_) return;
  auto& axes = phases_[0].phase.axes;
  axes[2].count = phases_[0].phase.pixels();
  axes[0].count = axes[1].count = 1;
  destinations_ = sources_ = outputs_ = {1, 1, axes[2].count};
}

template <class T>
void StripGemm<T>::cut_blocks(std::int64_t budget) {
  constexpr std::int64_t kMostRows = 64;
  constexpr std::int64_t kMostTiles = 32;
  const std::int64_t planes = axes_[0].length(1);
  std::int64_t tiles = std::min(divide_up(destinations_[2], tile_pixels_), kMostTiles);
  const auto elements = [&](std::int64_t rows, std::int64_t columns) {
    return planes * axes_[1].length(rows) * row_elements(columns);
  };
  while (tiles > 1 && elements(1, tiles * tile_pixels_) > budget) tiles = divide_up(tiles, 2);
  block_columns_ = std::max<std::int64_t>(1, std::min(destinations_[2], tiles * tile_pixels_));
  while (block_rows_ < std::min(destinations_[1], kMostRows) && block_rows_ * tiles < kMostTiles &&
         elements(block_rows_ + 1, block_columns_) <= budget) {
    ++block_rows_;
  }
  strip_row_elements_ = row_elements(block_columns_);
  rows_ = axes_[1].places(block_rows_);
  // What fits beside everything else into L2 is packed there sooner than it is fetched from another
  // core's.
  packs_for_itself_ = adjoint_ && packed_bytes() <= l2_bytes_ / 2;
  parts_ = choose_parts();
  // A thread that is done takes over pieces of other parts, which are whole blocks.
  constexpr std::int64_t kMostPieces = 8;
  const std::int64_t rows = problem_.batch * destinations_[0] * destinations_[1] / parts_.rows;
  pieces_.rows = static_cast<int>(std::clamp<std::int64_t>(rows / block_rows_, 1, kMostPieces));
  pieces_.columns = static_cast<int>(std::clamp<std::int64_t>(
      destinations_[2] / parts_.columns / block_columns_, 1, kMostPieces / pieces_.rows));
  piece_columns_ = divide_up(block_columns_, column_unit_);
  if (parts_.count() > threads_) {
    pieces_ = {1, 2};
    piece_columns_ = divide_up(divide_up(destinations_[2], column_unit_), std::int64_t{2});
  }
}

/// The cut whose largest part is smallest, in products of a pixel with a panel. A pixel's strips,
/// where they are packed, cost as much as one, else a quarter of that to read, and half of it where
/// threads write to the same pixels; fetching a panel of weights as much as its product with a
/// tile, or with kFar tiles where all of them outgrow L2; in channels_first a line of the output
/// that two threads write as much as kLine terms.
/// Panels that threads cannot share evenly may be parts of their own, for which threads go in
/// halves.
template <class T>
typename StripGemm<T>::Parts StripGemm<T>::choose_parts() const noexcept {
  constexpr double kLine = 150, kFar = 4;
  const std::int64_t rows = problem_.batch * destinations_[0] * destinations_[1];
  const std::int64_t columns = divide_up(destinations_[2], column_unit_);
  const auto terms = static_cast<double>(std::max<std::int64_t>(1, panel_elements_ / panel_width_));
  const double fetch = tile_pixels_ * (packed_bytes() > l2_bytes_ ? kFar : 1.0);
  // Of a thread: pixels, panels that it multiplies with and panels that it fetches.
  const auto cost_of = [&](double pixels, double panels, double fetched, bool shares_pixels,
                           double lines) {
    return pixels * panels + fetched * fetch + (in_place_ ? pixels / 4 : pixels) +
           (shares_pixels ? pixels / 2 : 0) + lines * kLine / terms;
  };
  Parts best;
  double best_cost = -1;
  for (int g = 1; g <= std::min<std::int64_t>(threads_, problem_.groups); ++g) {
    for (int c = 1; c * g <= threads_; ++c) {
      for (int r = 1; r * c * g <= threads_; ++r) {
        const auto p = static_cast<int>(std::min<std::int64_t>(threads_ / (g * r * c), panels_));
        const auto share_rows = static_cast<double>(divide_up(rows, r));
        const double pixels = share_rows *
                              static_cast<double>(divide_up(columns, c) * column_unit_);
        const auto channels =
            static_cast<double>(std::min(produced_, divide_up(panels_, p) * panel_width_));
        const double panels = channels / panel_width_;
        const double lines = c > 1 && !channels_last_ ? share_rows * channels : 0;
        const double cost = static_cast<double>(divide_up(problem_.groups, g)) *
                            cost_of(pixels, panels, panels, channels_last_ && p > 1, lines);
        if (best_cost < 0 || cost < best_cost) {
          best_cost = cost;
          best = {g, r, c, p};
        }
      }
    }
  }
  if (!in_place_ || channels_last_ || packs_for_itself_ || panels_ <= threads_) return best;
  const double pixels = static_cast<double>(rows * columns * column_unit_);
  const double panels = static_cast<double>(divide_up(2 * panels_, threads_)) / 2;
  const double lines = static_cast<double>(rows * panel_width_);
  const double cost = static_cast<double>(problem_.groups) *
                      cost_of(pixels, panels, panels + 1, false, lines);
  if (cost < best_cost) best = {1, 1, 1, static_cast<int>(panels_)};
  return best;
}

template <class T>
std::size_t StripGemm<T>::thread_bytes() const noexcept {
  const std::int64_t strips =
      in_place_ ? 0 : axes_[0].length(1) * strip_rows() * strip_row_elements();
  return aligned_bytes<T>(strips) + extra_bytes();
}

template <class T>
std::size_t StripGemm<T>::workspace_bytes() const noexcept {
  return thread_bytes() * static_cast<std::size_t>(std::min(threads_, parts_.count()));
}

template <class T>
std::size_t StripGemm<T>::packed_bytes() const noexcept {
  return static_cast<std::size_t>(problem_.groups * panels_ * panel_elements_) * sizeof(T);
}

template <class T>
std::size_t StripGemm<T>::unpacked_workspace_bytes() const noexcept {
  if (!packs_for_itself_) return 0;
  return workspace_bytes() +
         packed_bytes() * static_cast<std::size_t>(std::min(threads_, parts_.count()));
}

template <class T>
void StripGemm<T>::pack(const void* weight, void* packed) const noexcept {
  parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
    pack_panel(static_cast<const T*>(weight), index, static_cast<T*>(packed));
  });
}

/// Panels [group][panel][phase][tap][reduced channel][lane].
template <class T>
void StripGemm<T>::pack_panel(const T* weight, std::int64_t index, T* packed) const noexcept {
  const std::int64_t taps = problem_.taps();
  const std::int64_t out_stride = taps * problem_.in_channels_per_group();
  const int width = panel_width_;
  const Range channels = panel_channels(index % panels_);
  const auto valid = static_cast<int>(channels.end - channels.begin);
  const T* from = weight + index / panels_ * problem_.out_channels_per_group() * out_stride +
                  channels.begin * (adjoint_ ? taps : out_stride);
  T* panel = packed + index * panel_elements_;
  if (!adjoint_) {
    kernels_.pack_taps(width, valid, from, out_stride, reduced_, taps, places_.data(), panel);
    return;
  }
  if (taps == 1) {
    if (places_[0] >= 0) kernels_.pack_panel(width, valid, reduced_, from, 1, out_stride, panel);
    return;
  }
  // Reduced channels lie too far apart for hardware prefetchers.
  constexpr std::int64_t kAhead = 2, kLine = kAlignment / sizeof(T);
  for (std::int64_t c = 0; c < reduced_; ++c, from += out_stride, panel += width) {
    for (std::int64_t i = 0; c + kAhead < reduced_ && i < valid * taps; i += kLine) {
      __builtin_prefetch(from + kAhead * out_stride + i);
    }
    kernels_.pack_taps(width, valid, from, taps, 1, taps, places_.data(), panel);
  }
}

template <class T>
std::int64_t StripGemm<T>::strip_at(std::int64_t depth_offset,
                                    std::int64_t row_place) const noexcept {
  return (axes_[0].place(depth_offset) * strip_rows() + row_place) * strip_row_elements();
}

template <class T>
Range StripGemm<T>::taps_inside(const Phase& phase, int axis, std::int64_t j) const noexcept {
  const auto& taps = phase.axes[axis].taps;
  Range range{0, static_cast<std::int64_t>(taps.size())};
  if (problem_.padding_mode != PaddingMode::zeros) return range;
  while (range.begin < range.end && !inside(axis, j, taps[range.begin].offset)) ++range.begin;
  while (range.end > range.begin && !inside(axis, j, taps[range.end - 1].offset)) --range.end;
  return range;
}

template <class T>
std::int64_t StripGemm<T>::output_pixel(const Phase& phase, std::int64_t depth, std::int64_t row,
                                        std::int64_t column) const noexcept {
  const auto& [d, h, w] = phase.axes;
  return ((d.begin + depth * d.step) * outputs_[1] + h.begin + row * h.step) * outputs_[2] +
         w.begin + column * w.step;
}

template <class T>
void StripGemm<T>::run(const ConvArguments& arguments, const void* packed,
                       void* workspace) const noexcept {
  const Call call{typed<T>(adjoint_ ? arguments.y : arguments.x),
                  typed<T>(adjoint_ ? arguments.x : arguments.y),
                  BoundEpilogue<T>(problem_, arguments), static_cast<const T*>(packed)};
  const int threads = std::min(threads_, parts_.count());
  const auto scratch_of = [&](int thread) {
    return static_cast<std::byte*>(workspace) + thread_bytes() * thread;
  };
  const auto run_piece = [&](const Call& bound, std::int64_t index, int thread) {
    const auto part = static_cast<int>(index / pieces_.count());
    const auto piece = static_cast<int>(index % pieces_.count());
    run_part(bound, piece_of(ranges_of(part), piece), scratch_of(thread));
  };
  const std::int64_t pieces = std::int64_t{parts_.count()} * pieces_.count();
  if (packed != nullptr) {
    parallel_for(threads, pieces,
                 [&](std::int64_t index, int thread) { run_piece(call, index, thread); });
    return;
  }
  // Where parts differ in weights, a thread packs those of its own parts and keeps to these.
  const bool alike = parts_.groups * parts_.panels == 1;
  SharedIndices shared(pieces, 1, threads, false);
  parallel(threads, [&](int thread, int team) {
    Call own = call;
    T* panels = reinterpret_cast<T*>(static_cast<std::byte*>(workspace) + workspace_bytes() +
                                     packed_bytes() * static_cast<std::size_t>(thread));
    own.packed = panels;
    for (int part = thread; part < parts_.count(); part += team) {
      const PartRanges ranges = ranges_of(part);
      for (std::int64_t group = ranges.groups.begin; group < ranges.groups.end; ++group) {
        for (std::int64_t p = ranges.panels.begin; p < ranges.panels.end; ++p) {
          pack_panel(static_cast<const T*>(arguments.weight), group * panels_ + p, panels);
        }
      }
      if (alike) break;
    }
    if (alike) {
      shared.for_each_taken(thread, [&](const Range& range) {
        for (std::int64_t i = range.begin; i < range.end; ++i) run_piece(own, i, thread);
      });
      return;
    }
    for (int part = thread; part < parts_.count(); part += team) {
      run_part(own, ranges_of(part), scratch_of(thread));
    }
  });
}

template <class T>
typename StripGemm<T>::PartRanges StripGemm<T>::ranges_of(int part) const noexcept {
  PartRanges ranges{};
  ranges.panels = Range::share(panels_, part % parts_.panels, parts_.panels);
  part /= parts_.panels;
  ranges.columns = Range::share(divide_up(destinations_[2], column_unit_), part % parts_.columns,
                                parts_.columns);
  part /= parts_.columns;
  ranges.rows = Range::share(problem_.batch * destinations_[0] * destinations_[1],
                             part % parts_.rows, parts_.rows);
  ranges.groups = Range::share(problem_.groups, part / parts_.rows, parts_.groups);
  return ranges;
}

template <class T>
typename StripGemm<T>::PartRanges StripGemm<T>::piece_of(const PartRanges& part,
                                                         int piece) const noexcept {
  const auto cut = [](const Range& whole, std::int64_t block, int number, int count) {
    const std::int64_t blocks = divide_up(whole.end - whole.begin, block);
    const Range share = Range::share(blocks, number, count);
    return Range{std::min(whole.end, whole.begin + share.begin * block),
                 std::min(whole.end, whole.begin + share.end * block)};
  };
  PartRanges ranges = part;
  ranges.rows = cut(part.rows, block_rows_, piece % pieces_.rows, pieces_.rows);
  ranges.columns = cut(part.columns, piece_columns_, piece / pieces_.rows, pieces_.columns);
  return ranges;
}

template <class T>
void StripGemm<T>::run_part(const Call& call, const PartRanges& ranges,
                            std::byte* scratch) const noexcept {
  const auto& [groups, rows, columns, panels] = ranges;
  const std::int64_t column_end = std::min(destinations_[2], columns.end * column_unit_);
  T* strips = in_place_ ? nullptr : reinterpret_cast<T*>(scratch);
  std::byte* extra = scratch + thread_bytes() - extra_bytes();
  for (std::int64_t group = groups.begin; group < groups.end; ++group) {
    for (std::int64_t row = rows.begin; row < rows.end;) {
      Block block{group,
                  row / destinations_[1] / destinations_[0],
                  row / destinations_[1] % destinations_[0],
                  row % destinations_[1],
                  0,
                  0,
                  0};
      block.row_end =
          std::min({destinations_[1], block.row + block_rows_, block.row + rows.end - row});
      row += block.row_end - block.row;
      for (block.column = columns.begin * column_unit_; block.column < column_end;
           block.column = block.column_end) {
        block.column_end = std::min(column_end, block.column + block_columns_);
        if (!in_place_) pack_strips(call, block, strips);
        multiply(call, block, strips, panels, extra);
      }
    }
  }
  if (past_caches_) kernels_.drain_streams();
}

template <class T>
void StripGemm<T>::pack_strips(const Call& call, const Block& block, T* strips) const noexcept {
  const Maps<T>& source = call.source;
  const T* base = source.sample(block.sample, block.group * reduced_);
  for (const std::int64_t depth_offset : axes_[0].offsets()) {
    const std::int64_t plane = padded_source(block.depth * source_step_[0] + depth_offset,
                                             sources_[0], problem_.padding_mode);
    for (const auto& [place, source_row, destination] : rows_) {
      if (destination >= block.row_end - block.row) break;
      const std::int64_t line = padded_source(block.row * source_step_[1] + source_row, sources_[1],
                                              problem_.padding_mode);
      const T* from = plane < 0 || line < 0
                          ? nullptr
                          : base + (plane * sources_[1] + line) * sources_[2] * source.pixel_stride;
      pack_strip(source, from, block.column, block.column_end - block.column,
                 strips + strip_at(depth_offset, place));
    }
  }
}

template class StripGemm<float>;
template class StripGemm<double>;

}  // namespace convolith
