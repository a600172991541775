#include "implicit_gemm/pixel_lanes.hpp"

#include <algorithm>
#include <limits>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"

namespace convolith {
namespace {

bool same(const Range& a, const Range& b) { return a.begin == b.begin && a.end == b.end; }

/// Columns of a tile of the smallest panel, the widest there is.
int tile_pixels(const ConvProblem& problem, const auto& kernels) {
  const std::int64_t produced =
      is_adjoint(problem) ? problem.in_channels_per_group() : problem.out_channels_per_group();
  const std::int64_t panels = divide_up(produced, kernels.tile_rows);
  constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  return kernels.pixel_shape(static_cast<int>(produced / panels), kAny).columns;
}

}  // namespace

template <class T>
PixelLanes<T>::PixelLanes(const ConvProblem& problem, const Machine& machine, int threads)
    : Base(problem, machine, threads, tile_pixels(problem, kernels_for<T>(machine)),
           kernels_for<T>(machine).lanes, kernels_for<T>(machine).tile_rows),
      strips_(this->axes_[2], this->sources_[2], this->source_step_[2], this->reduced_, problem,
              this->kernels_),
      clamp_(problem.epilogue) {
  // Channels lie pages apart: where the maps outgrow half of L2 and enough panels read them, they
  // are packed, unless datapaths of half a vector leave time to read them in place.
  constexpr std::int64_t kManyPanels = 4;
  const bool far = !machine.halves_vectors && this->panels_ >= kManyPanels &&
                   this->source_bytes() > machine.l2_bytes / 2;
  this->in_place_ = this->pointwise_ && !this->channels_last_ && !far;
  // A panel of weights takes a third of L1, as does what a tile reads; strips a quarter of L2.
  most_terms_ = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(machine.l1_bytes / 3 / sizeof(T)) / this->panel_width_, 64,
      kMaxChain);
  this->cut_blocks(static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T)));
  if (!this->in_place_) {
    strips_.serve(this->block_columns_);
    for (const PhasePlan& plan : this->phases_) offsets_.push_back(list_offsets(plan.phase));
  }
}

template <class T>
std::int64_t PixelLanes<T>::row_elements(std::int64_t columns) const noexcept {
  return strips_.elements(columns);
}

/// A tile before it is brought home; the offsets of the terms where the source is read in place.
template <class T>
std::size_t PixelLanes<T>::extra_bytes() const noexcept {
  return aligned_bytes<T>(this->panel_width_ * this->tile_pixels_) +
         (this->in_place_ ? aligned_bytes<std::int64_t>(this->reduced_) : 0);
}

/// Terms of the sum in the order of the packed weights: taps, then channels.
template <class T>
std::vector<std::int64_t> PixelLanes<T>::list_offsets(const Phase& phase) const {
  const auto& [depth, height, width] = phase.axes;
  std::vector<std::int64_t> offsets;
  for (const AxisPhase::Tap& d : depth.taps) {
    for (const AxisPhase::Tap& h : height.taps) {
      const std::int64_t strip = this->strip_at(d.offset, this->axes_[1].place(h.offset));
      for (const AxisPhase::Tap& w : width.taps) {
        for (std::int64_t c = 0; c < this->reduced_; ++c) {
          offsets.push_back(strip + strips_.at(c, w.offset));
        }
      }
    }
  }
  return offsets;
}

/// Output channels of a panel, from the group's first: equal rows.
template <class T>
Range PixelLanes<T>::panel_channels(std::int64_t panel) const noexcept {
  return Range::share(this->produced_, static_cast<int>(panel), static_cast<int>(this->panels_));
}

template <class T>
void PixelLanes<T>::pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                               std::int64_t columns, T* strip) const noexcept {
  const Maps<const T> maps{source.data, source.sample_stride, source.channel_stride,
                           source.pixel_stride};
  strips_.pack(maps, line, first_column, columns, strip);
}

template <class T>
void PixelLanes<T>::multiply(const Call& call, const Block& block, const T* strips,
                             const Range& panels, std::byte* extra) const noexcept {
  T* tile = reinterpret_cast<T*>(extra);
  const T* source = strips;
  std::int64_t row_stride = this->axes_[1].step() * this->strip_row_elements();
  auto* in_place = reinterpret_cast<std::int64_t*>(
      extra + aligned_bytes<T>(this->panel_width_ * this->tile_pixels_));
  if (this->in_place_) {
    const Maps<T>& x = call.source;
    for (std::int64_t c = 0; c < this->reduced_; ++c) in_place[c] = c * x.channel_stride;
    const std::int64_t row = block.depth * this->sources_[1] + block.row;
    source = x.sample(block.sample, block.group * this->reduced_) +
             (row * this->sources_[2] + block.column) * x.pixel_stride;
    row_stride = this->sources_[2] * x.pixel_stride;
  }
  for (std::size_t p = 0; p < this->phases_.size(); ++p) {
    const PhasePlan& plan = this->phases_[p];
    if (block.depth >= plan.phase.axes[0].count) continue;
    const std::int64_t* offsets = this->in_place_ ? in_place : offsets_[p].data();
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      multiply_panel(call, block, plan, offsets, source, row_stride, panel,
                     this->in_place_ && panel == panels.begin, tile);
    }
  }
}

/// The terms of the sums of a group of rows without the kernel rows at either end that lie in
/// padding for all of them. Groups do not depend on blocks, nor, thus, sums on the number of
/// threads.
template <class T>
Range PixelLanes<T>::group_terms(const PhasePlan& plan, const Range& planes, std::int64_t first_row,
                                 std::int64_t lines) const noexcept {
  const auto& axes = plan.phase.axes;
  const std::int64_t end = std::min(first_row + lines, axes[1].count);
  Range rows = this->taps_inside(plan.phase, 1, first_row);
  for (std::int64_t row = first_row + 1; row < end; ++row) {
    const Range more = this->taps_inside(plan.phase, 1, row);
    if (more.begin == more.end) continue;
    if (rows.begin == rows.end) rows = more;
    rows = {std::min(rows.begin, more.begin), std::max(rows.end, more.end)};
  }
  if (planes.begin == planes.end || rows.begin == rows.end) return {0, 0};
  const auto height = static_cast<std::int64_t>(axes[1].taps.size());
  const std::int64_t kernel_row = static_cast<std::int64_t>(axes[2].taps.size()) * this->reduced_;
  return {(planes.begin * height + rows.begin) * kernel_row,
          ((planes.end - 1) * height + rows.end) * kernel_row};
}

/// The sums of a block and panel of output channels, tile by tile.
template <class T>
void PixelLanes<T>::multiply_panel(const Call& call, const Block& block, const PhasePlan& plan,
                                   const std::int64_t* offsets, const T* source,
                                   std::int64_t row_stride, std::int64_t panel, bool streams,
                                   T* partial) const noexcept {
  const Range channels = panel_channels(panel);
  const auto& [depth_axis, height, width] = plan.phase.axes;
  const T* weight = call.packed + plan.packed_begin +
                    (block.group * this->panels_ + panel) * this->panel_elements_;
  const Maps<T>& output = call.output;
  PixelTile<T> tile{};
  tile.channels = static_cast<int>(channels.end - channels.begin);
  tile.source_line_stride = row_stride;
  tile.reads_whole_vectors = !this->in_place_;
  tile.streams = streams;
  tile.partial = partial;
  tile.output_line_stride = height.step * this->outputs_[2] * output.pixel_stride;
  tile.output_channel_stride = output.channel_stride;
  tile.interleaves = this->channels_last_;
  tile.finishes = !call.epilogue.empty();
  tile.bias = call.epilogue.bias(block.group * this->produced_ + channels.begin);
  tile.least = clamp_.least;
  tile.greatest = clamp_.greatest;
  const bool at_home = !clamp_.rest && width.step == 1 &&
                       (this->channels_last_
                            ? output.pixel_stride == tile.channels &&
                                  tile.channels <= this->kernels_.interleaved_channels
                            : output.pixel_stride == 1);
  const std::int64_t row_end = std::min(block.row_end, height.count);
  const std::int64_t column_end = std::min(block.column_end, width.count);
  const Range planes = this->taps_inside(plan.phase, 0, block.depth);
  const std::int64_t group = this->kernels_.pixel_shape(tile.channels, width.count).lines;
  const bool at_once = at_home && plan.phase.taps() * this->reduced_ <= most_terms_;
  for (std::int64_t column = block.column; column < column_end; column += tile.columns) {
    const PixelShape shape = this->kernels_.pixel_shape(tile.channels, column_end - column);
    tile.columns = at_once ? column_end - column
                           : std::min<std::int64_t>(shape.columns, column_end - column);
    for (std::int64_t row = block.row; row < row_end; row += tile.lines) {
      std::int64_t next = row / group * group;  // the next group
      const Range terms = group_terms(plan, planes, next, group);
      next += group;
      const auto k_blocks = static_cast<int>(
          std::max<std::int64_t>(1, divide_up(terms.end - terms.begin, most_terms_)));
      // Lines with the same terms; where the sums come to `partial` first, as many as it takes.
      const std::int64_t most = k_blocks == 1 && at_home ? row_end - row : shape.lines;
      const std::int64_t end = std::min(row + most, row_end);
      while (next < end && same(group_terms(plan, planes, next, group), terms)) next += group;
      tile.lines = std::min(next, end) - row;
      T* home = at_home
                    ? output.sample(block.sample, block.group * this->produced_ + channels.begin) +
                          this->output_pixel(plan.phase, block.depth, row, column) *
                              output.pixel_stride
                    : nullptr;
      for (int b = 0; b < k_blocks; ++b) {
        const Range k = Range::share(terms.end - terms.begin, b, k_blocks);
        tile.terms = k.end - k.begin;
        tile.weight = weight + (terms.begin + k.begin) * this->panel_width_;
        tile.source = source + (row - block.row) * row_stride + column - block.column;
        tile.offsets = offsets + terms.begin + k.begin;
        tile.continues = b > 0;
        tile.output = b == k_blocks - 1 ? home : nullptr;
        this->kernels_.pixel_tile(tile);
      }
      if (at_home) continue;
      const std::int64_t stride = round_up(tile.columns, this->kernels_.lanes);
      for (std::int64_t line = 0; line < tile.lines; ++line) {
        finish_line(call, block, plan, row + line, column, static_cast<int>(tile.columns), channels,
                    partial + line * tile.channels * stride, stride);
      }
    }
  }
}

/// Applies the epilogue to a line [channel][pixel] of a tile, and brings it home.
template <class T>
void PixelLanes<T>::finish_line(const Call& call, const Block& block, const PhasePlan& plan,
                                std::int64_t row, std::int64_t column, int pixels,
                                const Range& channels, T* line,
                                std::int64_t stride) const noexcept {
  const auto produced = static_cast<int>(channels.end - channels.begin);
  const std::int64_t first_channel = block.group * this->produced_ + channels.begin;
  const Maps<T>& output = call.output;
  const std::int64_t pixel = this->output_pixel(plan.phase, block.depth, row, column);
  const std::int64_t pixel_step = plan.phase.axes[2].step;
  const std::int64_t step = pixel_step * output.pixel_stride;
  T* to = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
  if (!call.epilogue.empty()) {
    auto epilogue = call.epilogue.tile(block.sample, first_channel, pixel, pixel_step);
    if (this->channels_last_) epilogue = transposed(epilogue);
    this->kernels_.epilogue(epilogue, produced, pixels, line, stride, 1);
  }
  if (this->channels_last_) {
    this->kernels_.transpose(produced, pixels, line, stride, 1, to, step, output.channel_stride);
    return;
  }
  for (int c = 0; c < produced; ++c) {
    for (int i = 0; i < pixels; ++i) {
      to[c * output.channel_stride + i * step] = line[c * stride + i];
    }
  }
}

template class PixelLanes<float>;
template class PixelLanes<double>;

}  // namespace convolith
