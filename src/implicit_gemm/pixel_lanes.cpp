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
      channels_last_(problem.layout == Layout::channels_last),
      phase_(phases(problem, false)[0]),
      sources_{problem.windows[0].input, problem.windows[1].input, problem.windows[2].input},
      in_place_(flatten_pointwise(phase_, sources_) && !channels_last_),
      reduced_(problem.in_channels_per_group()),
      produced_(problem.out_channels_per_group()),
      panels_(divide_up(produced_, kernels_.tile_rows)),
      reduction_(phase_.taps() * reduced_),
      rows_(phase_.axes[1], std::min<std::int64_t>(phase_.axes[1].count, 4)) {
  const AxisPhase& width = phase_.axes[2];
  residues_ = width.source_step;
  reach_ = (width.taps.back().offset - width.taps.front().offset) / width.source_step;

  // A panel of weights takes a third of L1, as does what a tile reads; strips a quarter of L2.
  const auto k_most = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(machine.l1_bytes / 3 / sizeof(T)) / kernels_.tile_rows, 64,
      kMaxChain);
  k_blocks_ = divide_up(reduction_, k_most);
  cut_blocks(static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T)));
  if (in_place_) {
    offsets_bytes_ = aligned_bytes<std::int64_t>(reduction_);
  } else {
    list_offsets();
    const auto depth_taps = static_cast<std::int64_t>(phase_.axes[0].taps.size());
    strips_bytes_ = aligned_bytes<T>(depth_taps * rows_.length(block_rows_) * reduced_ *
                                     residues_ * strip_pixels_);
  }
  if (channels_last_) tile_bytes_ = aligned_bytes<T>(kernels_.tile_rows * kernels_.tile_columns);
  parts_ = choose_parts();
}

/// Whole rows where one fits into `budget` elements, and as many as fit.
template <class T>
void PixelLanes<T>::cut_blocks(std::int64_t budget) noexcept {
  constexpr std::int64_t kMostRows = 64;
  const auto depth_taps = static_cast<std::int64_t>(phase_.axes[0].taps.size());
  const auto elements = [&](std::int64_t rows, std::int64_t columns) {
    return depth_taps * rows_.length(rows) * reduced_ * residues_ * (columns + reach_);
  };
  const std::int64_t width = phase_.axes[2].count;
  const std::int64_t tile = kernels_.tile_columns;
  std::int64_t tiles = divide_up(width, tile);
  while (tiles > 1 && elements(1, tiles * tile) > budget) tiles = divide_up(tiles, 2);
  block_columns_ = std::min(width, tiles * tile);
  while (block_rows_ < std::min(phase_.axes[1].count, kMostRows) &&
         elements(block_rows_ + 1, block_columns_) <= budget) {
    ++block_rows_;
  }
  // Rows one vector apart from a power of two, against conflicts in L1.
  strip_pixels_ = round_up(block_columns_ + reach_, kernels_.lanes) + kernels_.lanes;
}

/// Terms of the sum in the order of the packed weights: taps, then channels.
template <class T>
void PixelLanes<T>::list_offsets() noexcept {
  const auto& [depth, height, width] = phase_.axes;
  const std::int64_t channel = residues_ * strip_pixels_;
  for (std::size_t d = 0; d < depth.taps.size(); ++d) {
    for (std::size_t h = 0; h < height.taps.size(); ++h) {
      const std::int64_t row =
          static_cast<std::int64_t>(d) * rows_.length(block_rows_) + rows_.offsets[h];
      for (const AxisPhase::Tap& w : width.taps) {
        const std::int64_t shift = w.offset - width.taps.front().offset;
        for (std::int64_t c = 0; c < reduced_; ++c) {
          offsets_.push_back((row * reduced_ + c) * channel + shift % residues_ * strip_pixels_ +
                             shift / residues_);
        }
      }
    }
  }
}

/// The cut whose largest part is smallest; packing strips counts as one panel.
template <class T>
typename PixelLanes<T>::Parts PixelLanes<T>::choose_parts() const noexcept {
  const std::int64_t rows = problem_.batch * phase_.axes[0].count * phase_.axes[1].count;
  const std::int64_t tiles = divide_up(phase_.axes[2].count, kernels_.tile_columns);
  Parts best;
  std::int64_t best_cost = -1;
  for (int g = 1; g <= std::min<std::int64_t>(threads_, problem_.groups); ++g) {
    for (int r = 1; r * g <= threads_; ++r) {
      for (int t = 1; t * r * g <= threads_; ++t) {
        const auto p = static_cast<int>(std::min<std::int64_t>(threads_ / (g * r * t), panels_));
        const std::int64_t cost = divide_up(problem_.groups, g) * divide_up(rows, r) *
                                  divide_up(tiles, t) * (divide_up(panels_, p) + 1);
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
std::size_t PixelLanes<T>::workspace_bytes() const noexcept {
  return thread_bytes() * static_cast<std::size_t>(std::min(threads_, parts_.count()));
}

template <class T>
std::size_t PixelLanes<T>::packed_bytes() const noexcept {
  return static_cast<std::size_t>(problem_.groups * panels_ * reduction_ * kernels_.tile_rows) *
         sizeof(T);
}

/// Panels [group][panel][tap][input channel][row].
template <class T>
void PixelLanes<T>::pack(const void* weight, void* packed) const noexcept {
  const std::int64_t taps = problem_.taps();
  parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
    const Range channels = panel_channels(index % panels_);
    const T* from = static_cast<const T*>(weight) +
                    (index / panels_ * produced_ + channels.begin) * reduction_;
    T* panel = static_cast<T*>(packed) + index * reduction_ * kernels_.tile_rows;
    const auto valid = static_cast<int>(channels.end - channels.begin);
    // Taps keep the kernel's order: tap t of every channel is a panel of its own.
    for (std::int64_t t = 0; t < taps; ++t) {
      kernels_.pack_panel(kernels_.tile_rows, valid, reduced_, from + t, reduction_, taps,
                          panel + t * reduced_ * kernels_.tile_rows);
    }
  });
}

template <class T>
void PixelLanes<T>::run(const ConvArguments& arguments, const void* packed,
                        void* workspace) const noexcept {
  const Call call{typed<T>(arguments.x), typed<T>(arguments.y),
                  BoundEpilogue<T>(problem_, arguments), static_cast<const T*>(packed)};
  parallel(std::min(threads_, parts_.count()), [&](int thread, int team) {
    auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
    for (int part = thread; part < parts_.count(); part += team) run_part(call, part, scratch);
  });
}

/// Output channels of a panel, from the group's first: equal rows.
template <class T>
Range PixelLanes<T>::panel_channels(std::int64_t panel) const noexcept {
  return Range::share(produced_, static_cast<int>(panel), static_cast<int>(panels_));
}

template <class T>
Range PixelLanes<T>::k_range(std::int64_t k_block) const noexcept {
  return Range::share(reduction_, static_cast<int>(k_block), static_cast<int>(k_blocks_));
}

template <class T>
void PixelLanes<T>::run_part(const Call& call, int part, std::byte* scratch) const noexcept {
  const Range panels = Range::share(panels_, part % parts_.panels, parts_.panels);
  part /= parts_.panels;
  const std::int64_t width = phase_.axes[2].count;
  const std::int64_t tile = kernels_.tile_columns;
  const Range tiles = Range::share(divide_up(width, tile), part % parts_.tiles, parts_.tiles);
  part /= parts_.tiles;
  const std::int64_t height = phase_.axes[1].count;
  const std::int64_t planes = phase_.axes[0].count;
  const Range rows =
      Range::share(problem_.batch * planes * height, part % parts_.rows, parts_.rows);
  const Range groups = Range::share(problem_.groups, part / parts_.rows, parts_.groups);
  const std::int64_t column_end = std::min(width, tiles.end * tile);
  for (std::int64_t group = groups.begin; group < groups.end; ++group) {
    for (std::int64_t row = rows.begin; row < rows.end;) {
      Block block{group, row / height / planes, row / height % planes, row % height, 0, 0, 0};
      block.row_end = std::min({height, block.row + block_rows_, block.row + rows.end - row});
      row += block.row_end - block.row;
      for (block.column = tiles.begin * tile; block.column < column_end;
           block.column += block_columns_) {
        block.column_end = std::min(column_end, block.column + block_columns_);
        run_block(call, block, panels, scratch);
      }
    }
  }
}

template <class T>
void PixelLanes<T>::run_block(const Call& call, const Block& block, const Range& panels,
                              std::byte* scratch) const noexcept {
  const Strips strips =
      in_place_ ? strips_in_place(call, block, scratch) : pack_strips(call, block, scratch);
  T* tile = reinterpret_cast<T*>(scratch + strips_bytes_);
  for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
    for (std::int64_t row = block.row; row < block.row_end; ++row) {
      multiply_row(call, block, strips, row, panel, tile);
    }
  }
}

template <class T>
typename PixelLanes<T>::Strips PixelLanes<T>::strips_in_place(const Call& call, const Block& block,
                                                              std::byte* scratch) const noexcept {
  auto* offsets = reinterpret_cast<std::int64_t*>(scratch + strips_bytes_ + tile_bytes_);
  for (std::int64_t c = 0; c < reduced_; ++c) offsets[c] = c * call.source.channel_stride;
  return {call.source.sample(block.sample, block.group * reduced_) +
              block.column * call.source.pixel_stride,
          offsets, 0};
}

template <class T>
typename PixelLanes<T>::Strips PixelLanes<T>::pack_strips(const Call& call, const Block& block,
                                                          std::byte* scratch) const noexcept {
  const auto& [depth, height, width] = phase_.axes;
  const Maps<T>& source = call.source;
  const T* base = source.sample(block.sample, block.group * reduced_);
  T* strips = reinterpret_cast<T*>(scratch);
  const std::int64_t strip = reduced_ * residues_ * strip_pixels_;
  for (std::size_t d = 0; d < depth.taps.size(); ++d) {
    const std::int64_t plane = padded_source(block.depth * depth.source_step + depth.taps[d].offset,
                                             sources_[0], problem_.padding_mode);
    for (std::int64_t j = 0; j < block.row_end - block.row; ++j) {
      for (std::size_t h = 0; h < height.taps.size(); ++h) {
        const std::int64_t row = j * rows_.step + rows_.offsets[h];
        if (rows_.read_before(row, j)) continue;
        const std::int64_t line =
            padded_source((block.row + j) * height.source_step + height.taps[h].offset,
                          sources_[1], problem_.padding_mode);
        const T* from = plane < 0 || line < 0
                            ? nullptr
                            : base + (plane * sources_[1] + line) * sources_[2] *
                                         source.pixel_stride;
        pack_strip(source, from, block.column, block.column_end - block.column,
                   strips + (static_cast<std::int64_t>(d) * rows_.length(block_rows_) + row) *
                                strip);
      }
    }
  }
  return {strips, offsets_.data(), rows_.step * strip};
}

/// The pixels that `columns` outputs from `first_column` on read from one line of the source.
template <class T>
void PixelLanes<T>::pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                               std::int64_t columns, T* strip) const noexcept {
  const AxisPhase& width = phase_.axes[2];
  const std::int64_t step = width.source_step;
  const std::int64_t channel = residues_ * strip_pixels_;
  const std::int64_t count = columns + reach_;
  for (std::int64_t residue = 0; residue < residues_; ++residue, strip += strip_pixels_) {
    // Pixel j of the residue comes from j * step + offset.
    const std::int64_t offset = first_column * step + width.taps.front().offset + residue;
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-offset, step), 0, count);
    const std::int64_t end =
        line == nullptr ? begin : std::clamp(divide_up(sources_[2] - offset, step), begin, count);
    if (begin < end) {
      pack_pixels(source, line + (offset + begin * step) * source.pixel_stride, end - begin,
                  strip + begin);
    }
    const auto pad = [&](std::int64_t j) {
      const std::int64_t at =
          line == nullptr ? -1
                          : padded_source(offset + j * step, sources_[2], problem_.padding_mode);
      const T* from = line + std::max<std::int64_t>(at, 0) * source.pixel_stride;
      for (std::int64_t c = 0; c < reduced_; ++c) {
        strip[c * channel + j] = at < 0 ? T(0) : from[c * source.channel_stride];
      }
    };
    // Beyond what the last tap reads, a residue may point past all padding.
    const std::int64_t last = (columns - 1) * step + width.taps.back().offset;
    const std::int64_t needed =
        std::clamp<std::int64_t>(divide_up(first_column * step + last + 1 - offset, step), end, count);
    for (std::int64_t j = 0; j < begin; ++j) pad(j);
    for (std::int64_t j = end; j < needed; ++j) pad(j);
  }
}

/// `count` pixels of all input channels, the stride apart in the source, pixels together.
template <class T>
void PixelLanes<T>::pack_pixels(const Maps<T>& source, const T* from, std::int64_t count,
                                T* to) const noexcept {
  const std::int64_t step = phase_.axes[2].source_step * source.pixel_stride;
  const std::int64_t channel = residues_ * strip_pixels_;
  if (channels_last_) {
    kernels_.transpose(count, reduced_, from, step, source.channel_stride, to, channel, 1);
    return;
  }
  for (std::int64_t c = 0; c < reduced_; ++c) {
    kernels_.copy_strided(count, from + c * source.channel_stride, step, to + c * channel);
  }
}

/// The sums of one output row and panel of output channels, tile by tile.
template <class T>
void PixelLanes<T>::multiply_row(const Call& call, const Block& block, const Strips& strips,
                                 std::int64_t row, std::int64_t panel, T* tile) const noexcept {
  const Range channels = panel_channels(panel);
  const auto produced = static_cast<int>(channels.end - channels.begin);
  const std::int64_t first_channel = block.group * produced_ + channels.begin;
  const T* weight = call.packed +
                    (block.group * panels_ + panel) * reduction_ * kernels_.tile_rows;
  const T* source = strips.data + (row - block.row) * strips.row_stride;
  const Maps<T>& output = call.output;
  for (std::int64_t column = block.column; column < block.column_end;
       column += kernels_.tile_columns) {
    const auto pixels = static_cast<int>(
        std::min<std::int64_t>(kernels_.tile_columns, block.column_end - column));
    const std::int64_t pixel =
        (block.depth * phase_.axes[1].count + row) * phase_.axes[2].count + column;
    T* to = output.sample(block.sample, first_channel) + pixel * output.pixel_stride;
    for (std::int64_t b = 0; b < k_blocks_; ++b) {
      const Range k = k_range(b);
      kernels_.gemm_offsets_tile(produced, pixels, k.end - k.begin,
                                 weight + k.begin * kernels_.tile_rows,
                                 source + column - block.column, strips.offsets + k.begin,
                                 channels_last_ ? tile : to,
                                 channels_last_ ? kernels_.tile_columns : output.channel_stride,
                                 b > 0);
    }
    const auto epilogue = call.epilogue.tile(block.sample, first_channel, pixel);
    if (channels_last_) {
      kernels_.transpose(produced, pixels, tile, kernels_.tile_columns, 1, to, output.pixel_stride,
                         output.channel_stride);
      if (!call.epilogue.empty()) {
        kernels_.epilogue(epilogue, pixels, produced, to, output.pixel_stride,
                          output.channel_stride);
      }
    } else if (!call.epilogue.empty()) {
      kernels_.epilogue(epilogue, produced, pixels, to, output.channel_stride,
                        output.pixel_stride);
    }
  }
}

template class PixelLanes<float>;
template class PixelLanes<double>;

}  // namespace convolith
