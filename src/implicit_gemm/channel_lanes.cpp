#include "implicit_gemm/channel_lanes.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"

namespace convolith {

template <class T>
ChannelLanes<T>::ChannelLanes(const ConvProblem& problem, const Machine& machine, int threads)
    : Base(problem, machine, threads, kernels_for<T>(machine).tile_rows, 1,
           kernels_for<T>(machine).tile_columns) {
  // Pixels of a tile that lie a page apart would share one set of L1.
  constexpr std::int64_t kPage = 4096;
  const auto apart = static_cast<std::int64_t>(sizeof(T)) * this->axes_[2].step() * this->reduced_;
  const bool conflicts = apart % kPage == 0;
  pixel_elements_ = this->reduced_ + (conflicts ? this->kernels_.lanes : 0);
  this->in_place_ = this->pointwise_ && this->channels_last_ && !conflicts;
  touching_ = !conflicts;
  for (const PhasePlan& plan : this->phases_) {
    const auto& taps = plan.phase.axes[2].taps;
    for (std::size_t t = 1; t < taps.size(); ++t) {
      touching_ = touching_ && this->axes_[2].place(taps[t].offset) ==
                                   this->axes_[2].place(taps[t - 1].offset) + 1;
    }
  }
  // Strips take a quarter of L2; a k block's panel of weights takes two thirds of L1.
  this->cut_blocks(static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T)));
  const auto panel_row_bytes = static_cast<std::int64_t>(this->panel_width_ * sizeof(T));
  const std::int64_t most = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(machine.l1_bytes) * 2 / 3 / panel_row_bytes, 64, kMaxChain);
  for (const PhasePlan& plan : this->phases_) {
    reductions_.push_back(cut_reduction(plan.phase, most));
  }
}

/// Lists the units of a phase, and cuts them into blocks of at most `most` products: whole units,
/// or equal parts of one.
template <class T>
typename ChannelLanes<T>::Reduction ChannelLanes<T>::cut_reduction(const Phase& phase,
                                                                   std::int64_t most) const {
  const auto& [depth, height, width] = phase.axes;
  const auto width_taps = static_cast<std::int64_t>(width.taps.size());
  const std::int64_t unit_taps = touching_ ? std::max<std::int64_t>(width_taps, 1) : 1;
  const std::int64_t length = unit_taps * this->reduced_;
  Reduction result;
  std::int64_t place = 0;
  for (const AxisPhase::Tap& d : depth.taps) {
    for (const AxisPhase::Tap& h : height.taps) {
      for (std::int64_t w = 0; w < width_taps; w += unit_taps) {
        const std::int64_t source =
            this->strip_at(d.offset, this->axes_[1].place(h.offset)) +
            this->axes_[2].place(width.taps[static_cast<std::size_t>(w)].offset) * pixel_elements_;
        // Read in place, the one tap is the destination's own pixel.
        const Tap tap{this->in_place_ ? 0 : source, place * this->panel_width_};
        result.units.push_back({tap, d.offset, h.offset});
        result.taps.push_back(tap);
        place += length;
      }
    }
  }
  const auto units = static_cast<std::int64_t>(result.units.size());
  if (length <= most) {
    const auto blocks = static_cast<int>(divide_up(units, most / length));
    for (int b = 0; b < blocks; ++b) {
      const Range range = Range::share(units, b, blocks);
      result.blocks.push_back({range.begin, range.end - range.begin, 0, length});
    }
  } else {
    const auto parts = static_cast<int>(divide_up(length, most));
    for (std::int64_t unit = 0; unit < units; ++unit) {
      for (int part = 0; part < parts; ++part) {
        const Range range = Range::share(length, part, parts);
        result.blocks.push_back({unit, 1, range.begin, range.end - range.begin});
      }
    }
  }
  // A phase without taps writes zeros.
  if (result.blocks.empty()) result.blocks.push_back({0, 0, 0, length});
  return result;
}

template <class T>
std::int64_t ChannelLanes<T>::row_elements(std::int64_t columns) const noexcept {
  return this->axes_[2].length(columns) * pixel_elements_;
}

/// In channels_first, the tiles of a block before they are transposed.
template <class T>
std::size_t ChannelLanes<T>::extra_bytes() const noexcept {
  if (this->channels_last_) return 0;
  return aligned_bytes<T>(this->block_rows_ * this->block_columns_ * this->panel_width_);
}

/// Panels [phase][group][panel][tap][reduced channel][lane].
template <class T>
void ChannelLanes<T>::pack(const void* weight, void* packed) const noexcept {
  const std::int64_t taps = this->problem_.taps();
  const std::int64_t in_stride = taps;
  const std::int64_t out_stride = taps * this->problem_.in_channels_per_group();
  const std::int64_t lane_stride = this->adjoint_ ? in_stride : out_stride;
  const std::int64_t reduced_stride = this->adjoint_ ? out_stride : in_stride;
  const int width = this->panel_width_;
  parallel_for(this->threads_, this->problem_.groups * this->panels_, [&](std::int64_t index, int) {
    const std::int64_t first = index % this->panels_ * width;
    const T* from = static_cast<const T*>(weight) +
                    index / this->panels_ * this->problem_.out_channels_per_group() * out_stride +
                    first * lane_stride;
    const auto valid = static_cast<int>(std::min<std::int64_t>(width, this->produced_ - first));
    for (const PhasePlan& plan : this->phases_) {
      T* panel = static_cast<T*>(packed) + plan.packed_begin + index * plan.reduction * width;
      if (!this->adjoint_ && taps > 1) {
        this->kernels_.pack_taps(width, valid, from, lane_stride, this->reduced_, taps,
                                 plan.places.data(), panel);
        continue;
      }
      for (std::int64_t t = 0; t < taps; ++t) {
        if (plan.places[t] < 0) continue;
        this->kernels_.pack_panel(width, valid, this->reduced_, from + t, lane_stride,
                                  reduced_stride, panel + plan.places[t] * this->reduced_ * width);
      }
    }
  });
}

template <class T>
void ChannelLanes<T>::pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                                 std::int64_t columns, T* strip) const noexcept {
  const StripAxis& axis = this->axes_[2];
  const std::int64_t extent = this->sources_[2];
  // Pixel j of a series comes from offset + j * step.
  const auto pack_series = [&](std::int64_t offset, std::int64_t step, std::int64_t count, T* to,
                               std::int64_t to_stride) {
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-offset, step), 0, count);
    const std::int64_t end =
        line == nullptr ? begin : std::clamp(divide_up(extent - offset, step), begin, count);
    if (begin < end) {
      pack_pixels(source, line + (offset + begin * step) * source.pixel_stride, step, end - begin,
                  to + begin * to_stride, to_stride);
    }
    const auto pad = [&](std::int64_t j) {
      const std::int64_t at =
          line == nullptr
              ? -1
              : padded_source(offset + j * step, extent, this->problem_.padding_mode);
      if (at >= 0) {
        pack_pixels(source, line + at * source.pixel_stride, 1, 1, to + j * to_stride, to_stride);
      } else {
        const CopySegment<T> zeros{nullptr, to + j * to_stride, this->reduced_};
        this->kernels_.copy_segments(&zeros, 1);
      }
    };
    for (std::int64_t j = 0; j < begin; ++j) pad(j);
    for (std::int64_t j = end; j < count; ++j) pad(j);
  };
  if (axis.offsets().empty()) return;
  const std::int64_t start = first_column * this->source_step_[2];
  if (axis.shared()) {
    pack_series(start + axis.offsets().front(), 1, axis.length(columns), strip, pixel_elements_);
    return;
  }
  for (const std::int64_t offset : axis.offsets()) {
    pack_series(start + offset, this->source_step_[2], columns,
                strip + axis.place(offset) * pixel_elements_, axis.step() * pixel_elements_);
  }
}

/// `pixels` pixels of all reduced channels, `step` apart in the source, channels together.
template <class T>
void ChannelLanes<T>::pack_pixels(const Maps<T>& source, const T* from, std::int64_t step,
                                  std::int64_t pixels, T* to,
                                  std::int64_t to_stride) const noexcept {
  const std::int64_t from_stride = step * source.pixel_stride;
  if (!this->channels_last_) {
    this->kernels_.transpose(this->reduced_, pixels, from, source.channel_stride, from_stride, to,
                             to_stride, 1);
    return;
  }
  if (from_stride == this->reduced_ && to_stride == this->reduced_) {
    const CopySegment<T> all{from, to, pixels * this->reduced_};
    this->kernels_.copy_segments(&all, 1);
    return;
  }
  for (std::int64_t p = 0; p < pixels; ++p) {
    const CopySegment<T> one{from + p * from_stride, to + p * to_stride, this->reduced_};
    this->kernels_.copy_segments(&one, 1);
  }
}

template <class T>
void ChannelLanes<T>::multiply(const Call& call, const Block& block, const T* strips,
                               const Range& panels, std::byte* extra) const noexcept {
  T* tiles = reinterpret_cast<T*>(extra);
  Sources sources{strips, this->axes_[1].step() * this->strip_row_elements(),
                  this->axes_[2].step() * pixel_elements_};
  if (this->in_place_) {
    const Maps<T>& source = call.source;
    const std::int64_t row = block.depth * this->sources_[1] + block.row;
    sources = {source.sample(block.sample, block.group * this->reduced_) +
                   (row * this->sources_[2] + block.column) * source.pixel_stride,
               this->sources_[2] * source.pixel_stride, source.pixel_stride};
  }
  for (std::size_t p = 0; p < this->phases_.size(); ++p) {
    const PhasePlan& plan = this->phases_[p];
    const auto& [depth, height, width] = plan.phase.axes;
    const std::int64_t row_end = std::min(block.row_end, height.count);
    const std::int64_t columns = std::min(block.column_end, width.count) - block.column;
    if (block.depth >= depth.count || columns <= 0) continue;
    // Whole rows of a dense grid follow one another in the output.
    const bool whole = plan.phase.dense() && columns == width.count;
    const std::int64_t together = whole ? row_end - block.row : 1;
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      for (const KBlock& k : reductions_[p].blocks) {
        for (std::int64_t row = block.row; row < row_end; ++row) {
          multiply_row(call, block, plan, reductions_[p], sources, row, k, panel, tiles);
        }
      }
      if (this->channels_last_ && call.epilogue.empty()) continue;
      for (std::int64_t row = block.row; row < row_end; row += together) {
        finish_rows(call, block, plan, row, together, columns, panel, tiles);
      }
    }
  }
}

/// Adds the products of one k block to the tiles of one output row.
template <class T>
void ChannelLanes<T>::multiply_row(const Call& call, const Block& block, const PhasePlan& plan,
                                   const Reduction& reduction, const Sources& sources,
                                   std::int64_t row, const KBlock& k, std::int64_t panel,
                                   T* tiles) const noexcept {
  const AxisPhase& width = plan.phase.axes[2];
  const Tap* taps = reduction.taps.data() + k.first;
  std::int64_t tap_count = k.units;
  bool first = k.first == 0 && k.begin == 0;
  // Kernel rows that lie in padding add nothing. Without any, the first block writes zeros.
  Tap kept[kMaxChain];
  if (this->problem_.padding_mode == PaddingMode::zeros) {
    const auto adds = [&](const Unit& unit) {
      return this->inside(0, block.depth, unit.depth_offset) &&
             this->inside(1, row, unit.row_offset);
    };
    const auto units = reduction.units.begin();
    const auto begin = units + k.first;
    const auto end = begin + k.units;
    const std::int64_t kept_count = std::count_if(begin, end, adds);
    if (kept_count < k.units) {
      const bool none = std::none_of(units, reduction.units.end(), adds);
      if (kept_count == 0 && !(none && first)) return;
      tap_count = 0;
      for (auto unit = begin; unit != end; ++unit) {
        if (adds(*unit)) kept[tap_count++] = unit->tap;
      }
      taps = kept;
    }
    first = k.begin == 0 && std::none_of(units, begin, adds);
  }
  const int panel_width = this->panel_width_;
  const std::int64_t first_channel = block.group * this->produced_ + panel * panel_width;
  const Maps<T>& output = call.output;

  GatherTile<T> tile{};
  tile.taps = taps;
  tile.tap_count = tap_count;
  tile.channels = k.length;
  tile.source_pixel_stride = sources.pixel_stride;
  tile.weight = call.packed + plan.packed_begin +
                ((block.group * this->panels_ + panel) * plan.reduction + k.begin) * panel_width;
  tile.out_channels =
      static_cast<int>(std::min<std::int64_t>(panel_width, this->produced_ - panel * panel_width));
  tile.accumulate = !first;
  const T* source = sources.data + (row - block.row) * sources.row_stride + k.begin;
  const std::int64_t columns = std::min(block.column_end, width.count) - block.column;
  // Equal tiles: no short one waits for its weights.
  const auto count = static_cast<int>(divide_up(columns, this->tile_pixels_));
  for (int t = 0; t < count; ++t) {
    const Range range = Range::share(columns, t, count);
    tile.pixels = static_cast<int>(range.end - range.begin);
    tile.source = source + range.begin * sources.pixel_stride;
    if (this->channels_last_) {
      const std::int64_t pixel =
          this->output_pixel(plan.phase, block.depth, row, block.column + range.begin);
      tile.output = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
      tile.output_pixel_stride = width.step * output.pixel_stride;
    } else {
      tile.output = tiles + ((row - block.row) * columns + range.begin) * panel_width;
      tile.output_pixel_stride = panel_width;
    }
    this->kernels_.gather_channels_last(tile);
  }
}

/// Brings rows of channels_first home, and applies the epilogue. The pixels of several rows must
/// follow one another in the output.
template <class T>
void ChannelLanes<T>::finish_rows(const Call& call, const Block& block, const PhasePlan& plan,
                                  std::int64_t row, std::int64_t rows, std::int64_t columns,
                                  std::int64_t panel, const T* tiles) const noexcept {
  const int panel_width = this->panel_width_;
  const Maps<T>& output = call.output;
  const std::int64_t first_channel = block.group * this->produced_ + panel * panel_width;
  const auto channels =
      static_cast<int>(std::min<std::int64_t>(panel_width, this->produced_ - panel * panel_width));
  const std::int64_t pixel = this->output_pixel(plan.phase, block.depth, row, block.column);
  const std::int64_t pixel_step = plan.phase.axes[2].step;
  const std::int64_t step = pixel_step * output.pixel_stride;
  const auto pixels = static_cast<int>(rows * columns);
  T* to = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
  const auto epilogue = call.epilogue.tile(block.sample, first_channel, pixel, pixel_step);
  if (this->channels_last_) {
    this->kernels_.epilogue(epilogue, pixels, channels, to, step, output.channel_stride);
    return;
  }
  this->kernels_.transpose(pixels, channels, tiles + (row - block.row) * columns * panel_width,
                           panel_width, 1, to, output.channel_stride, step);
  if (call.epilogue.empty()) return;
  this->kernels_.epilogue(epilogue, channels, pixels, to, output.channel_stride, step);
}

template class ChannelLanes<float>;
template class ChannelLanes<double>;

}  // namespace convolith
