#include "implicit_gemm/pixel_lanes.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"

namespace convolith {
namespace {

int tile_pixels(const ConvProblem& problem, const auto& kernels) {
  const std::int64_t produced =
      is_adjoint(problem) ? problem.in_channels_per_group() : problem.out_channels_per_group();
  return kernels.offsets_columns(
      static_cast<int>(std::min<std::int64_t>(produced, kernels.tile_rows)));
}

}  // namespace

template <class T>
PixelLanes<T>::PixelLanes(const ConvProblem& problem, const Machine& machine, int threads)
    : Base(problem, machine, threads, tile_pixels(problem, kernels_for<T>(machine)),
           kernels_for<T>(machine).lanes, kernels_for<T>(machine).tile_rows) {
  this->in_place_ = this->pointwise_ && !this->channels_last_;
  // A panel of weights takes a third of L1, as does what a tile reads; strips a quarter of L2.
  most_terms_ = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(machine.l1_bytes / 3 / sizeof(T)) / this->panel_width_, 64,
      kMaxChain);
  this->cut_blocks(static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T)));
  if (!this->in_place_) {
    for (const PhasePlan& plan : this->phases_) offsets_.push_back(list_offsets(plan.phase));
  }
}

/// Pixels of one residue in a strip, one vector apart from a power of two: against conflicts in L1.
template <class T>
std::int64_t PixelLanes<T>::residue_pixels(std::int64_t columns) const noexcept {
  const auto& offsets = this->axes_[2].offsets();
  const std::int64_t reach =
      offsets.empty() ? 0 : (offsets.back() - offsets.front()) / this->source_step_[2];
  // The last tile reads whole vectors.
  return round_up(columns, this->tile_pixels_) + round_up(reach, this->kernels_.lanes) +
         this->kernels_.lanes;
}

template <class T>
std::int64_t PixelLanes<T>::row_elements(std::int64_t columns) const noexcept {
  return this->reduced_ * this->source_step_[2] * residue_pixels(columns);
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
  const std::int64_t residues = this->source_step_[2];
  const std::int64_t residue = residue_pixels(this->block_columns_);
  std::vector<std::int64_t> offsets;
  for (const AxisPhase::Tap& d : depth.taps) {
    for (const AxisPhase::Tap& h : height.taps) {
      const std::int64_t strip = this->strip_at(d.offset, this->axes_[1].place(h.offset));
      for (const AxisPhase::Tap& w : width.taps) {
        const std::int64_t shift = w.offset - this->axes_[2].offsets().front();
        for (std::int64_t c = 0; c < this->reduced_; ++c) {
          offsets.push_back(strip + (c * residues + shift % residues) * residue +
                            shift / residues);
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
  const auto& offsets = this->axes_[2].offsets();
  if (offsets.empty()) return;
  const std::int64_t step = this->source_step_[2];
  const std::int64_t extent = this->sources_[2];
  const std::int64_t residue_elements = residue_pixels(this->block_columns_);
  const std::int64_t channel = step * residue_elements;
  const std::int64_t start = first_column * step + offsets.front();
  const std::int64_t needed = (columns - 1) * step + offsets.back() - offsets.front() + 1;
  for (std::int64_t residue = 0; residue < step; ++residue, strip += residue_elements) {
    // Pixel j of the residue comes from j * step + offset.
    const std::int64_t offset = start + residue;
    const std::int64_t count = std::max<std::int64_t>(0, divide_up(needed - residue, step));
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-offset, step), 0, count);
    const std::int64_t end =
        line == nullptr ? begin : std::clamp(divide_up(extent - offset, step), begin, count);
    if (begin < end) {
      pack_pixels(source, line + (offset + begin * step) * source.pixel_stride, end - begin,
                  strip + begin);
    }
    const auto pad = [&](std::int64_t j) {
      const std::int64_t at =
          line == nullptr
              ? -1
              : padded_source(offset + j * step, extent, this->problem_.padding_mode);
      for (std::int64_t c = 0; c < this->reduced_; ++c) {
        strip[c * channel + j] =
            at < 0 ? T(0) : line[at * source.pixel_stride + c * source.channel_stride];
      }
    };
    for (std::int64_t j = 0; j < begin; ++j) pad(j);
    for (std::int64_t j = end; j < count; ++j) pad(j);
  }
}

/// `count` pixels of all reduced channels, the step apart in the source, pixels together.
template <class T>
void PixelLanes<T>::pack_pixels(const Maps<T>& source, const T* from, std::int64_t count,
                                T* to) const noexcept {
  const std::int64_t step = this->source_step_[2] * source.pixel_stride;
  const std::int64_t channel = this->source_step_[2] * residue_pixels(this->block_columns_);
  if (this->channels_last_) {
    this->kernels_.transpose(count, this->reduced_, from, step, source.channel_stride, to, channel,
                             1);
    return;
  }
  for (std::int64_t c = 0; c < this->reduced_; ++c) {
    this->kernels_.copy_strided(count, from + c * source.channel_stride, step, to + c * channel);
  }
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
    const std::int64_t row_end = std::min(block.row_end, plan.phase.axes[1].count);
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      for (std::int64_t row = block.row; row < row_end; ++row) {
        multiply_row(call, block, plan, offsets, source + (row - block.row) * row_stride, row,
                     panel, tile);
      }
    }
  }
}

/// The terms of a row's sums without the kernel rows at either end that lie in padding.
template <class T>
Range PixelLanes<T>::terms_inside(const PhasePlan& plan, std::int64_t depth,
                                  std::int64_t row) const noexcept {
  const auto& axes = plan.phase.axes;
  const Range planes = this->taps_inside(plan.phase, 0, depth);
  const Range rows = this->taps_inside(plan.phase, 1, row);
  if (planes.begin == planes.end || rows.begin == rows.end) return {0, 0};
  const auto height = static_cast<std::int64_t>(axes[1].taps.size());
  const std::int64_t kernel_row = static_cast<std::int64_t>(axes[2].taps.size()) * this->reduced_;
  return {(planes.begin * height + rows.begin) * kernel_row,
          ((planes.end - 1) * height + rows.end) * kernel_row};
}

/// The sums of one output row and panel of output channels, tile by tile.
template <class T>
void PixelLanes<T>::multiply_row(const Call& call, const Block& block, const PhasePlan& plan,
                                 const std::int64_t* offsets, const T* source, std::int64_t row,
                                 std::int64_t panel, T* tile) const noexcept {
  const Range channels = panel_channels(panel);
  const auto produced = static_cast<int>(channels.end - channels.begin);
  const std::int64_t first_channel = block.group * this->produced_ + channels.begin;
  const T* weight = call.packed + plan.packed_begin +
                    (block.group * this->panels_ + panel) * this->panel_elements_;
  const Maps<T>& output = call.output;
  const Range terms = terms_inside(plan, block.depth, row);
  const auto k_blocks = static_cast<int>(
      std::max<std::int64_t>(1, divide_up(terms.end - terms.begin, most_terms_)));
  const std::int64_t column_end = std::min(block.column_end, plan.phase.axes[2].count);
  for (std::int64_t column = block.column; column < column_end; column += this->tile_pixels_) {
    const auto pixels =
        static_cast<int>(std::min<std::int64_t>(this->tile_pixels_, column_end - column));
    const std::int64_t pixel = this->output_pixel(plan.phase, block.depth, row, column);
    T* to = stores_tiles()
                ? tile
                : output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
    const std::int64_t to_stride = stores_tiles() ? this->tile_pixels_ : output.channel_stride;
    for (int b = 0; b < k_blocks; ++b) {
      const Range k = Range::share(terms.end - terms.begin, b, k_blocks);
      this->kernels_.gemm_offsets_tile(
          produced, pixels, k.end - k.begin, weight + (terms.begin + k.begin) * this->panel_width_,
          source + column - block.column, offsets + terms.begin + k.begin, to, to_stride, b > 0);
    }
    finish_tile(call, block, plan, row, column, pixels, channels, tile);
  }
}

/// Applies the epilogue to a tile [channel][pixel], and brings it home where it does not lie so.
template <class T>
void PixelLanes<T>::finish_tile(const Call& call, const Block& block, const PhasePlan& plan,
                                std::int64_t row, std::int64_t column, int pixels,
                                const Range& channels, T* tile) const noexcept {
  const auto produced = static_cast<int>(channels.end - channels.begin);
  const std::int64_t first_channel = block.group * this->produced_ + channels.begin;
  const Maps<T>& output = call.output;
  const std::int64_t pixel = this->output_pixel(plan.phase, block.depth, row, column);
  const std::int64_t pixel_step = plan.phase.axes[2].step;
  const std::int64_t step = pixel_step * output.pixel_stride;
  T* to = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
  const bool at_home = !stores_tiles();
  if (!call.epilogue.empty()) {
    auto epilogue = call.epilogue.tile(block.sample, first_channel, pixel, pixel_step);
    if (this->channels_last_) epilogue = transposed(epilogue);
    this->kernels_.epilogue(epilogue, produced, pixels, at_home ? to : tile,
                            at_home ? output.channel_stride : this->tile_pixels_, at_home ? step : 1);
  }
  if (at_home) return;
  if (this->channels_last_) {
    this->kernels_.transpose(produced, pixels, tile, this->tile_pixels_, 1, to, step,
                             output.channel_stride);
    return;
  }
  for (int c = 0; c < produced; ++c) {
    for (int i = 0; i < pixels; ++i) {
      to[c * output.channel_stride + i * step] = tile[c * this->tile_pixels_ + i];
    }
  }
}

template class PixelLanes<float>;
template class PixelLanes<double>;

}  // namespace convolith
