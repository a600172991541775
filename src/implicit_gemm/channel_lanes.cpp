#include "implicit_gemm/channel_lanes.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"

namespace convolith {
template <class T>
ChannelLanes<T>::ChannelLanes(const ConvProblem& problem, const Machine& machine, int threads)
    : problem_(problem),
      kernels_(kernels_for<T>(machine)),
      threads_(threads),
      adjoint_(problem.direction == Direction::backward_input),
      channels_last_(problem.layout == Layout::channels_last) {
  reduced_ = adjoint_ ? problem.out_channels_per_group() : problem.in_channels_per_group();
  produced_ = adjoint_ ? problem.in_channels_per_group() : problem.out_channels_per_group();
  panels_ = divide_up(produced_, kernels_.tile_columns);
  for (const Phase& phase : phases(problem, adjoint_)) {
    PhasePlan plan = plan_phase(phase, machine);
    plan.packed_begin = packed_elements_;
    packed_elements_ += problem.groups * panels_ * plan.reduction * kernels_.tile_columns;
    const std::int64_t strip_rows = static_cast<std::int64_t>(plan.phase.axes[0].taps.size()) *
                                    plan.rows.length(plan.block_rows);
    strips_bytes_ = std::max(
        strips_bytes_, aligned_bytes<T>(strip_rows * plan.strip_pixels * plan.pixel_elements));
    if (!channels_last_) {
      tiles_bytes_ = std::max(
          tiles_bytes_, aligned_bytes<T>(plan.block_rows * plan.block_tiles * kernels_.tile_rows *
                                         kernels_.tile_columns));
    }
    phases_.push_back(std::move(plan));
  }
  parts_ = choose_parts();
}

template <class T>
typename ChannelLanes<T>::PhasePlan ChannelLanes<T>::plan_phase(const Phase& given,
                                                                const Machine& machine) const {
  Phase phase = given;
  std::array<std::int64_t, kSpatialAxes> sources{source_extent(0), source_extent(1),
                                                 source_extent(2)};
  const bool pointwise = flatten_pointwise(phase, sources);
  const auto& [depth, height, width] = phase.axes;
  const std::int64_t tiles_per_row = divide_up(width.count, kernels_.tile_rows);
  // Whether taps are shared is decided for a row of tiles.
  PhasePlan plan{.phase = phase,
                 .sources = sources,
                 .in_place = false,
                 .reduction = phase.taps() * reduced_,
                 .packed_begin = 0,
                 .unit_taps = 1,
                 .unit_channels = reduced_,
                 .units_per_row = static_cast<std::int64_t>(width.taps.size()),
                 .k_blocks = {},
                 .rows = StripAxis(height, std::min<std::int64_t>(height.count, 4)),
                 .columns = StripAxis(width, divide_up(width.count, tiles_per_row)),
                 .pixel_elements = reduced_,
                 .tiles_per_row = tiles_per_row,
                 .block_rows = 1,
                 .block_tiles = 1,
                 .strip_pixels = 1,
                 .places = {},
                 .taps = {}};
  // Pixels of a tile that lie a page apart would share one set of L1.
  constexpr std::int64_t kPage = 4096;
  const bool conflicts =
      plan.columns.step * reduced_ * static_cast<std::int64_t>(sizeof(T)) % kPage == 0;
  if (conflicts) plan.pixel_elements += kernels_.lanes;
  plan.in_place = pointwise && channels_last_ && !conflicts;
  bool touching = !conflicts;
  for (std::size_t t = 1; t < plan.columns.offsets.size(); ++t) {
    touching = touching && plan.columns.offsets[t] == plan.columns.offsets[t - 1] + 1;
  }
  if (touching && plan.units_per_row > 0) {
    plan.unit_taps = plan.units_per_row;
    plan.unit_channels = plan.unit_taps * reduced_;
    plan.units_per_row = 1;
  }

  // A k block's panel of weights takes two thirds of L1; strips take a quarter of L2.
  const auto panel_row_bytes = static_cast<std::int64_t>(kernels_.tile_columns * sizeof(T));
  cut_reduction(plan, std::clamp<std::int64_t>(
                          static_cast<std::int64_t>(machine.l1_bytes) * 2 / 3 / panel_row_bytes,
                          64, kMaxChain));
  cut_blocks(plan, static_cast<std::int64_t>(machine.l2_bytes) / 4 /
                       static_cast<std::int64_t>(sizeof(T)));

  plan.places.assign(static_cast<std::size_t>(problem_.taps()), -1);
  const std::int64_t strip_rows = plan.rows.length(plan.block_rows);
  std::int64_t place = 0;
  for (std::size_t d = 0; d < depth.taps.size(); ++d) {
    for (std::size_t h = 0; h < height.taps.size(); ++h) {
      for (std::size_t w = 0; w < width.taps.size(); ++w) {
        const std::int64_t tap =
            (depth.taps[d].tap * problem_.windows[1].kernel + height.taps[h].tap) *
                problem_.windows[2].kernel +
            width.taps[w].tap;
        if (place % plan.unit_taps == 0) {
          const std::int64_t row = static_cast<std::int64_t>(d) * strip_rows + plan.rows.offsets[h];
          plan.taps.push_back({(row * plan.strip_pixels + plan.columns.offsets[w]) *
                                   plan.pixel_elements,
                               place * reduced_ * kernels_.tile_columns});
        }
        plan.places[tap] = place++;
      }
    }
  }
  return plan;
}

/// Blocks of at most `most` products: whole units, or equal parts of one.
template <class T>
void ChannelLanes<T>::cut_reduction(PhasePlan& plan, std::int64_t most) const {
  const std::int64_t units = plan.phase.taps() / plan.unit_taps;
  if (plan.unit_channels <= most) {
    const std::int64_t fitting = most / plan.unit_channels;
    const auto blocks = static_cast<int>(divide_up(units, fitting));
    for (int b = 0; b < blocks; ++b) {
      const Range range = Range::share(units, b, blocks);
      plan.k_blocks.push_back({range.begin, range.end - range.begin, 0, plan.unit_channels});
    }
  } else {
    const auto parts = static_cast<int>(divide_up(plan.unit_channels, most));
    for (std::int64_t unit = 0; unit < units; ++unit) {
      for (int part = 0; part < parts; ++part) {
        const Range range = Range::share(plan.unit_channels, part, parts);
        plan.k_blocks.push_back({unit, 1, range.begin, range.end - range.begin});
      }
    }
  }
  // A phase without taps writes zeros.
  if (plan.k_blocks.empty()) plan.k_blocks.push_back({0, 0, 0, plan.unit_channels});
}

/// Whole rows of tiles where one fits into `budget` elements, and as many rows as fit.
template <class T>
void ChannelLanes<T>::cut_blocks(PhasePlan& plan, std::int64_t budget) const {
  const auto& axes = plan.phase.axes;
  constexpr std::int64_t kMostRows = 64;
  constexpr std::int64_t kMostTiles = 32;
  const auto depth_taps = static_cast<std::int64_t>(axes[0].taps.size());
  const auto elements = [&](std::int64_t rows, std::int64_t tiles) {
    return depth_taps * plan.rows.length(rows) *
           plan.columns.length(std::min(tiles * kernels_.tile_rows, axes[2].count)) *
           plan.pixel_elements;
  };
  plan.block_tiles = std::min(plan.tiles_per_row, kMostTiles);
  while (plan.block_tiles > 1 && elements(1, plan.block_tiles) > budget) {
    plan.block_tiles = divide_up(plan.block_tiles, 2);
  }
  while (plan.block_rows < std::min(axes[1].count, kMostRows) &&
         plan.block_rows * plan.block_tiles < kMostTiles &&
         elements(plan.block_rows + 1, plan.block_tiles) <= budget) {
    ++plan.block_rows;
  }
  plan.strip_pixels =
      plan.columns.length(std::min(plan.block_tiles * kernels_.tile_rows, axes[2].count));
}

/// The cut whose largest part is smallest; packing strips counts as one panel.
template <class T>
typename ChannelLanes<T>::Parts ChannelLanes<T>::choose_parts() const noexcept {
  Parts best;
  std::int64_t best_cost = -1;
  for (int g = 1; g <= std::min<std::int64_t>(threads_, problem_.groups); ++g) {
    for (int r = 1; r * g <= threads_; ++r) {
      for (int t = 1; t * r * g <= threads_; ++t) {
        const auto p =
            static_cast<int>(std::min<std::int64_t>(threads_ / (g * r * t), panels_));
        std::int64_t cost = 0;
        for (const PhasePlan& plan : phases_) {
          const std::int64_t rows =
              problem_.batch * plan.phase.axes[0].count * plan.phase.axes[1].count;
          cost += divide_up(rows, r) * divide_up(plan.tiles_per_row, t);
        }
        cost *= divide_up(problem_.groups, g) * (divide_up(panels_, p) + 1);
        if (best_cost < 0 || cost < best_cost) {
          best_cost = cost;
          best = {g, r, t, p};
        }
      }
    }
  }
  return best;
}

template <class T>
std::size_t ChannelLanes<T>::workspace_bytes() const noexcept {
  return thread_bytes() * static_cast<std::size_t>(std::min(threads_, parts_.count()));
}

template <class T>
std::size_t ChannelLanes<T>::packed_bytes() const noexcept {
  return static_cast<std::size_t>(packed_elements_) * sizeof(T);
}

/// Panels [phase][group][panel][tap][reduced channel][lane].
template <class T>
void ChannelLanes<T>::pack(const void* weight, void* packed) const noexcept {
  const std::int64_t taps = problem_.taps();
  const std::int64_t in_stride = taps;
  const std::int64_t out_stride = taps * problem_.in_channels_per_group();
  const std::int64_t lane_stride = adjoint_ ? in_stride : out_stride;
  const std::int64_t reduced_stride = adjoint_ ? out_stride : in_stride;
  const int width = kernels_.tile_columns;
  parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
    const std::int64_t first = index % panels_ * width;
    const T* from = static_cast<const T*>(weight) +
                    index / panels_ * problem_.out_channels_per_group() * out_stride +
                    first * lane_stride;
    const auto valid = static_cast<int>(std::min<std::int64_t>(width, produced_ - first));
    for (const PhasePlan& plan : phases_) {
      T* panel = static_cast<T*>(packed) + plan.packed_begin + index * plan.reduction * width;
      if (!adjoint_ && taps > 1) {
        kernels_.pack_taps(width, valid, from, lane_stride, reduced_, taps, plan.places.data(),
                           panel);
        continue;
      }
      for (std::int64_t t = 0; t < taps; ++t) {
        if (plan.places[t] < 0) continue;
        kernels_.pack_panel(width, valid, reduced_, from + t, lane_stride, reduced_stride,
                            panel + plan.places[t] * reduced_ * width);
      }
    }
  });
}

template <class T>
void ChannelLanes<T>::run(const ConvArguments& arguments, const void* packed,
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
std::int64_t ChannelLanes<T>::source_extent(int axis) const noexcept {
  return adjoint_ ? problem_.windows[axis].output : problem_.windows[axis].input;
}

template <class T>
std::int64_t ChannelLanes<T>::output_extent(int axis) const noexcept {
  return adjoint_ ? problem_.windows[axis].input : problem_.windows[axis].output;
}

/// Columns are shared out evenly: no short tile waits for its weights.
template <class T>
Range ChannelLanes<T>::tile_columns(const PhasePlan& plan, std::int64_t tile) const noexcept {
  return Range::share(plan.phase.axes[2].count, static_cast<int>(tile),
                      static_cast<int>(plan.tiles_per_row));
}

template <class T>
void ChannelLanes<T>::run_part(const Call& call, int part, std::byte* scratch) const noexcept {
  const Range panels = Range::share(panels_, part % parts_.panels, parts_.panels);
  part /= parts_.panels;
  const int tile_part = part % parts_.tiles;
  part /= parts_.tiles;
  const int row_part = part % parts_.rows;
  const Range groups = Range::share(problem_.groups, part / parts_.rows, parts_.groups);
  for (std::int64_t group = groups.begin; group < groups.end; ++group) {
    for (const PhasePlan& plan : phases_) {
      const std::int64_t height = plan.phase.axes[1].count;
      const std::int64_t planes = plan.phase.axes[0].count;
      const Range rows = Range::share(problem_.batch * planes * height, row_part, parts_.rows);
      const Range tiles = Range::share(plan.tiles_per_row, tile_part, parts_.tiles);
      Block block{&plan, group, 0, 0, 0, 0, 0, 0, 0, 0};
      for (std::int64_t row = rows.begin; row < rows.end;) {
        block.sample = row / height / planes;
        block.depth = row / height % planes;
        block.row = row % height;
        block.row_end =
            std::min({height, block.row + plan.block_rows, block.row + rows.end - row});
        row += block.row_end - block.row;
        for (std::int64_t t = tiles.begin; t < tiles.end; t += plan.block_tiles) {
          block.tile = t;
          block.tile_end = std::min(tiles.end, t + plan.block_tiles);
          block.first_column = tile_columns(plan, t).begin;
          block.columns = tile_columns(plan, block.tile_end - 1).end - block.first_column;
          run_block(call, block, panels, scratch);
        }
      }
    }
  }
}

template <class T>
void ChannelLanes<T>::run_block(const Call& call, const Block& block, const Range& panels,
                                std::byte* scratch) const noexcept {
  const PhasePlan& plan = *block.plan;
  const Strips strips = plan.in_place ? strips_in_place(call, block)
                                      : pack_strips(call, block, scratch);
  T* tiles = reinterpret_cast<T*>(scratch + strips_bytes_);
  // Whole rows of a dense grid follow one another in the output.
  const bool whole = plan.phase.dense() && block.columns == plan.phase.axes[2].count;
  const std::int64_t rows_together = whole ? block.row_end - block.row : 1;
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    for (const KBlock& k : plan.k_blocks) {
      for (std::int64_t row = block.row; row < block.row_end; ++row) {
        multiply_row(call, block, strips, row, k, panel, tiles);
      }
    }
    if (channels_last_ && call.epilogue.empty()) continue;
    for (std::int64_t row = block.row; row < block.row_end; row += rows_together) {
      finish_rows(call, block, row, rows_together, panel, tiles);
    }
  }
}

template <class T>
typename ChannelLanes<T>::Strips ChannelLanes<T>::strips_in_place(
    const Call& call, const Block& block) const noexcept {
  const T* data = call.source.sample(block.sample, block.group * reduced_) +
                  block.first_column * call.source.pixel_stride;
  return {data, block.plan->taps.data(), 0, call.source.pixel_stride};
}

template <class T>
typename ChannelLanes<T>::Strips ChannelLanes<T>::pack_strips(const Call& call, const Block& block,
                                                              std::byte* scratch) const noexcept {
  const PhasePlan& plan = *block.plan;
  const auto& [depth, height, width] = plan.phase.axes;
  const Maps<T>& source = call.source;
  const T* base = source.sample(block.sample, block.group * reduced_);
  const std::int64_t all_rows = plan.rows.length(plan.block_rows);
  T* strips = reinterpret_cast<T*>(scratch);
  const std::int64_t strip = plan.strip_pixels * plan.pixel_elements;
  for (std::size_t d = 0; d < depth.taps.size(); ++d) {
    const std::int64_t plane = padded_source(block.depth * depth.source_step + depth.taps[d].offset,
                                             plan.sources[0], problem_.padding_mode);
    for (std::int64_t j = 0; j < block.row_end - block.row; ++j) {
      for (std::size_t h = 0; h < height.taps.size(); ++h) {
        const std::int64_t row = j * plan.rows.step + plan.rows.offsets[h];
        if (plan.rows.read_before(row, j)) continue;
        const std::int64_t line =
            padded_source((block.row + j) * height.source_step + height.taps[h].offset,
                          plan.sources[1], problem_.padding_mode);
        const T* from = plane < 0 || line < 0 ? nullptr
                                              : base + (plane * plan.sources[1] + line) *
                                                           plan.sources[2] * source.pixel_stride;
        pack_strip(plan, source, from, block.first_column, block.columns,
                   strips + (static_cast<std::int64_t>(d) * all_rows + row) * strip);
      }
    }
  }
  return {strips, plan.taps.data(), plan.rows.step * strip,
          plan.columns.step * plan.pixel_elements};
}

/// The pixels that `columns` destinations from `first_column` on read from one line of the source.
template <class T>
void ChannelLanes<T>::pack_strip(const PhasePlan& plan, const Maps<T>& source, const T* line,
                                 std::int64_t first_column, std::int64_t columns,
                                 T* strip) const noexcept {
  const AxisPhase& width = plan.phase.axes[2];
  const std::int64_t extent = plan.sources[2];
  const std::int64_t pixel = plan.pixel_elements;
  // Column by column: destination j's pixel of series t comes from j * source_step + offset.
  const auto pack_series = [&](std::int64_t offset, std::int64_t source_step, std::int64_t count,
                               T* to, std::int64_t to_stride) {
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-offset, source_step), 0, count);
    const std::int64_t end =
        line == nullptr ? begin
                        : std::clamp(divide_up(extent - offset, source_step), begin, count);
    if (begin < end) {
      pack_pixels(source, line + (offset + begin * source_step) * source.pixel_stride, source_step,
                  end - begin, to + begin * to_stride, to_stride);
    }
    const auto pad = [&](std::int64_t j) {
      const std::int64_t at =
          line == nullptr ? -1
                          : padded_source(offset + j * source_step, extent, problem_.padding_mode);
      if (at >= 0) {
        pack_pixels(source, line + at * source.pixel_stride, 1, 1, to + j * to_stride, to_stride);
      } else {
        const CopySegment<T> zeros{nullptr, to + j * to_stride, reduced_};
        kernels_.copy_segments(&zeros, 1);
      }
    };
    for (std::int64_t j = 0; j < begin; ++j) pad(j);
    for (std::int64_t j = end; j < count; ++j) pad(j);
  };
  if (width.taps.empty()) return;
  if (plan.columns.shared) {
    pack_series(first_column * width.source_step + width.taps.front().offset, 1,
                plan.columns.length(columns), strip, pixel);
    return;
  }
  for (std::size_t t = 0; t < width.taps.size(); ++t) {
    pack_series(first_column * width.source_step + width.taps[t].offset, width.source_step, columns,
                strip + plan.columns.offsets[t] * pixel, plan.columns.step * pixel);
  }
}

/// `pixels` pixels of all reduced channels, `step` apart in the source, channels together.
template <class T>
void ChannelLanes<T>::pack_pixels(const Maps<T>& source, const T* from, std::int64_t step,
                                  std::int64_t pixels, T* to,
                                  std::int64_t to_stride) const noexcept {
  if (!channels_last_) {
    kernels_.transpose(reduced_, pixels, from, source.channel_stride, step * source.pixel_stride,
                       to, to_stride, 1);
    return;
  }
  const std::int64_t from_stride = step * source.pixel_stride;
  if (from_stride == reduced_ && to_stride == reduced_) {
    const CopySegment<T> all{from, to, pixels * reduced_};
    kernels_.copy_segments(&all, 1);
    return;
  }
  for (std::int64_t p = 0; p < pixels; ++p) {
    const CopySegment<T> one{from + p * from_stride, to + p * to_stride, reduced_};
    kernels_.copy_segments(&one, 1);
  }
}

/// Adds the products of one k block to the tiles of one output row.
template <class T>
void ChannelLanes<T>::multiply_row(const Call& call, const Block& block, const Strips& strips,
                                   std::int64_t row, const KBlock& k, std::int64_t panel,
                                   T* tiles) const noexcept {
  const PhasePlan& plan = *block.plan;
  const auto& [depth, height, width] = plan.phase.axes;
  const int panel_width = kernels_.tile_columns;
  // Kernel rows that lie in padding add nothing; first is whether this block writes first.
  std::int64_t unit_begin = k.first, unit_end = k.first + k.units;
  bool first = k.first == 0 && k.begin == 0;
  if (depth.taps.size() == 1 && problem_.padding_mode == PaddingMode::zeros && k.units > 0) {
    const std::int64_t start = row * height.source_step;
    std::int64_t h_begin = 0, h_end = static_cast<std::int64_t>(height.taps.size());
    while (h_begin < h_end && start + height.taps[h_begin].offset < 0) ++h_begin;
    while (h_end > h_begin && start + height.taps[h_end - 1].offset >= plan.sources[1]) --h_end;
    // Where all are padding, the first block still writes its zeros.
    if (h_begin < h_end) {
      unit_begin = std::max(unit_begin, h_begin * plan.units_per_row);
      unit_end = std::min(unit_end, h_end * plan.units_per_row);
      if (unit_begin >= unit_end) return;
      first = unit_begin == h_begin * plan.units_per_row && k.begin == 0;
    }
  }
  const std::int64_t first_channel = block.group * produced_ + panel * panel_width;
  const Maps<T>& output = call.output;

  GatherTile<T> tile{};
  tile.taps = strips.taps + unit_begin;
  tile.tap_count = unit_end - unit_begin;
  tile.channels = k.channels;
  tile.source_pixel_stride = strips.pixel_stride;
  tile.weight = call.packed + plan.packed_begin +
                (block.group * panels_ + panel) * plan.reduction * panel_width +
                k.begin * panel_width;
  tile.out_channels = static_cast<int>(std::min<std::int64_t>(panel_width, produced_ - panel * panel_width));
  tile.accumulate = !first;
  const T* source = strips.data + (row - block.row) * strips.row_stride + k.begin;
  for (std::int64_t t = block.tile; t < block.tile_end; ++t) {
    const Range columns = tile_columns(plan, t);
    tile.pixels = static_cast<int>(columns.end - columns.begin);
    tile.source = source + (columns.begin - block.first_column) * strips.pixel_stride;
    if (channels_last_) {
      const std::int64_t pixel =
          ((depth.begin + block.depth * depth.step) * output_extent(1) + height.begin +
           row * height.step) *
              output_extent(2) +
          width.begin + columns.begin * width.step;
      tile.output = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
      tile.output_pixel_stride = width.step * output.pixel_stride;
    } else {
      tile.output = tiles + ((row - block.row) * block.columns + columns.begin -
                             block.first_column) *
                                panel_width;
      tile.output_pixel_stride = panel_width;
    }
    kernels_.gather_channels_last(tile);
  }
}

/// Brings rows of channels_first home, and applies the epilogue. The pixels of several rows must
/// follow one another in the output.
template <class T>
void ChannelLanes<T>::finish_rows(const Call& call, const Block& block, std::int64_t row,
                                  std::int64_t rows, std::int64_t panel,
                                  const T* tiles) const noexcept {
  const PhasePlan& plan = *block.plan;
  const auto& [depth, height, width] = plan.phase.axes;
  const int panel_width = kernels_.tile_columns;
  const Maps<T>& output = call.output;
  const std::int64_t first_channel = block.group * produced_ + panel * panel_width;
  const auto channels =
      static_cast<int>(std::min<std::int64_t>(panel_width, produced_ - panel * panel_width));
  const std::int64_t pixels = rows * block.columns;
  const std::int64_t pixel = ((depth.begin + block.depth * depth.step) * output_extent(1) +
                              height.begin + row * height.step) *
                                 output_extent(2) +
                             width.begin + block.first_column * width.step;
  const std::int64_t step = width.step * output.pixel_stride;
  T* to = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
  const auto epilogue = call.epilogue.tile(block.sample, first_channel, pixel, width.step);
  const auto columns = static_cast<int>(pixels);
  if (channels_last_) {
    kernels_.epilogue(epilogue, columns, channels, to, step, output.channel_stride);
    return;
  }
  kernels_.transpose(pixels, channels, tiles + (row - block.row) * block.columns * panel_width,
                     panel_width, 1, to, output.channel_stride, step);
  if (call.epilogue.empty()) return;
  kernels_.epilogue(epilogue, channels, columns, to, output.channel_stride, step);
}

template class ChannelLanes<float>;
template class ChannelLanes<double>;

}  // namespace convolith
