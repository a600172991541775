#include "implicit_gemm/channel_lanes.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"

namespace convolith {

namespace {

std::int64_t reduced_channels(const ConvProblem& problem) {
  return is_adjoint(problem) ? problem.out_channels_per_group() : problem.in_channels_per_group();
}

/// Of the weights that a tile goes through in one chain, in a panel.
template <class T>
std::size_t panel_bytes(const ConvProblem& problem, const Machine& machine) {
  const std::int64_t terms =
      std::min<std::int64_t>(problem.taps() * reduced_channels(problem), kMaxChain);
  return static_cast<std::size_t>(terms * kernels_for<T>(machine).tile_columns) * sizeof(T);
}

/// Pixels of a register tile of one panel. As many as there is room for read the weights least
/// often; fewer do better where a panel of weights stays in L1, or where the pixels share a set of
/// it, which has a line for as many as there are ways.
template <class T>
int tile_pixels(const ConvProblem& problem, const Machine& machine) {
  const Kernels<T>& kernels = kernels_for<T>(machine);
  if (panel_bytes<T>(problem, machine) <= machine.l1_bytes / 2) return kernels.overlapping_rows;
  const std::int64_t step = is_adjoint(problem) ? 1 : problem.windows[2].stride;
  const bool conflict =
      problem.layout == Layout::channels_last &&
      share_a_set(step * reduced_channels(problem) * static_cast<std::int64_t>(sizeof(T)));
  return conflict ? std::clamp(static_cast<int>(machine.l1_bytes / kWayBytes),
                               kernels.overlapping_rows, kernels.tile_rows)
                  : kernels.tile_rows;
}

}  // namespace

template <class T>
ChannelLanes<T>::ChannelLanes(const ConvProblem& problem, const Machine& machine, int threads)
    : Base(problem, machine, threads, tile_pixels<T>(problem, machine), 1,
           kernels_for<T>(machine).tile_columns),
      fused_(problem.epilogue, problem.layout == Layout::channels_last),
      pairs_(pairs_panels<T>(machine)),
      tile_panels_(pairs_ && 2 * panel_bytes<T>(problem, machine) <= machine.l1_bytes ? 2 : 1) {
  this->past_caches_ = this->channels_last_ && maps_outgrow_caches(problem);
  choose_segments();
  // Strips take a quarter of L2; the weights of a sweep half of it, or a quarter where sources are
  // read in place that outgrow the other half. Where the weights of one panel outgrow a quarter,
  // sources are read again for each panel sooner than weights for a few rows.
  constexpr std::int64_t kMostStripBytes = 16 << 20;
  const auto quarter = static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T));
  const bool all_rows = this->panel_elements_ > quarter;
  this->cut_blocks(!all_rows         ? quarter
                   : this->in_place_ ? std::numeric_limits<std::int64_t>::max()
                                     : kMostStripBytes / static_cast<std::int64_t>(sizeof(T)));
  // A run of pixels, in L1, goes through the panels of weights that fit beside maps into L2 before
  // the next run, so that the outputs of a pixel are written together; one by one where threads
  // share pixels, for prefetchers take from one what another is about to write.
  const auto fitting = [&](std::size_t bytes, std::int64_t elements) {
    return static_cast<std::int64_t>(bytes / sizeof(T)) / std::max<std::int64_t>(1, elements);
  };
  panels_together_ =
      std::max(tile_panels_, this->channels_last_ && !this->shares_pixels()
                                 ? fitting(machine.l2_bytes / 4, this->panel_elements_)
                                 : 1);
  run_pixels_ =
      this->tile_pixels_ *
      std::max<std::int64_t>(1, fitting(machine.l1_bytes / 4, this->reduced_ * this->tile_pixels_));
  const bool crowded = this->in_place_ && this->source_bytes() > machine.l2_bytes / 2;
  sweep_blocks_ = std::max<std::int64_t>(
      1, fitting(machine.l2_bytes / (crowded ? 4 : 2), kMaxChain * this->panel_width_));
  for (std::size_t p = 0; p < this->phases_.size(); ++p) {
    std::int64_t taps = 0;
    std::vector<Segment> segments;
    for (const ColumnSegment& columns : columns_[p]) {
      const Phase& phase = this->phases_[p].phase;
      const Segment& segment = segments.emplace_back(cut_products(phase, columns));
      const auto planes = static_cast<std::int64_t>(phase.axes[0].taps.size());
      const auto kernel_rows = static_cast<std::int64_t>(phase.axes[1].taps.size());
      most_blocks_ = std::max(
          most_blocks_, planes * divide_up(kernel_rows * segment.row_units, segment.block_units) *
                            divide_up(segment.length, segment.block_length));
      taps += static_cast<std::int64_t>(segment.taps.size());
    }
    most_taps_ = std::max(most_taps_, taps);
    segments_.push_back(std::move(segments));
    const AxisPhase& height = this->phases_[p].phase.axes[1];
    bands_.push_back(problem.padding_mode == PaddingMode::zeros
                         ? ranges_of_equal_taps(height, this->sources_[1])
                         : std::vector<Range>{{0, height.count}});
  }
}

/// Reads the source in place and leaves out the taps under which a column finds padding, or packs
/// it with its padding and takes all taps of a kernel row at once, whichever costs less.
template <class T>
void ChannelLanes<T>::choose_segments() {
  const bool zeros = this->problem_.padding_mode == PaddingMode::zeros;
  std::vector<std::vector<ColumnSegment>> whole, inside;
  double whole_cost = 0, inside_cost = 0;
  // Strips of channels_first are packed, and may have gaps.
  const bool gaps = !this->channels_last_ && share_a_set(this->axes_[2].step() * this->reduced_ *
                                                         static_cast<std::int64_t>(sizeof(T)));
  pixel_elements_ = this->reduced_ + (gaps ? this->kernels_.lanes : 0);
  touching_ = !gaps;
  const bool readable = this->channels_last_
                            ? zeros || this->pointwise_
                            : this->pointwise_ && channels_lie_spread(this->problem_);
  for (const PhasePlan& plan : this->phases_) {
    const AxisPhase& width = plan.phase.axes[2];
    for (std::size_t t = 1; t < width.taps.size(); ++t) {
      touching_ = touching_ && this->axes_[2].place(width.taps[t].offset) ==
                                   this->axes_[2].place(width.taps[t - 1].offset) + 1;
    }
    whole.push_back(whole_segment(width));
    inside.push_back(segments_inside(width, this->sources_[2]));
    const double kernel_rows = static_cast<double>(plan.phase.taps()) /
                               static_cast<double>(std::max<std::size_t>(1, width.taps.size()));
    const auto add = [&](const std::vector<ColumnSegment>& segments, bool together) {
      constexpr double kUnit = 12;  // to begin another run of products, in pixels and products
      double cost = segment_products(segments, this->tile_pixels_) *
                    static_cast<double>(this->reduced_);
      for (const ColumnSegment& segment : segments) {
        const std::int64_t columns = segment.columns.end - segment.columns.begin;
        cost += kUnit * static_cast<double>(divide_up(columns, this->tile_pixels_)) *
                (together ? 1.0 : static_cast<double>(segment.taps.size()));
      }
      return cost * kernel_rows;
    };
    whole_cost += add(whole.back(), touching_);
    inside_cost += add(inside.back(), false);
  }
  if (readable) {
    // To pack costs about a third of a product, for all panels of weights together.
    whole_cost += 0.3 * static_cast<double>(this->reduced_ * this->source_step_[1] *
                                            this->source_step_[2] * this->destinations_[2]) /
                  static_cast<double>(this->panels_);
  }
  const bool exact = this->pointwise_ || (zeros && inside_cost < whole_cost);
  this->in_place_ = readable && exact;
  touching_ = touching_ && !exact;
  columns_ = exact ? std::move(inside) : std::move(whole);
}

/// Lists the units of a segment, and how they are cut into k blocks of kMaxChain products at most.
template <class T>
typename ChannelLanes<T>::Segment ChannelLanes<T>::cut_products(
    const Phase& phase, const ColumnSegment& columns) const {
  const auto& [depth, height, width] = phase.axes;
  const auto width_taps = static_cast<std::int64_t>(width.taps.size());
  Segment result;
  result.columns = columns.columns;
  for (const ColumnSegment::Tap& tap : columns.taps) {
    result.padded = result.padded || tap.padded_edges != 0;
  }
  result.row_units = touching_ ? std::min<std::int64_t>(width_taps, 1)
                               : static_cast<std::int64_t>(columns.taps.size());
  result.length = (touching_ ? std::max<std::int64_t>(width_taps, 1) : 1) * this->reduced_;
  std::int64_t kernel_row = 0;
  for (const AxisPhase::Tap& d : depth.taps) {
    for (const AxisPhase::Tap& h : height.taps) {
      for (std::int64_t u = 0; u < result.row_units; ++u) {
        const ColumnSegment::Tap& tap = columns.taps[static_cast<std::size_t>(u)];
        const std::int64_t offset = width.taps[tap.index].offset;
        const std::int64_t source =
            this->in_place_ ? (d.offset * this->sources_[1] + h.offset) * this->sources_[2] + offset
                            : this->strip_at(d.offset, this->axes_[1].place(h.offset)) +
                                  this->axes_[2].place(offset) * pixel_elements_;
        const std::int64_t place =
            kernel_row * width_taps + static_cast<std::int64_t>(tap.index);
        result.taps.push_back(
            {source, place * this->reduced_ * this->panel_width_, tap.padded_edges});
      }
      ++kernel_row;
    }
  }
  constexpr std::int64_t kLong = 32;
  const bool all_taps = columns.taps.size() == width.taps.size();
  if (result.length < kLong && all_taps && !this->in_place_) {
    for (const Tap& tap : result.taps) {
      for (std::int64_t i = 0; i < result.length; ++i) result.offsets.push_back(tap.source + i);
    }
  }
  if (result.length <= kMaxChain) {
    result.block_units = kMaxChain / result.length;
    result.block_length = result.length;
  } else {
    result.block_units = 1;
    result.block_length = divide_up(result.length, divide_up(result.length, kMaxChain));
  }
  return result;
}

template <class T>
std::int64_t ChannelLanes<T>::row_elements(std::int64_t columns) const noexcept {
  return this->axes_[2].length(columns) * pixel_elements_;
}

template <class T>
std::size_t ChannelLanes<T>::list_bytes() const noexcept {
  return aligned_bytes<KBlock>(most_blocks_) +
         (this->in_place_ ? aligned_bytes<Tap>(most_taps_) : 0);
}

/// The lists; in channels_first, the tiles of a block before they are transposed.
template <class T>
std::size_t ChannelLanes<T>::extra_bytes() const noexcept {
  std::size_t bytes = list_bytes();
  if (!this->channels_last_) {
    bytes += aligned_bytes<T>(this->block_rows_ * this->block_columns_ * panels_together_ *
                              this->panel_width_);
  }
  return bytes;
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
  auto* k_blocks = reinterpret_cast<KBlock*>(extra);
  std::byte* lists = extra + aligned_bytes<KBlock>(most_blocks_);
  T* tiles = reinterpret_cast<T*>(extra + list_bytes());
  Sources sources{strips, this->axes_[1].step() * this->strip_row_elements(),
                  this->axes_[2].step() * pixel_elements_, 1};
  if (this->in_place_) {
    const Maps<T>& source = call.source;
    const auto& step = this->source_step_;
    const std::int64_t row =
        block.depth * step[0] * this->sources_[1] + block.row * step[1];
    sources = {source.sample(block.sample, block.group * this->reduced_) +
                   (row * this->sources_[2] + block.column * step[2]) * source.pixel_stride,
               step[1] * this->sources_[2] * source.pixel_stride, step[2] * source.pixel_stride,
               source.channel_stride};
  }
  for (std::size_t p = 0; p < this->phases_.size(); ++p) {
    const PhasePlan& plan = this->phases_[p];
    const auto& [depth, height, width] = plan.phase.axes;
    const std::int64_t row_end = std::min(block.row_end, height.count);
    const std::int64_t columns = std::min(block.column_end, width.count) - block.column;
    if (block.depth >= depth.count || columns <= 0) continue;
    if (this->in_place_) list_taps(segments_[p], call.source.pixel_stride, lists);
    // Whole rows of a dense grid follow one another in the output.
    const bool whole = plan.phase.dense() && columns == width.count;
    const std::int64_t together = whole ? row_end - block.row : 1;
    const bool streams = this->in_place_ && this->pointwise_ &&
                         sources.pixel_stride == this->reduced_;
    for (Range part = panels; part.begin < panels.end; part.begin = part.end) {
      part.end = std::min(part.begin + panels_together_, panels.end);
      bool more = true;
      for (std::int64_t sweep = 0; more; sweep += sweep_blocks_) {
        more = false;
        for (std::int64_t row = block.row; row < row_end; ++row) {
          const Range band = band_of(p, block, row);
          const Tap* listed = reinterpret_cast<const Tap*>(lists);
          for (const Segment& segment : segments_[p]) {
            const std::int64_t count =
                list_k_blocks(plan.phase, segment, block.depth, row, k_blocks);
            const std::int64_t end = std::min(sweep + sweep_blocks_, count);
            const Tap* taps = this->in_place_ ? listed : segment.taps.data();
            listed += segment.taps.size();
            more = more || end < count;
            if (sweep > 0 && sweep >= count) continue;
            multiply_row(call,
                         {block, plan, segment, taps, k_blocks + sweep, k_blocks + end, part,
                          sweep > 0, end == count, streams && part.begin == panels.begin},
                         row, band, sources, tiles);
          }
        }
      }
      if (this->channels_last_) continue;
      for (std::int64_t row = block.row; row < row_end; row += together) {
        finish_rows(call, block, plan, row, together, columns, part, tiles);
      }
    }
  }
}

/// Taps for the strides of a call: their sources in elements.
template <class T>
void ChannelLanes<T>::list_taps(const std::vector<Segment>& segments, std::int64_t pixel_stride,
                                std::byte* scratch) const noexcept {
  auto* listed = reinterpret_cast<Tap*>(scratch);
  for (const Segment& segment : segments) {
    for (const Tap& tap : segment.taps) {
      *listed++ = {tap.source * pixel_stride, tap.weight, tap.padded_edges};
    }
  }
}

/// Lists the k blocks of an output row, without kernel rows that lie in padding; returns how many.
template <class T>
std::int64_t ChannelLanes<T>::list_k_blocks(const Phase& phase, const Segment& segment,
                                            std::int64_t depth, std::int64_t row,
                                            KBlock* blocks) const noexcept {
  const KBlock* const first = blocks;
  const auto list_units = [&](std::int64_t unit, std::int64_t end) {
    for (; unit < end; unit += segment.block_units) {
      const std::int64_t units = std::min(segment.block_units, end - unit);
      for (std::int64_t begin = 0; begin < segment.length; begin += segment.block_length) {
        *blocks++ = {unit, units, begin, std::min(segment.block_length, segment.length - begin)};
      }
    }
  };
  const Range planes = this->taps_inside(phase, 0, depth);
  const Range rows = this->taps_inside(phase, 1, row);
  const auto kernel_rows = static_cast<std::int64_t>(phase.axes[1].taps.size());
  if (rows.end - rows.begin == kernel_rows) {
    list_units(planes.begin * kernel_rows * segment.row_units,
               planes.end * kernel_rows * segment.row_units);
  } else {
    for (std::int64_t plane = planes.begin; plane < planes.end; ++plane) {
      list_units((plane * kernel_rows + rows.begin) * segment.row_units,
                 (plane * kernel_rows + rows.end) * segment.row_units);
    }
  }
  return blocks - first;
}

/// The rows of a block whose products are those of `row`.
template <class T>
Range ChannelLanes<T>::band_of(std::size_t phase, const Block& block,
                               std::int64_t row) const noexcept {
  const std::vector<Range>& bands = bands_[phase];
  const Range& band =
      *std::find_if(bands.begin(), bands.end(), [row](const Range& b) { return row < b.end; });
  return {std::max(band.begin, block.row), std::min(band.end, block.row_end)};
}

/// Adds products to the tiles of a segment in one row; where the segment is so narrow that the
/// multiply-adds of a tile would wait for one another, and has more rows with the same products,
/// to those of all these rows when the first of them comes, column by column.
template <class T>
void ChannelLanes<T>::multiply_row(const Call& call, const Products& products, std::int64_t row,
                                   const Range& band, const Sources& sources,
                                   T* tiles) const noexcept {
  const Block& block = products.block;
  const Segment& segment = products.segment;
  const Range columns{
      std::max(segment.columns.begin, block.column),
      std::min({segment.columns.end, block.column_end, products.plan.phase.axes[2].count})};
  const std::int64_t count = columns.end - columns.begin;
  if (count <= 0) return;
  if (count >= kIndependentPixels || count >= band.end - band.begin || segment.padded) {
    multiply_line(call, products, {row, columns.begin, count, false}, sources, tiles);
  } else if (row == band.begin) {
    for (std::int64_t column = columns.begin; column < columns.end; ++column) {
      multiply_line(call, products, {row, column, band.end - band.begin, true}, sources, tiles);
    }
  }
}

/// Adds products to the tiles of some destinations.
template <class T>
void ChannelLanes<T>::multiply_line(const Call& call, const Products& products, const Line& line,
                                    const Sources& sources, T* tiles) const noexcept {
  const Block& block = products.block;
  const Segment& segment = products.segment;
  const Phase& phase = products.plan.phase;
  const auto& [depth, height, width] = phase.axes;
  const std::int64_t phase_columns = std::min(block.column_end, width.count) - block.column;
  const std::int64_t output_step = line.down ? height.step * this->outputs_[2] : width.step;
  GatherTile<T> tile{};
  tile.tile_pixels = this->tile_pixels_;
  tile.source_pixel_stride = line.down ? sources.row_stride : sources.pixel_stride;
  tile.source_channel_stride = sources.channel_stride;
  const std::int64_t panels_width = (products.panels.end - products.panels.begin) *
                                    this->panel_width_;
  tile.output_pixel_stride = this->channels_last_ ? output_step * call.output.pixel_stride
                             : line.down          ? phase_columns * panels_width
                                                  : panels_width;
  tile.panel_stride = this->panel_elements_;
  tile.pairs = pairs_;
  tile.least = fused_.least;
  tile.greatest = fused_.greatest;
  const auto runs = static_cast<int>(divide_up(line.pixels, run_pixels_));
  for (int r = 0; r < runs; ++r) {
    const Range run = Range::share(line.pixels, r, runs);
    const std::int64_t row = line.row + (line.down ? run.begin : 0);
    const std::int64_t column = line.column + (line.down ? 0 : run.begin);
    const std::int64_t pixel = this->output_pixel(phase, block.depth, row, column);
    tile.pixels = static_cast<int>(run.end - run.begin);
    tile.edges = (column == segment.columns.begin ? kFirstPixel : 0U) |
                 (line.column + run.end == segment.columns.end ? kLastPixel : 0U);
    for (Range panels = products.panels; panels.begin < products.panels.end;
         panels.begin = panels.end) {
      if (segment.offsets.empty()) {
        panels.end = std::min(panels.begin + tile_panels_, products.panels.end);
      }
      tile.source = sources.data + (row - block.row) * sources.row_stride +
                    (column - block.column) * sources.pixel_stride;
      tile.output = this->channels_last_
                        ? call.output.sample(block.sample, first_channel(block, panels.begin)) +
                              pixel * call.output.pixel_stride
                        : tiles + ((row - block.row) * phase_columns + column - block.column) *
                                      panels_width;
      multiply_run(call, products, panels, pixel, output_step, tile);
    }
  }
}

/// The k blocks of some pixels, and what the epilogue leaves of them: of several panels where terms
/// have offsets of their own, else of one.
template <class T>
void ChannelLanes<T>::multiply_run(const Call& call, const Products& products, const Range& panels,
                                   std::int64_t pixel, std::int64_t pixel_step,
                                   GatherTile<T>& tile) const noexcept {
  const Block& block = products.block;
  const Segment& segment = products.segment;
  const T* source = tile.source;
  const T* weight = call.packed + products.plan.packed_begin +
                    (block.group * this->panels_ + panels.begin) * this->panel_elements_;
  tile.out_channels = channels_of(panels);
  tile.bias = call.epilogue.bias(first_channel(block, panels.begin));
  const bool rest = this->channels_last_ && products.finishes && fused_.rest;
  TileEpilogue<T> epilogue{};
  if (rest || fused_.adds_residual) {
    epilogue =
        call.epilogue.rest(block.sample, first_channel(block, panels.begin), pixel, pixel_step);
  }
  if (fused_.adds_residual) {
    tile.residual = epilogue.residual;
    tile.residual_pixel_stride = epilogue.residual_row_stride;
  }
  const bool finishes = tile.bias != nullptr || tile.residual != nullptr || fused_.clamps;
  const bool aligned = (reinterpret_cast<std::uintptr_t>(tile.output) |
                        static_cast<std::uintptr_t>(tile.output_pixel_stride) * sizeof(T)) %
                           kAlignment ==
                       0;
  const bool past_caches = this->past_caches_ && aligned;
  const auto set_block = [&](bool first, bool last) {
    tile.accumulate = products.accumulates || !first;
    tile.finishes = products.finishes && last && finishes;
    tile.past_caches = past_caches && products.finishes && last && !tile.accumulate;
  };
  for (const KBlock* k = products.begin; k != products.end; ++k) {
    set_block(k == products.begin, k + 1 == products.end);
    if (!segment.offsets.empty()) {
      tile.weight = weight + segment.taps[static_cast<std::size_t>(k->unit)].weight;
      this->kernels_.gather_terms_channels_last(
          tile, segment.offsets.data() + k->unit * segment.length, k->units * segment.length,
          this->panel_elements_);
      continue;
    }
    tile.taps = products.taps + k->unit;
    tile.tap_count = k->units;
    tile.channels = k->length;
    tile.source = source + k->begin * tile.source_channel_stride;
    tile.streams = products.streams && panels.begin == products.panels.begin;
    tile.first_channel = k->begin;
    tile.weight = weight + k->begin * this->panel_width_;
    this->kernels_.gather_channels_last(tile);
  }
  if (products.begin == products.end && !products.accumulates) {
    set_block(true, true);
    this->kernels_.gather_terms_channels_last(tile, nullptr, 0, 0);
  }
  if (!rest) return;
  this->kernels_.epilogue(epilogue, tile.pixels, tile.out_channels, tile.output,
                          tile.output_pixel_stride, call.output.channel_stride);
}

/// Brings rows of channels_first home, and applies the epilogue. The pixels of several rows must
/// follow one another in the output.
template <class T>
void ChannelLanes<T>::finish_rows(const Call& call, const Block& block, const PhasePlan& plan,
                                  std::int64_t row, std::int64_t rows, std::int64_t columns,
                                  const Range& panels, const T* tiles) const noexcept {
  const std::int64_t panels_width = (panels.end - panels.begin) * this->panel_width_;
  const Maps<T>& output = call.output;
  const int channels = channels_of(panels);
  const std::int64_t pixel = this->output_pixel(plan.phase, block.depth, row, block.column);
  const std::int64_t pixel_step = plan.phase.axes[2].step;
  const std::int64_t step = pixel_step * output.pixel_stride;
  const auto pixels = static_cast<int>(rows * columns);
  const std::int64_t channel = first_channel(block, panels.begin);
  T* to = output.sample(block.sample, channel) + pixel * output.pixel_stride;
  this->kernels_.transpose(pixels, channels, tiles + (row - block.row) * columns * panels_width,
                           panels_width, 1, to, output.channel_stride, step);
  if (!fused_.rest) return;
  const auto rest = call.epilogue.rest(block.sample, channel, pixel, pixel_step);
  this->kernels_.epilogue(rest, channels, pixels, to, output.channel_stride, step);
}

bool channels_lie_spread(const ConvProblem& problem) noexcept {
  constexpr std::int64_t kPage = 4096, kFewestSets = 4;
  const Extents source = source_extents(problem);
  const auto bytes = source[0] * source[1] * source[2] *
                     static_cast<std::int64_t>(size_of(problem.dtype));
  return kFewestSets * std::gcd(bytes, kPage) <= kPage;
}

template class ChannelLanes<float>;
template class ChannelLanes<double>;

}  // namespace convolith
