#include "winograd/source_transform.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "padding.hpp"

namespace convolith {
namespace {

/// Pixels [begin, end) of the next strip's channels: each is elsewhere in memory, where no hardware
/// prefetcher goes. A line that begins in the pixels before was fetched with them.
template <class T>
void prefetch_pixels(const T* source, std::int64_t channel_stride, int channels, std::int64_t begin,
                     std::int64_t end) noexcept {
  constexpr std::int64_t kLine = kAlignment / sizeof(T);
  for (int c = 0; c < channels; ++c) {
    for (std::int64_t p = round_up(begin, kLine); p < end; p += kLine) {
      __builtin_prefetch(source + c * channel_stride + p);
    }
  }
}

}  // namespace

template <class T>
SourceTransform<T>::SourceTransform(const ConvProblem& problem, const WinogradGeometry& geometry,
                                    const WinogradForm<T>& form, const Machine& machine)
    : geometry_(geometry),
      padding_mode_(problem.padding_mode),
      channels_last_(problem.layout == Layout::channels_last),
      kernels_(kernels_for<T>(machine)),
      form_(form),
      runs_(geometry, problem.padding_mode),
      tap_row_(round_up(geometry.reduced, std::int64_t{kernels_.lanes})),
      longest_run_(geometry.axes[2].tiles()) {
  if (channels_last_) return;
  // Strips of pixels of one vector of channels: long ones read whole pieces of rows.
  const WinogradAxis& width = geometry.axes[2];
  const std::int64_t lanes = kernels_.lanes, rows = runs_.rows();
  const auto budget = static_cast<std::int64_t>(machine.l2_bytes / 8 / sizeof(T));
  const std::int64_t fitting = budget / (lanes * rows * strip_step());
  longest_run_ = std::clamp<std::int64_t>((fitting - width.tile_inputs) / width.tile_outputs + 1, 1,
                                          width.tiles());
  const std::int64_t row = strip_pixels(longest_run_) * lanes;
  const WinogradAxis& height = geometry.axes[1];
  if (geometry.row_axis == 1 && height.dilation == 1 && width.dilation == 1) {
    most_stacked_ = std::clamp<std::int64_t>((budget / row - rows) / height.tile_outputs + 1, 1,
                                             height.tiles());
  }
  strip_elements_ = strip_rows(most_stacked_) * row;
}

template <class T>
std::size_t SourceTransform<T>::scratch_bytes() const noexcept {
  return aligned_bytes<T>(tap_row_) + aligned_bytes<T>(strip_elements_) +
         aligned_bytes<const T*>(geometry_.frequencies());
}

template <class T>
typename SourceTransform<T>::Scratch SourceTransform<T>::scratch(std::byte* bytes) const noexcept {
  Scratch scratch{};
  scratch.zeros = reinterpret_cast<T*>(bytes);
  std::fill(scratch.zeros, scratch.zeros + tap_row_, T(0));
  bytes += aligned_bytes<T>(tap_row_);
  scratch.strip = reinterpret_cast<T*>(bytes);
  scratch.pixels = reinterpret_cast<const T**>(bytes + aligned_bytes<T>(strip_elements_));
  return scratch;
}

template <class T>
void SourceTransform<T>::run(const Maps<const T>& maps, std::int64_t group, const Range& tiles,
                             T* transformed, std::int64_t frequency_stride,
                             const Scratch& scratch) const noexcept {
  Stack stack{};
  const auto transform = [&] {
    const T* source = maps.sample(stack.top.sample, group * geometry_.reduced);
    WinogradInput<T> in{};
    in.frequency_stride = frequency_stride;
    in.tile_stride = row();
    for (std::int64_t tap = 0; tap < geometry_.reduced_taps; ++tap) {
      in.transformed = transformed + (stack.first - tiles.begin) * in.tile_stride + tap * tap_row_;
      if (channels_last_) {
        transform_pixels(maps, stack.top, geometry_.reduced_tap(tap), source, in, scratch);
      } else {
        transform_strips(maps, stack, geometry_.reduced_tap(tap), source, in, scratch);
      }
    }
  };
  runs_.for_each(tiles, longest_run_, [&](const TileRun& run, std::int64_t index) {
    if (stack.runs > 0 && stack.runs < most_stacked_ && lies_below(stack, run)) {
      ++stack.runs;
      stack.bottom_outputs = run.height.count;
      return;
    }
    if (stack.runs > 0) transform();
    stack = {run, index, 1, run.height.count};
  });
  if (stack.runs > 0) transform();
}

/// Whether a run has the columns of those of a stack, and the rows of tiles that follow theirs.
template <class T>
bool SourceTransform<T>::lies_below(const Stack& stack, const TileRun& run) const noexcept {
  const TileRun& top = stack.top;
  return run.sample == top.sample && run.depth.first == top.depth.first &&
         run.width.first == top.width.first && run.count == top.count &&
         run.height.first == top.height.first + stack.runs * geometry_.axes[1].tile_outputs;
}

template <class T>
void SourceTransform<T>::transform_pixels(const Maps<const T>& maps, const TileRun& run,
                                          const ReducedTap& tap, const T* source,
                                          WinogradInput<T> in,
                                          const Scratch& scratch) const noexcept {
  const WinogradAxis& width = geometry_.axes[2];
  const TileRuns::Columns columns = runs_.source_columns(run, tap);
  const std::int64_t pixel_stride = maps.pixel_stride;
  const int rows = runs_.rows();

  std::int64_t row_pixel[kMostTileRows];
  bool rows_inside = true;
  for (int v = 0; v < rows; ++v) {
    row_pixel[v] = runs_.source_row(run, tap, v);
    rows_inside = rows_inside && row_pixel[v] >= 0 &&
                  (v < 2 || row_pixel[v] - row_pixel[v - 1] == row_pixel[1] - row_pixel[0]);
  }
  const std::int64_t row_step = rows > 1 ? row_pixel[1] - row_pixel[0] : 0;

  T* transformed = in.transformed;
  in.channels = geometry_.reduced;
  const std::int64_t column_stride = columns.step * pixel_stride;
  in.row_stride = row_step * pixel_stride;
  in.column_stride = width.transformed ? column_stride : row_step * pixel_stride;
  in.source_tile_stride = column_stride * width.tile_outputs;

  const std::int64_t inputs = width.tile_inputs, outputs = width.tile_outputs;
  const auto inside = [&](std::int64_t tile) {
    const std::int64_t first = columns.first + tile * outputs * columns.step;
    return tile * outputs + inputs <= columns.count && first >= 0 &&
           first + (inputs - 1) * columns.step < width.sources;
  };
  for (std::int64_t tile = 0; tile < run.count;) {
    in.transformed = transformed + tile * in.tile_stride;
    if (rows_inside && inside(tile)) {
      in.pixels = nullptr;
      in.tiles = 1;
      while (tile + in.tiles < run.count && inside(tile + in.tiles)) ++in.tiles;
      in.source = source + (row_pixel[0] + columns.first) * pixel_stride +
                  tile * in.source_tile_stride;
      form_.input(in);
      tile += in.tiles;
      continue;
    }
    for (std::int64_t x = 0; x < inputs; ++x) {
      const std::int64_t column = runs_.source_column(columns, tile * outputs + x);
      for (int v = 0; v < rows; ++v) {
        const T* pixel = column < 0 || row_pixel[v] < 0
                             ? scratch.zeros
                             : source + (row_pixel[v] + column) * pixel_stride;
        scratch.pixels[v * inputs + x] = pixel;
      }
    }
    in.pixels = scratch.pixels;
    in.tiles = 1;
    form_.input(in);
    ++tile;
  }
}

/// Steps of a few pixels are loaded with the pixels between them.
template <class T>
std::int64_t SourceTransform<T>::strip_step() const noexcept {
  constexpr std::int64_t kMostStep = 4;
  const std::int64_t step = geometry_.axes[2].source_step();
  return step <= kMostStep ? step : 1;
}

template <class T>
std::int64_t SourceTransform<T>::strip_pixels(std::int64_t tiles) const noexcept {
  const WinogradAxis& width = geometry_.axes[2];
  return ((tiles - 1) * width.tile_outputs + width.tile_inputs - 1) * strip_step() + 1;
}

/// Source rows of so many runs below one another: what two of them read stands there once.
template <class T>
std::int64_t SourceTransform<T>::strip_rows(std::int64_t runs) const noexcept {
  return runs_.rows() + (runs - 1) * geometry_.axes[1].tile_outputs;
}

template <class T>
void SourceTransform<T>::transform_strips(const Maps<const T>& maps, const Stack& stack,
                                          const ReducedTap& tap, const T* source,
                                          WinogradInput<T> in,
                                          const Scratch& scratch) const noexcept {
  const WinogradAxis& width = geometry_.axes[2];
  const std::int64_t outputs = geometry_.axes[1].tile_outputs;
  const TileRuns::Columns columns = runs_.source_columns(stack.top, tap);
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t pixels = strip_pixels(stack.top.count);
  const std::int64_t strip_row = pixels * lanes;
  const auto source_row = [&](std::int64_t i) {
    const std::int64_t above = std::min(i / outputs, stack.runs - 1);
    TileRun run = stack.top;
    run.height.source += above * outputs;
    if (above == stack.runs - 1) run.height.count = stack.bottom_outputs;
    return runs_.source_row(run, tap, i - above * outputs);
  };

  T* transformed = in.transformed;
  in.tiles = stack.top.count;
  in.row_stride = strip_row;
  in.column_stride = width.transformed ? strip_step() * lanes : strip_row;
  in.source_tile_stride = width.tile_outputs * strip_step() * lanes;
  in.channels = lanes;
  for (std::int64_t c = 0; c < geometry_.reduced; c += lanes) {
    const auto channels = static_cast<int>(std::min(lanes, geometry_.reduced - c));
    const auto next = static_cast<int>(std::min(lanes, geometry_.reduced - c - channels));
    const T* from = source + c * maps.channel_stride;
    for (std::int64_t i = 0; i < strip_rows(stack.runs); ++i) {
      const std::int64_t row = source_row(i);
      fill_strip(columns, row, from, maps.channel_stride, channels, pixels,
                 scratch.strip + i * strip_row);
      if (row < 0) continue;
      const std::int64_t begin = row + std::max<std::int64_t>(columns.first, 0);
      prefetch_pixels(from + lanes * maps.channel_stride, maps.channel_stride, next, begin,
                      begin + pixels);
    }
    for (std::int64_t r = 0; r < stack.runs; ++r) {
      in.source = scratch.strip + r * outputs * strip_row;
      in.transformed = transformed + r * stack.top.count * in.tile_stride + c;
      form_.input(in);
    }
  }
}

/// strip[pixel][lane] of one source row; `row` is its first pixel, or -1.
template <class T>
void SourceTransform<T>::fill_strip(const TileRuns::Columns& columns, std::int64_t row,
                                    const T* source, std::int64_t channel_stride, int channels,
                                    std::int64_t pixels, T* strip) const noexcept {
  const int lanes = kernels_.lanes;
  const auto clear = [&](std::int64_t begin, std::int64_t end) {
    std::fill(strip + begin * lanes, strip + end * lanes, T(0));
  };
  const auto load = [&](std::int64_t column, std::int64_t count, std::int64_t at) {
    kernels_.pack_panel(lanes, channels, count, source + row + column, channel_stride, 1,
                        strip + at * lanes);
  };
  if (row < 0) {
    clear(0, pixels);
    return;
  }
  const std::int64_t sources = geometry_.axes[2].sources;
  // Strip pixel p holds coordinate first + p * unit; those that no output reads are zero.
  const bool dense = columns.step == strip_step();
  const std::int64_t unit = dense ? 1 : columns.step;
  const std::int64_t wanted = dense ? (columns.count - 1) * columns.step + 1 : columns.count;
  clear(std::min(wanted, pixels), pixels);
  std::int64_t begin = 0, end = 0;
  if (unit == 1) {
    begin = std::clamp<std::int64_t>(-columns.first, 0, wanted);
    end = std::clamp<std::int64_t>(sources - columns.first, begin, wanted);
    if (begin < end) load(columns.first + begin, end - begin, begin);
  }
  for (std::int64_t p = 0; p < wanted; ++p) {
    if (p == begin) p = end;
    if (p >= wanted) break;
    const std::int64_t column = padded_source(columns.first + p * unit, sources, padding_mode_);
    if (column < 0) {
      clear(p, p + 1);
    } else {
      load(column, 1, p);
    }
  }
}

template class SourceTransform<float>;
template class SourceTransform<double>;

}  // namespace convolith
