#include "implicit_gemm/pixel_lanes.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"

namespace convolith {

template <class T>
PixelLanes<T>::PixelLanes(const ConvProblem& problem, const Machine& machine, int threads)
    : problem_(problem),
      kernels_(kernels_for<T>(machine)),
      threads_(threads),
      adjoint_(problem.direction == Direction::backward_input) {
  reduced_ = adjoint_ ? problem.out_channels_per_group() : problem.in_channels_per_group();
  produced_ = adjoint_ ? problem.in_channels_per_group() : problem.out_channels_per_group();
  panels_ = divide_up(produced_, kernels_.tile_rows);

  // A tile's patches take at most two thirds of L1, those of a block a quarter of L2.
  const auto patch_row_bytes = static_cast<std::int64_t>(kernels_.tile_columns * sizeof(T));
  const std::int64_t k_most = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(machine.l1_bytes) * 2 / 3 / patch_row_bytes, 64, kMaxChain);
  std::int64_t most_reduction = 0, k_block = 0;
  bool dense = true;
  for (Phase& phase : phases(problem, adjoint_)) {
    PhasePlan plan = plan_phase(std::move(phase), k_most);
    plan.packed_begin = packed_elements_;
    packed_elements_ += problem.groups * panels_ * plan.reduction * kernels_.tile_rows;
    k_block = std::max(k_block, divide_up(plan.reduction, plan.k_blocks));
    most_reduction = std::max(most_reduction, plan.reduction);
    dense = plan.phase.dense();
    phases_.push_back(std::move(plan));
  }
  panel_elements_ = std::max<std::int64_t>(1, kernels_.tile_columns * k_block);
  block_tiles_ = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T)) / panel_elements_, 1, kMostTiles);
  patches_bytes_ = aligned_bytes<T>(block_tiles_ * panel_elements_);
  offsets_bytes_ = aligned_bytes<std::int64_t>(most_reduction);
  scatter_bytes_ =
      dense ? 0 : aligned_bytes<T>(produced_ * block_tiles_ * kernels_.tile_columns);
  parts_ = choose_parts();
}

template <class T>
std::size_t PixelLanes<T>::workspace_bytes() const noexcept {
  return thread_bytes() * static_cast<std::size_t>(std::min(threads_, parts_.count()));
}

template <class T>
std::size_t PixelLanes<T>::packed_bytes() const noexcept {
  return static_cast<std::size_t>(packed_elements_) * sizeof(T);
}

/// Panels [phase][group][panel][tap][reduced channel][lane].
template <class T>
void PixelLanes<T>::pack(const void* weight, void* packed) const noexcept {
  const std::int64_t taps = problem_.taps();
  const std::int64_t in_stride = taps;
  const std::int64_t out_stride = taps * problem_.in_channels_per_group();
  const std::int64_t lane_stride = adjoint_ ? in_stride : out_stride;
  const std::int64_t reduced_stride = adjoint_ ? out_stride : in_stride;
  parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
    const Range channels = panel_channels(index % panels_);
    const T* from = static_cast<const T*>(weight) +
                    index / panels_ * problem_.out_channels_per_group() * out_stride +
                    channels.begin * lane_stride;
    const auto width = static_cast<int>(kernels_.tile_rows);
    const auto valid = static_cast<int>(channels.end - channels.begin);
    for (const PhasePlan& plan : phases_) {
      T* panel = static_cast<T*>(packed) + plan.packed_begin + index * plan.reduction * kernels_.tile_rows;
      if (!adjoint_ && taps > 1) {
        kernels_.pack_taps(width, valid, from, lane_stride, reduced_, taps, plan.places.data(),
                           panel);
        continue;
      }
      for (std::int64_t t = 0; t < taps; ++t) {
        if (plan.places[t] < 0) continue;
        kernels_.pack_panel(width, valid, reduced_, from + t, lane_stride, reduced_stride,
                            panel + plan.places[t] * reduced_ * kernels_.tile_rows);
      }
    }
  });
}

template <class T>
void PixelLanes<T>::run(const ConvArguments& arguments, const void* packed,
         void* workspace) const noexcept {
  const Call call{typed<T>(adjoint_ ? arguments.y : arguments.x),
                  typed<T>(adjoint_ ? arguments.x : arguments.y),
                  BoundEpilogue<T>(problem_, arguments), static_cast<const T*>(packed)};
  parallel(std::min(threads_, parts_.count()), [&](int thread, int team) {
    auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
    for (int part = thread; part < parts_.count(); part += team) run_part(call, part, scratch);
  });
}

template <class T>
typename PixelLanes<T>::PhasePlan PixelLanes<T>::plan_phase(Phase&& phase, std::int64_t k_most) const {
  PhasePlan plan{};
  plan.phase = std::move(phase);
  const auto& axes = plan.phase.axes;
  plan.reduction = plan.phase.taps() * reduced_;
  plan.k_blocks = std::max<std::int64_t>(1, divide_up(plan.reduction, k_most));
  const bool dense = plan.phase.dense();
  plan.runs = dense ? 1 : axes[0].count * axes[1].count;
  plan.run_pixels = dense ? plan.phase.pixels() : axes[2].count;
  plan.tiles_per_run = divide_up(plan.run_pixels, kernels_.tile_columns);
  plan.places.assign(static_cast<std::size_t>(problem_.taps()), -1);
  std::int64_t place = 0;
  for (const AxisPhase::Tap& d : axes[0].taps) {
    for (const AxisPhase::Tap& h : axes[1].taps) {
      for (const AxisPhase::Tap& w : axes[2].taps) {
        plan.places[(d.tap * problem_.windows[1].kernel + h.tap) * problem_.windows[2].kernel +
                    w.tap] = place++;
      }
    }
  }
  return plan;
}

/// The cut whose largest part is smallest; packing patches counts as one panel.
template <class T>
typename PixelLanes<T>::Parts PixelLanes<T>::choose_parts() const noexcept {
  std::int64_t tiles = 0;
  for (const PhasePlan& plan : phases_) tiles += problem_.batch * plan.tiles();
  Parts best;
  std::int64_t best_cost = -1;
  for (int g = 1; g <= std::min<std::int64_t>(threads_, problem_.groups); ++g) {
    for (int t = 1; t * g <= threads_; ++t) {
      const auto p = static_cast<int>(std::min<std::int64_t>(threads_ / (g * t), panels_));
      const std::int64_t cost =
          divide_up(problem_.groups, g) * divide_up(tiles, t) * (divide_up(panels_, p) + 1);
      if (best_cost < 0 || cost < best_cost) {
        best_cost = cost;
        best = {g, t, p};
      }
    }
  }
  return best;
}
/// Output channels of a panel, from the group's first: equal rows.
template <class T>
Range PixelLanes<T>::panel_channels(std::int64_t panel) const noexcept {
  return Range::share(produced_, static_cast<int>(panel), static_cast<int>(panels_));
}
template <class T>
typename PixelLanes<T>::Tile PixelLanes<T>::tile_at(const PhasePlan& plan,
                                                    std::int64_t index) const noexcept {
  const std::int64_t begin = index % plan.tiles_per_run * kernels_.tile_columns;
  index /= plan.tiles_per_run;
  const std::int64_t run = index % plan.runs;
  return {index / plan.runs, run * plan.run_pixels + begin,
          std::min<std::int64_t>(kernels_.tile_columns, plan.run_pixels - begin)};
}


/// Pixel of the output array at which destination `index` of a phase stands.
template <class T>
std::int64_t PixelLanes<T>::output_pixel(const Phase& phase, std::int64_t index) const noexcept {
  const auto& [d, h, w] = phase.axes;
  const std::int64_t column = index % w.count;
  const std::int64_t row = index / w.count % h.count;
  const std::int64_t plane = index / w.count / h.count;
  const auto extent = [&](int axis) {
    return adjoint_ ? problem_.windows[axis].input : problem_.windows[axis].output;
  };
  return ((d.begin + plane * d.step) * extent(1) + h.begin + row * h.step) * extent(2) + w.begin +
         column * w.step;
}

template <class T>
std::int64_t PixelLanes<T>::source_extent(int axis) const noexcept {
  return adjoint_ ? problem_.windows[axis].output : problem_.windows[axis].input;
}

/// The source coordinate under a tap, or -1 in padding.
template <class T>
std::int64_t PixelLanes<T>::source_at(const AxisPhase& axis, int number, std::int64_t j,
                       std::int64_t offset) const noexcept {
  return padded_source(j * axis.source_step + offset, source_extent(number),
                       problem_.padding_mode);
}

template <class T>
void PixelLanes<T>::run_part(const Call& call, int part, std::byte* scratch) const noexcept {
  const int panel_part = part % parts_.panels;
  const int tile_part = part / parts_.panels % parts_.tiles;
  const int group_part = part / parts_.panels / parts_.tiles;
  const Range panels = Range::share(panels_, panel_part, parts_.panels);
  const Range groups = Range::share(problem_.groups, group_part, parts_.groups);
  for (std::int64_t group = groups.begin; group < groups.end; ++group) {
    for (const PhasePlan& plan : phases_) {
      const Range tiles =
          Range::share(problem_.batch * plan.tiles(), tile_part, parts_.tiles);
      const std::int64_t count = tiles.end - tiles.begin;
      const auto blocks = static_cast<int>(divide_up(count, block_tiles_));
      for (int b = 0; b < blocks; ++b) {
        const Range range = Range::share(count, b, blocks);
        Block block{plan, group};
        for (std::int64_t t = range.begin; t < range.end; ++t) {
          block.tile[block.tiles++] = tile_at(plan, tiles.begin + t);
        }
        run_block(call, block, panels, scratch);
      }
    }
  }
}
template <class T>
void PixelLanes<T>::run_block(const Call& call, const Block& block, const Range& panels,
                              std::byte* scratch) const noexcept {
  const PhasePlan& plan = block.plan;
  const bool scattered = scatter_bytes_ > 0;
  for (int k_block = 0; k_block < plan.k_blocks; ++k_block) {
    const Range k = Range::share(plan.reduction, k_block, static_cast<int>(plan.k_blocks));
    const bool last = k_block + 1 == plan.k_blocks;
    pack_patches(call, block, k, scratch);
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const T* weight =
          call.packed + plan.packed_begin +
          ((block.group * panels_ + panel) * plan.reduction + k.begin) * kernels_.tile_rows;
      const Range channels = panel_channels(panel);
      for (int t = 0; t < block.tiles; ++t) {
        const T* patches = reinterpret_cast<const T*>(scratch) + t * panel_elements_;
        kernels_.gemm_tile(static_cast<int>(channels.end - channels.begin),
                           static_cast<int>(block.tile[t].count), k.end - k.begin, weight, patches,
                           scattered ? scatter_tile(scratch, t, channels.begin)
                                     : output_at(call, block, t, channels),
                           scattered ? block_tiles_ * kernels_.tile_columns
                                     : call.output.channel_stride,
                           k_block > 0);
        if (last) finish(call, block, t, channels, scratch);
      }
    }
  }
}


template <class T>
T* PixelLanes<T>::output_at(const Call& call, const Block& block, int t, const Range& channels) const noexcept {
  const Tile& tile = block.tile[t];
  return call.output.sample(tile.sample, block.group * produced_ + channels.begin) +
         output_pixel(block.plan.phase, tile.first) * call.output.pixel_stride;
}
template <class T>
T* PixelLanes<T>::scatter_tile(std::byte* scratch, int t, std::int64_t channel) const noexcept {
  return reinterpret_cast<T*>(scratch + patches_bytes_ + offsets_bytes_) +
         (channel * block_tiles_ + t) * kernels_.tile_columns;
}
/// Scatters, and applies the epilogue to the finished tile.
template <class T>
void PixelLanes<T>::finish(const Call& call, const Block& block, int t, const Range& channels,
                           std::byte* scratch) const noexcept {
  const Tile& tile = block.tile[t];
  const Phase& phase = block.plan.phase;
  const auto pixels = static_cast<int>(tile.count);
  const auto produced = static_cast<int>(channels.end - channels.begin);
  const std::int64_t pixel_step = phase.axes[2].step;
  const std::int64_t step = pixel_step * call.output.pixel_stride;
  T* to = output_at(call, block, t, channels);
  if (scatter_bytes_ > 0) {
    for (int c = 0; c < produced; ++c) {
      const T* from = scatter_tile(scratch, t, channels.begin + c);
      for (int i = 0; i < pixels; ++i) to[c * call.output.channel_stride + i * step] = from[i];
    }
  }
  if (call.epilogue.empty()) return;
  kernels_.epilogue(call.epilogue.tile(tile.sample, block.group * produced_ + channels.begin,
                                       output_pixel(phase, tile.first), pixel_step),
                    produced, pixels, to, call.output.channel_stride, step);
}


/// A kernel of one tap that reads every source in order: the patches are the source itself.
template <class T>
bool PixelLanes<T>::reads_in_place(const PhasePlan& plan) const noexcept {
  if (plan.phase.taps() != 1 || !plan.phase.dense()) return false;
  for (int axis = 0; axis < kSpatialAxes; ++axis) {
    const AxisPhase& a = plan.phase.axes[axis];
    if (a.source_step != 1 || a.taps[0].offset != 0 || a.count != source_extent(axis)) {
      return false;
    }
  }
  return true;
}
template <class T>
void PixelLanes<T>::pack_patches(const Call& call, const Block& block, const Range& k,
                                 std::byte* scratch) const noexcept {
  const PhasePlan& plan = block.plan;
  const Maps<T>& source = call.source;
  auto* offsets = reinterpret_cast<std::int64_t*>(scratch + patches_bytes_);
  list_offsets(plan, source, k, offsets);
  for (int t = 0; t < block.tiles; ++t) {
    const Tile& tile = block.tile[t];
    T* panel = reinterpret_cast<T*>(scratch) + t * panel_elements_;
    const T* base = source.sample(tile.sample, block.group * reduced_);
    const std::int64_t start = interior_start(plan, tile, source);
    if (start >= 0) {
      kernels_.pack_offsets(k.end - k.begin, offsets, base + start,
                            plan.phase.axes[2].source_step * source.pixel_stride,
                            static_cast<int>(tile.count), panel);
    } else {
      pack_tile(plan, tile, source, base, k, panel);
    }
  }
}


/// Offsets of the elements [k.begin, k.end) of a patch from its first one.
template <class T>
void PixelLanes<T>::list_offsets(const PhasePlan& plan, const Maps<T>& source, const Range& k,
                  std::int64_t* offsets) const noexcept {
  const auto& [depth, height, width] = plan.phase.axes;
  const auto width_taps = static_cast<std::int64_t>(width.taps.size());
  const auto height_taps = static_cast<std::int64_t>(height.taps.size());
  for (std::int64_t e = k.begin; e < k.end;) {
    const std::int64_t tap = e / reduced_;
    const std::int64_t end = std::min(k.end, (tap + 1) * reduced_);
    const auto from_first = [](const AxisPhase& axis, std::int64_t t) {
      return axis.taps[t].offset - axis.taps[0].offset;
    };
    const std::int64_t pixel =
        (from_first(depth, tap / width_taps / height_taps) * source_extent(1) +
         from_first(height, tap / width_taps % height_taps)) *
            source_extent(2) +
        from_first(width, tap % width_taps);
    for (; e < end; ++e) {
      *offsets++ =
          pixel * source.pixel_stride + (e - tap * reduced_) * source.channel_stride;
    }
  }
}

/// Offset of the first element of the tile's first patch where all of the tile lies in one row
/// and no tap in padding, else -1.
template <class T>
std::int64_t PixelLanes<T>::interior_start(const PhasePlan& plan, const Tile& tile,
                            const Maps<T>& source) const noexcept {
  if (plan.reduction == 0) return -1;
  const auto& [depth, height, width] = plan.phase.axes;
  const std::int64_t w = tile.first % width.count;
  if (reads_in_place(plan)) return tile.first * source.pixel_stride;
  if (w + tile.count > width.count) return -1;
  const auto inside = [&](const AxisPhase& axis, int number, std::int64_t first,
                          std::int64_t last) {
    return first * axis.source_step + axis.taps.front().offset >= 0 &&
           last * axis.source_step + axis.taps.back().offset < source_extent(number);
  };
  const std::int64_t h = tile.first / width.count % height.count;
  const std::int64_t d = tile.first / width.count / height.count;
  if (!inside(width, 2, w, w + tile.count - 1) || !inside(height, 1, h, h) ||
      !inside(depth, 0, d, d)) {
    return -1;
  }
  const auto first_source = [](const AxisPhase& axis, std::int64_t j) {
    return j * axis.source_step + axis.taps[0].offset;
  };
  return ((first_source(depth, d) * source_extent(1) + first_source(height, h)) *
              source_extent(2) +
          first_source(width, w)) *
         source.pixel_stride;
}

template <class T>
void PixelLanes<T>::pack_tile(const PhasePlan& plan, const Tile& tile, const Maps<T>& source,
                       const T* base, const Range& k, T* panel) const noexcept {
  const auto& [depth, height, width] = plan.phase.axes;
  const auto width_taps = static_cast<std::int64_t>(width.taps.size());
  const auto height_taps = static_cast<std::int64_t>(height.taps.size());
  const std::int64_t step = width.source_step * source.pixel_stride;
  constexpr int kMostPieces = 64;  // a lane is in one piece at most
  for (std::int64_t e = k.begin; e < k.end;) {
    const std::int64_t tap = e / reduced_;
    const std::int64_t end = std::min(k.end, (tap + 1) * reduced_);
    const std::int64_t depth_offset = depth.taps[tap / width_taps / height_taps].offset;
    const std::int64_t height_offset = height.taps[tap / width_taps % height_taps].offset;
    const std::int64_t width_offset = width.taps[tap % width_taps].offset;
    for (int first = 0; first < tile.count; first += kernels_.lanes) {
      const auto lanes = static_cast<int>(std::min<std::int64_t>(kernels_.lanes, tile.count - first));
      LanePiece<T> pieces[kMostPieces];
      int count = 0;
      for (int lane = 0; lane < lanes;) {
        const std::int64_t p = tile.first + first + lane;
        const std::int64_t w = p % width.count;
        const auto row_lanes =
            static_cast<int>(std::min<std::int64_t>(lanes - lane, width.count - w));
        const std::int64_t plane =
            source_at(depth, 0, p / width.count / height.count, depth_offset);
        const std::int64_t line =
            source_at(height, 1, p / width.count % height.count, height_offset);
        if (plane >= 0 && line >= 0) {
          const T* row = base + (plane * source_extent(1) + line) * source_extent(2) *
                                    source.pixel_stride +
                         (e - tap * reduced_) * source.channel_stride;
          count += list_pieces(width, row, source.pixel_stride, w, width_offset, lane, row_lanes,
                               pieces + count);
        }
        lane += row_lanes;
      }
      kernels_.pack_lanes(pieces, count, step, end - e, source.channel_stride,
                          panel + (e - k.begin) * kernels_.tile_columns + first);
    }
    e = end;
  }
}

/// Pieces for lanes [lane, lane + lanes), which hold destinations w, w + 1, ... of one row.
template <class T>
std::int64_t PixelLanes<T>::list_pieces(const AxisPhase& width, const T* row, std::int64_t pixel_stride,
                         std::int64_t w, std::int64_t offset, int lane, int lanes,
                         LanePiece<T>* pieces) const noexcept {
  const std::int64_t step = width.source_step;
  const std::int64_t extent = source_extent(2);
  const std::int64_t column = w * step + offset;  // of the first lane
  // 0 <= column + i * step < extent
  const std::int64_t inside_begin =
      std::clamp<std::int64_t>(divide_up(-column, step), 0, lanes);
  const std::int64_t inside_end =
      std::clamp<std::int64_t>(divide_up(extent - column, step), inside_begin, lanes);
  LanePiece<T>* piece = pieces;
  const auto single = [&](std::int64_t i) {
    const std::int64_t at = padded_source(column + i * step, extent, problem_.padding_mode);
    const auto l = static_cast<int>(lane + i);
    if (at >= 0) *piece++ = {row + (at - l * step) * pixel_stride, l, l + 1};
  };
  if (problem_.padding_mode != PaddingMode::zeros) {
    for (std::int64_t i = 0; i < inside_begin; ++i) single(i);
    for (std::int64_t i = inside_end; i < lanes; ++i) single(i);
  }
  if (inside_begin < inside_end) {
    *piece++ = {row + (column - lane * step) * pixel_stride,
                static_cast<int>(lane + inside_begin), static_cast<int>(lane + inside_end)};
  }
  return piece - pieces;
}

template class PixelLanes<float>;
template class PixelLanes<double>;

}  // namespace convolith
