#include "winograd/execution.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "epilogue.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "typed_execution.hpp"
#include "winograd/blocks.hpp"

namespace convolith {
namespace {

/// Tiles that are neighbours on the last axis, in one phase: `count` of them, the last of which
/// has `last_outputs` outputs on that axis.
struct TileRun {
  std::int64_t sample;
  AxisTile depth, height, width;  ///< of the first tile
  std::int64_t count, last_outputs;
};

/// V = transformed sources [frequency][tile][tap, channel], U = transformed weights, M = V U for a
/// group of panels of output channels. Blocks of tiles go through all three steps.
template <class T>
class WinogradExecution final : public Execution {
 public:
  WinogradExecution(const ConvProblem& problem, const WinogradGeometry& geometry,
                    const Machine& machine, int threads)
      : problem_(problem),
        geometry_(geometry),
        kernels_(kernels_for<T>(machine)),
        form_(geometry.square() ? kernels_.winograd->square[geometry.size]
                                : kernels_.winograd->line[geometry.size]),
        threads_(threads),
        channels_last_(problem.layout == Layout::channels_last),
        adjoint_(problem.direction == Direction::backward_input),
        vertical_axis_(geometry.square()            ? geometry.row_axis
                       : geometry.column_axis != 2 ? geometry.column_axis
                                                   : -1) {
    const std::int64_t lanes = kernels_.lanes;
    frequencies_ = geometry.frequencies();
    // An empty batch is planned as one sample.
    tiles_ = geometry.tiles() * std::max<std::int64_t>(1, problem.batch);
    tap_row_ = round_up(geometry.reduced, lanes);
    row_ = tap_row_ * geometry.reduced_taps;
    terms_ = geometry.reduced_taps == 1 ? geometry.reduced : row_;
    panels_ = divide_up(geometry.produced, kernels_.tile_columns);
    few_tiles_ = geometry.few_tiles(problem.batch, kernels_.tile_rows);
    // Transformed weights of a chunk stay in L2.
    const std::int64_t longest =
        few_tiles_ ? std::min<std::int64_t>(kMaxChain, kChunkWeights / frequencies_) : kMaxChain;
    term_chunk_ = divide_up(terms_, divide_up(terms_, longest));
    blocks_ = WinogradBlocks(
        {problem.groups, frequencies_, tiles_, terms_, panels_, round_up(geometry.produced, lanes),
         row_, sizeof(T), kernels_.tile_rows, kernels_.tile_columns, few_tiles_},
        machine.l2_bytes, threads);

    weight_stride_ = odd_lines<T>(blocks_.panels * terms_ * kernels_.tile_columns);
    chunk_stride_ = odd_lines<T>(term_chunk_ * kernels_.tile_columns);
    source_stride_ = odd_lines<T>(blocks_.tiles * row_);
    product_row_ = blocks_.panels * kernels_.tile_columns;
    product_stride_ = odd_lines<T>(blocks_.tiles * product_row_);

    past_caches_ = channels_last_ && maps_outgrow_caches(problem);
    if (!channels_last_) {
      // Strips of pixels of one vector of channels: long ones read whole pieces of rows.
      const WinogradAxis& width = geometry.axes[2];
      const std::int64_t rows = vertical_axis_ < 0 ? 1 : geometry.axes[vertical_axis_].tile_inputs;
      const std::int64_t fitting = static_cast<std::int64_t>(machine.l2_bytes / 8 / sizeof(T)) /
                                   (lanes * rows * strip_step());
      most_run_ = std::clamp<std::int64_t>(
          (fitting - width.tile_inputs) / width.tile_outputs + 1, 1, width.tiles());
      strip_elements_ = rows * strip_pixels(most_run_) * lanes;
      const std::int64_t out_rows =
          vertical_axis_ < 0 ? 1 : geometry.axes[vertical_axis_].tile_outputs;
      output_strip_elements_ = out_rows * most_run_ * width.tile_outputs * lanes;
    }
  }

  std::size_t workspace_bytes() const noexcept override {
    return shared_bytes() + thread_bytes(true) * threads_;
  }

  /// Threads that share tiles transform the same weights: that is sooner done than to fetch them
  /// from another core's cache.
  std::size_t unpacked_workspace_bytes() const noexcept override {
    if (!few_tiles_ || blocks_.count > (blocks_.shared ? 1 : threads_)) return 0;
    return shared_bytes() + thread_bytes(false) * threads_;
  }

  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(problem_.groups * blocks_.panel_groups * frequencies_ *
                                    weight_stride_) *
           sizeof(T);
  }

  /// [group][group of panels][frequency][panel][tap, channel][lane]
  void pack(const void* weight, void* packed) const noexcept override {
    auto* target = static_cast<T*>(packed);
    const std::int64_t columns = kernels_.tile_columns;
    parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
      const std::int64_t panel = index % panels_, group = index / panels_;
      T* to = target +
              (group * blocks_.panel_groups + panel / blocks_.panels) * frequencies_ *
                  weight_stride_ +
              panel % blocks_.panels * terms_ * columns;
      transform_weights(static_cast<const T*>(weight), group, panel, {0, geometry_.reduced}, to,
                        weight_stride_);
      if (terms_ == geometry_.reduced) return;
      for (std::int64_t f = 0; f < frequencies_; ++f) {
        for (std::int64_t tap = 0; tap < geometry_.reduced_taps; ++tap) {
          T* rows = to + f * weight_stride_ + tap * tap_row_ * columns;
          std::fill(rows + geometry_.reduced * columns, rows + tap_row_ * columns, T(0));
        }
      }
    });
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const Call call(*this, arguments, static_cast<const T*>(packed));
    auto* bytes = static_cast<std::byte*>(workspace);
    const auto scratch_of = [&](int thread) {
      const std::size_t thread_bytes = this->thread_bytes(packed != nullptr);
      return Scratch(*this, bytes + shared_bytes() + thread_bytes * thread, packed != nullptr);
    };
    if (!blocks_.shared) {
      parallel_for(threads_, problem_.groups * blocks_.count, [&](std::int64_t unit, int thread) {
        Scratch scratch = scratch_of(thread);
        const Range tiles = blocks_.block(unit % blocks_.count);
        transform_sources(call, unit / blocks_.count, tiles, scratch.sources, scratch);
        for (std::int64_t panels = 0; panels < blocks_.panel_groups; ++panels) {
          multiply(call, unit / blocks_.count, panels, tiles.end - tiles.begin, scratch.sources,
                   scratch);
          transform_products(call, unit / blocks_.count, panels, tiles, scratch);
        }
      });
      return;
    }
    T* sources = reinterpret_cast<T*>(bytes);
    for (std::int64_t unit = 0; unit < problem_.groups * blocks_.count; ++unit) {
      const Range tiles = blocks_.block(unit % blocks_.count);
      const std::int64_t count = tiles.end - tiles.begin;
      parallel_ranges(threads_, count, divide_up(count, 8 * threads_),
                      [&](const Range& part, int thread) {
                        Scratch scratch = scratch_of(thread);
                        transform_sources(call, unit / blocks_.count,
                                          {tiles.begin + part.begin, tiles.begin + part.end},
                                          sources + part.begin * row_, scratch);
                      });
      parallel_for(
          threads_, blocks_.panel_groups * blocks_.parts, [&](std::int64_t job, int thread) {
            Scratch scratch = scratch_of(thread);
            const Range part = Range::share(count, static_cast<int>(job % blocks_.parts),
                                            static_cast<int>(blocks_.parts));
            multiply(call, unit / blocks_.count, job / blocks_.parts, part.end - part.begin,
                     sources + part.begin * row_, scratch);
            transform_products(call, unit / blocks_.count, job / blocks_.parts,
                               {tiles.begin + part.begin, tiles.begin + part.end}, scratch);
          });
    }
  }

 private:
  template <class U>
  static constexpr int kMostColumns = 128 / sizeof(U);  // two vectors of 64 bytes

  /// The arrays of a run, as the tiles see them.
  struct Call {
    Maps<const T> source;
    Maps<T> output;
    BoundEpilogue<T> epilogue;
    const T* packed;  ///< null: weights are transformed as they are wanted
    const T* weight;
    const T* bias;        ///< added by the transform of the products, as are the limits
    T least, greatest;
    bool epilogue_apart;  ///< what the transform cannot do
    bool adds_residual;   ///< the transform does
    bool past_caches;     ///< where output pixels are aligned

    Call(const WinogradExecution& execution, const ConvArguments& arguments, const T* packed_weight)
        : source(typed<const T>(execution.adjoint_ ? arguments.y : arguments.x)),
          output(typed<T>(execution.adjoint_ ? arguments.x : arguments.y)),
          epilogue(execution.problem_, arguments),
          packed(packed_weight),
          weight(static_cast<const T*>(arguments.weight)),
          bias(nullptr),
          epilogue_apart(false) {
      const FusedClamp<T> fused(execution.problem_.epilogue, execution.channels_last_);
      epilogue_apart = fused.rest;
      adds_residual = fused.adds_residual;
      past_caches = execution.past_caches_ && !epilogue_apart;
      least = fused.least;
      greatest = fused.greatest;
      if (!epilogue_apart && execution.problem_.epilogue.bias) {
        bias = static_cast<const T*>(arguments.bias);
      }
    }
  };

  struct Scratch {
    T* sources;   ///< V, unless it is shared
    T* products;  ///< M
    T* weights;   ///< U of a chunk of terms, unless it is packed
    const T** pixels;
    T* zeros;     ///< a pixel of padding
    T* strip;
    T* output_strip;

    Scratch(const WinogradExecution& execution, std::byte* bytes, bool packed) {
      const auto take = [&](std::int64_t elements) {
        T* at = reinterpret_cast<T*>(bytes);
        bytes += aligned_bytes<T>(elements);
        return at;
      };
      sources =
          take(execution.blocks_.shared ? 0 : execution.source_stride_ * execution.frequencies_);
      products = take(execution.product_stride_ * execution.frequencies_);
      weights = take(packed ? 0 : execution.chunk_stride_ * execution.frequencies_);
      zeros = take(execution.tap_row_);
      strip = take(execution.strip_elements_);
      output_strip = take(execution.output_strip_elements_);
      pixels = reinterpret_cast<const T**>(bytes);
      std::fill(zeros, zeros + execution.tap_row_, T(0));
    }
  };

  std::size_t shared_bytes() const noexcept {
    return blocks_.shared ? aligned_bytes<T>(source_stride_ * frequencies_) : 0;
  }
  std::size_t thread_bytes(bool packed) const noexcept {
    return aligned_bytes<T>(blocks_.shared ? 0 : source_stride_ * frequencies_) +
           aligned_bytes<T>(product_stride_ * frequencies_) +
           aligned_bytes<T>(packed ? 0 : chunk_stride_ * frequencies_) +
           aligned_bytes<T>(tap_row_) + aligned_bytes<T>(strip_elements_) +
           aligned_bytes<T>(output_strip_elements_) + aligned_bytes<const T*>(frequencies_);
  }

  /// The taps of the axes that are not transformed, in row-major order.
  std::array<std::int64_t, kSpatialAxes> reduced_tap(std::int64_t index) const noexcept {
    std::array<std::int64_t, kSpatialAxes> at{};
    for (int a = kSpatialAxes - 1; a >= 0; --a) {
      if (geometry_.axes[a].transformed) continue;
      at[a] = index % geometry_.axes[a].taps;
      index /= geometry_.axes[a].taps;
    }
    return at;
  }

  // ---- weights -----------------------------------------------------------------------------

  /// transformed[frequency][tap, channel][lane] of a panel and some channels of the sum.
  void transform_weights(const T* weight, std::int64_t group, std::int64_t panel,
                         const Range& channels, T* transformed,
                         std::int64_t frequency_stride) const noexcept {
    const std::int64_t columns = kernels_.tile_columns;
    const std::int64_t taps = problem_.taps();
    const std::int64_t out_stride = taps * problem_.in_channels_per_group();
    constexpr std::int64_t kBufferElements = WinogradGeometry::kMostTaps * kMostColumns<T>;
    alignas(kAlignment) T buffer[kBufferElements];
    const std::int64_t chunk = kBufferElements / (taps * columns);
    const std::int64_t first = panel * columns;
    const auto valid = static_cast<int>(std::min(columns, geometry_.produced - first));
    const T* from = weight + group * problem_.out_channels_per_group() * out_stride +
                    first * (adjoint_ ? taps : out_stride);

    WinogradWeight<T> part{};
    part.channel_stride = taps * columns;
    part.lanes = static_cast<int>(columns);
    part.frequency_stride = frequency_stride;
    const auto& axes = geometry_.axes;
    std::int64_t strides[kSpatialAxes];
    strides[2] = columns;
    strides[1] = strides[2] * axes[2].taps;
    strides[0] = strides[1] * axes[1].taps;
    std::int64_t origin = 0;
    if (adjoint_) {  // turned round
      origin = (taps - 1) * columns;
      for (std::int64_t& stride : strides) stride = -stride;
    }
    part.column_stride = strides[geometry_.column_axis];
    part.row_stride = geometry_.square() ? strides[geometry_.row_axis] : 0;

    for (std::int64_t c = channels.begin; c < channels.end; c += chunk) {
      part.channels = std::min(chunk, channels.end - c);
      if (adjoint_) {
        for (std::int64_t i = 0; i < part.channels; ++i) {
          // Channels lie too far apart for hardware prefetchers.
          constexpr std::int64_t kAhead = 4, kLine = kAlignment / sizeof(T);
          for (std::int64_t e = 0; c + i + kAhead < channels.end && e < valid * taps; e += kLine) {
            __builtin_prefetch(from + (c + i + kAhead) * out_stride + e);
          }
          kernels_.pack_panel(static_cast<int>(columns), valid, taps, from + (c + i) * out_stride,
                              taps, 1, buffer + i * taps * columns);
        }
      } else {
        kernels_.pack_panel(static_cast<int>(columns), valid, part.channels * taps, from + c * taps,
                            out_stride, 1, buffer);
      }
      for (std::int64_t tap = 0; tap < geometry_.reduced_taps; ++tap) {
        const auto at = reduced_tap(tap);
        part.taps = buffer + origin + at[0] * strides[0] + at[1] * strides[1] + at[2] * strides[2];
        part.transformed = transformed + (tap * tap_row_ + c - channels.begin) * columns;
        form_.weight(part);
      }
    }
  }

  // ---- tiles -------------------------------------------------------------------------------

  /// visit(run, index of its first tile) for runs that make up the tiles [begin, end).
  template <class Visit>
  void for_each_run(Range tiles, const Visit& visit) const noexcept {
    const WinogradAxis& width = geometry_.axes[2];
    const std::int64_t row_tiles = width.tiles();
    for (std::int64_t index = tiles.begin; index < tiles.end;) {
      std::int64_t rest = index;
      const std::int64_t w = rest % row_tiles;
      rest /= row_tiles;
      TileRun run{};
      run.width = width.tile(w);
      run.height = geometry_.axes[1].tile(rest % geometry_.axes[1].tiles());
      rest /= geometry_.axes[1].tiles();
      run.depth = geometry_.axes[0].tile(rest % geometry_.axes[0].tiles());
      run.sample = rest / geometry_.axes[0].tiles();
      const std::int64_t most =
          std::min({row_tiles - w, tiles.end - index, channels_last_ ? row_tiles : most_run_});
      run.count = 1;
      run.last_outputs = run.width.count;
      // A phase ends where the next tile begins anew.
      while (run.count < most) {
        const AxisTile next = width.tile(w + run.count);
        if (next.phase != run.width.phase) break;
        run.last_outputs = next.count;
        ++run.count;
      }
      visit(run, index);
      index += run.count;
    }
  }

  const AxisTile& tile_of(const TileRun& run, int axis) const noexcept {
    return axis == 0 ? run.depth : axis == 1 ? run.height : run.width;
  }

  /// The first pixel of the source row that the tile reads in its row `v` under a tap of the other
  /// axes, or -1 where all of it counts as zero.
  std::int64_t source_row(const TileRun& run, const std::array<std::int64_t, kSpatialAxes>& tap,
                          std::int64_t v) const noexcept {
    std::int64_t pixel = 0;
    for (int a = 0; a < 2; ++a) {
      const WinogradAxis& axis = geometry_.axes[a];
      const AxisTile& tile = tile_of(run, a);
      std::int64_t coordinate = tile.source;
      if (axis.transformed) {
        if (v >= tile.count + axis.taps - 1) return -1;  // read by no output that exists
        coordinate += v * axis.dilation;
      } else {
        coordinate += tap[a] * axis.dilation;
      }
      const std::int64_t source = padded_source(coordinate, axis.sources, problem_.padding_mode);
      if (source < 0) return -1;
      pixel = pixel * axis.sources + source;
    }
    return pixel * geometry_.axes[2].sources;
  }

  /// Coordinates that a run reads on the last axis: first, first + step, ..., `count` of them.
  struct Columns {
    std::int64_t first, step, count;
  };
  Columns source_columns(const TileRun& run,
                         const std::array<std::int64_t, kSpatialAxes>& tap) const noexcept {
    const WinogradAxis& width = geometry_.axes[2];
    if (!width.transformed) {
      return {run.width.source + tap[2] * width.dilation, width.stride, run.count};
    }
    return {run.width.source, width.dilation,
            (run.count - 1) * width.tile_outputs + run.last_outputs + width.taps - 1};
  }

  // ---- sources -----------------------------------------------------------------------------

  void transform_sources(const Call& call, std::int64_t group, Range tiles, T* transformed,
                         const Scratch& scratch) const noexcept {
    for_each_run(tiles, [&](const TileRun& run, std::int64_t index) {
      const T* source = call.source.sample(run.sample, group * geometry_.reduced);
      T* to = transformed + (index - tiles.begin) * row_;
      for (std::int64_t tap = 0; tap < geometry_.reduced_taps; ++tap) {
        if (channels_last_) {
          transform_pixels(call, run, reduced_tap(tap), source, to + tap * tap_row_, scratch);
        } else {
          transform_strips(call, run, reduced_tap(tap), source, to + tap * tap_row_, scratch);
        }
      }
    });
  }

  void transform_pixels(const Call& call, const TileRun& run,
                        const std::array<std::int64_t, kSpatialAxes>& tap, const T* source,
                        T* transformed, const Scratch& scratch) const noexcept {
    const WinogradAxis& width = geometry_.axes[2];
    const Columns columns = source_columns(run, tap);
    const std::int64_t pixel_stride = call.source.pixel_stride;
    const int rows = vertical_axis_ < 0 ? 1 : geometry_.axes[vertical_axis_].tile_inputs;

    std::int64_t row_pixel[kMostTileRows];
    bool rows_inside = true;
    for (int v = 0; v < rows; ++v) {
      row_pixel[v] = source_row(run, tap, v);
      rows_inside = rows_inside && row_pixel[v] >= 0 &&
                    (v < 2 || row_pixel[v] - row_pixel[v - 1] == row_pixel[1] - row_pixel[0]);
    }
    const std::int64_t row_step = rows > 1 ? row_pixel[1] - row_pixel[0] : 0;

    WinogradInput<T> in{};
    in.channels = geometry_.reduced;
    in.frequency_stride = source_stride_;
    in.tile_stride = row_;
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
      in.transformed = transformed + tile * row_;
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
        const std::int64_t column = source_column(columns, tile * outputs + x);
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

  std::int64_t source_column(const Columns& columns, std::int64_t x) const noexcept {
    if (x >= columns.count) return -1;  // read by no output that exists
    return padded_source(columns.first + x * columns.step, geometry_.axes[2].sources,
                         problem_.padding_mode);
  }

  /// Steps of a few pixels are loaded with the pixels between them.
  std::int64_t strip_step() const noexcept {
    constexpr std::int64_t kMostStep = 4;
    const std::int64_t step = geometry_.axes[2].source_step();
    return step <= kMostStep ? step : 1;
  }
  std::int64_t strip_pixels(std::int64_t tiles) const noexcept {
    const WinogradAxis& width = geometry_.axes[2];
    return ((tiles - 1) * width.tile_outputs + width.tile_inputs - 1) * strip_step() + 1;
  }

  void transform_strips(const Call& call, const TileRun& run,
                        const std::array<std::int64_t, kSpatialAxes>& tap, const T* source,
                        T* transformed, const Scratch& scratch) const noexcept {
    const WinogradAxis& width = geometry_.axes[2];
    const Columns columns = source_columns(run, tap);
    const int rows = vertical_axis_ < 0 ? 1 : geometry_.axes[vertical_axis_].tile_inputs;
    const std::int64_t lanes = kernels_.lanes;
    const std::int64_t pixels = strip_pixels(run.count);

    WinogradInput<T> in{};
    in.source = scratch.strip;
    in.tiles = run.count;
    in.frequency_stride = source_stride_;
    in.tile_stride = row_;
    in.row_stride = pixels * lanes;
    in.column_stride = width.transformed ? strip_step() * lanes : pixels * lanes;
    in.source_tile_stride = width.tile_outputs * strip_step() * lanes;
    for (std::int64_t c = 0; c < geometry_.reduced; c += lanes) {
      const auto channels = static_cast<int>(std::min(lanes, geometry_.reduced - c));
      for (int v = 0; v < rows; ++v) {
        const std::int64_t row = source_row(run, tap, v);
        fill_strip(columns, row, source + c * call.source.channel_stride,
                   call.source.channel_stride, channels, pixels,
                   scratch.strip + v * pixels * lanes);
        if (row >= 0 && c + lanes < geometry_.reduced) {
          prefetch_rows(source + row + (c + lanes) * call.source.channel_stride +
                            std::max<std::int64_t>(columns.first, 0),
                        call.source.channel_stride,
                        static_cast<int>(std::min(lanes, geometry_.reduced - c - lanes)), pixels);
        }
      }
      in.channels = lanes;
      in.transformed = transformed + c;
      form_.input(in);
    }
  }

  /// The next strip's channels: each is elsewhere in memory, where no hardware prefetcher goes.
  static void prefetch_rows(const T* source, std::int64_t channel_stride, int channels,
                            std::int64_t pixels) noexcept {
    constexpr std::int64_t kLine = kAlignment / sizeof(T);
    for (int c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < pixels; p += kLine) {
        __builtin_prefetch(source + c * channel_stride + p);
      }
    }
  }

  /// strip[pixel][lane] of one source row; `row` is its first pixel, or -1.
  void fill_strip(const Columns& columns, std::int64_t row, const T* source,
                  std::int64_t channel_stride, int channels, std::int64_t pixels,
                  T* strip) const noexcept {
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
      const std::int64_t column =
          padded_source(columns.first + p * unit, sources, problem_.padding_mode);
      if (column < 0) {
        clear(p, p + 1);
      } else {
        load(column, 1, p);
      }
    }
  }

  // ---- products ----------------------------------------------------------------------------

  void multiply(const Call& call, std::int64_t group, std::int64_t panel_group, std::int64_t count,
                const T* sources, const Scratch& scratch) const noexcept {
    const std::int64_t columns = kernels_.tile_columns;
    const std::int64_t first_panel = panel_group * blocks_.panels;
    const std::int64_t panels = std::min(blocks_.panels, panels_ - first_panel);
    if (call.packed == nullptr) {
      for (std::int64_t panel = 0; panel < panels; ++panel) {
        for (std::int64_t term = 0; term < terms_; term += term_chunk_) {
          const Range terms{term, std::min(terms_, term + term_chunk_)};
          transform_weights(call.weight, group, first_panel + panel, terms, scratch.weights,
                            chunk_stride_);
          for (std::int64_t f = 0; f < frequencies_; ++f) {
            const T* weights = scratch.weights + f * chunk_stride_;
            multiply_panel(f, terms, first_panel, panel, count, sources, weights,
                           weights + chunk_stride_, scratch.products);
          }
        }
      }
      return;
    }
    // Weights may come from memory: those of a product are fetched during the one before.
    const T* packed = call.packed +
                      (group * blocks_.panel_groups + panel_group) * frequencies_ * weight_stride_;
    const auto weights_of = [&](std::int64_t f, std::int64_t term, std::int64_t panel) {
      return packed + f * weight_stride_ + (panel * terms_ + term) * columns;
    };
    for (std::int64_t f = 0; f < frequencies_; ++f) {
      for (std::int64_t term = 0; term < terms_; term += term_chunk_) {
        const Range terms{term, std::min(terms_, term + term_chunk_)};
        for (std::int64_t panel = 0; panel < panels; ++panel) {
          const T* next = panel + 1 < panels   ? weights_of(f, term, panel + 1)
                          : terms.end < terms_ ? weights_of(f, terms.end, 0)
                                               : weights_of(f + 1, 0, 0);
          multiply_panel(f, terms, first_panel, panel, count, sources, weights_of(f, term, panel),
                         next, scratch.products);
        }
      }
    }
  }

  /// Adds some terms of one frequency to the products of a panel, number `panel` of its group;
  /// fetches as many of the weights that are `next`.
  void multiply_panel(std::int64_t f, const Range& terms, std::int64_t first_panel,
                      std::int64_t panel, std::int64_t count, const T* sources, const T* weights,
                      const T* next, T* products) const noexcept {
    const std::int64_t columns = kernels_.tile_columns;
    WinogradProduct<T> product{};
    product.columns =
        static_cast<int>(std::min(columns, geometry_.produced - (first_panel + panel) * columns));
    product.terms = terms.end - terms.begin;
    product.rows = static_cast<int>(count);
    product.tiles = sources + f * source_stride_ + terms.begin;
    product.tile_stride = row_;
    product.weight = weights;
    product.products = products + f * product_stride_ + panel * columns;
    product.product_stride = product_row_;
    product.accumulate = terms.begin > 0;
    product.ahead = next;
    kernels_.winograd->product(product);
  }

  void transform_products(const Call& call, std::int64_t group, std::int64_t panel_group,
                          Range tiles, const Scratch& scratch) const noexcept {
    const std::int64_t first = panel_group * blocks_.panels * kernels_.tile_columns;
    const std::int64_t channels = std::min(product_row_, geometry_.produced - first);
    const std::int64_t channel = group * geometry_.produced + first;
    const WinogradAxis& width = geometry_.axes[2];
    for_each_run(tiles, [&](const TileRun& run, std::int64_t index) {
      const std::int64_t pixel =
          (run.depth.first * geometry_.axes[1].outputs + run.height.first) * width.outputs +
          run.width.first;
      // Between rows of a tile, and between neighbours in a row.
      std::int64_t row_pixels = 0;
      int rows = 1;
      if (vertical_axis_ >= 0) {
        const WinogradAxis& vertical = geometry_.axes[vertical_axis_];
        row_pixels = vertical.dilation * width.outputs *
                     (vertical_axis_ == 0 ? geometry_.axes[1].outputs : 1);
        rows = static_cast<int>(tile_of(run, vertical_axis_).count);
      }
      const std::int64_t step = width.transformed ? width.dilation : 1;
      const std::int64_t outputs = width.tile_outputs;
      const std::int64_t run_outputs = (run.count - 1) * outputs + run.last_outputs;

      WinogradOutput<T> out{};
      out.products = scratch.products + (index - tiles.begin) * product_row_;
      out.frequency_stride = product_stride_;
      out.tile_stride = product_row_;
      out.least = call.least;
      out.greatest = call.greatest;
      out.rows = width.transformed ? rows : 1;
      T* output = call.output.sample(run.sample, channel) + pixel * call.output.pixel_stride;
      // All tiles of the run; the last one may have fewer outputs on the last axis.
      const auto transform = [&](std::int64_t row_stride, std::int64_t pixel_stride) {
        out.row_stride = row_stride;
        out.column_stride = width.transformed ? pixel_stride : row_stride;
        out.output_tile_stride = outputs * pixel_stride;
        out.columns = width.transformed ? static_cast<int>(outputs) : rows;
        out.tiles = run.count;
        if (run.last_outputs == outputs) {
          form_.output(out);
          return;
        }
        --out.tiles;
        form_.output(out);
        WinogradOutput<T> last = out;
        last.products += out.tiles * out.tile_stride;
        last.output += out.tiles * out.output_tile_stride;
        if (out.residual != nullptr) last.residual += out.tiles * out.residual_tile_stride;
        last.tiles = 1;
        last.columns = static_cast<int>(run.last_outputs);
        form_.output(last);
      };
      if (channels_last_) {
        const std::int64_t pixel_stride = call.output.pixel_stride;
        out.channels = channels;
        out.bias = call.bias == nullptr ? nullptr : call.bias + channel;
        out.output = output;
        out.past_caches = call.past_caches;
        if (call.adds_residual) {
          const TileEpilogue<T> rest = call.epilogue.rest(run.sample, channel, pixel);
          out.residual = rest.residual;
          out.residual_row_stride = row_pixels * rest.residual_row_stride;
          out.residual_column_stride = width.transformed ? step * rest.residual_row_stride
                                                         : out.residual_row_stride;
          out.residual_tile_stride = outputs * step * rest.residual_row_stride;
        }
        transform(row_pixels * pixel_stride, step * pixel_stride);
        if (call.epilogue_apart) {
          for (int r = 0; r < rows; ++r) {
            kernels_.epilogue(
                call.epilogue.tile(run.sample, channel, pixel + r * row_pixels, step),
                static_cast<int>(run_outputs), static_cast<int>(channels),
                output + r * row_pixels * pixel_stride, step * pixel_stride, 1);
          }
        }
        return;
      }
      const int lanes = kernels_.lanes;
      const std::int64_t strip_row = run.count * outputs * lanes;
      for (std::int64_t k = 0; k < channels; k += lanes) {
        const auto count = static_cast<int>(std::min<std::int64_t>(lanes, channels - k));
        WinogradOutput<T> whole = out;
        out.channels = count;
        out.bias = call.bias == nullptr ? nullptr : call.bias + channel + k;
        out.output = scratch.output_strip;
        transform(strip_row, lanes);
        for (int r = 0; r < rows; ++r) {
          T* maps = output + k * call.output.channel_stride + r * row_pixels;
          store_row(scratch.output_strip + r * strip_row, run_outputs, count, maps,
                    call.output.channel_stride, step);
          if (call.epilogue_apart) {
            kernels_.epilogue(
                call.epilogue.tile(run.sample, channel + k, pixel + r * row_pixels, step), count,
                static_cast<int>(run_outputs), maps, call.output.channel_stride, step);
          }
        }
        out = whole;
        out.products += lanes;
      }
    });
    if (call.past_caches) kernels_.drain_streams();
  }

  void store_row(const T* strip, std::int64_t pixels, int channels, T* maps,
                 std::int64_t channel_stride, std::int64_t step) const noexcept {
    if (step == 1) {
      kernels_.winograd->store_strip(strip, static_cast<int>(pixels), channels, maps,
                                     channel_stride);
      return;
    }
    for (int c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < pixels; ++p) {
        maps[c * channel_stride + p * step] = strip[p * kernels_.lanes + c];
      }
    }
  }

  static constexpr int kMostTileRows = 8;
  static constexpr std::int64_t kChunkWeights = 4608;  ///< of a lane: 576 KiB of AVX-512

  ConvProblem problem_;
  WinogradGeometry geometry_;
  const Kernels<T>& kernels_;
  const WinogradForm<T>& form_;
  int threads_;
  bool channels_last_, adjoint_;
  int vertical_axis_;  ///< the transformed axis that is not the last one, or -1
  std::int64_t frequencies_, tiles_;
  std::int64_t tap_row_, row_;         ///< elements of V of a tile: under one tap, in all
  std::int64_t terms_, term_chunk_;    ///< summed in all, and in one sweep
  bool few_tiles_, past_caches_;
  std::int64_t panels_;
  WinogradBlocks blocks_;
  std::int64_t weight_stride_, chunk_stride_, source_stride_, product_stride_, product_row_;
  std::int64_t most_run_ = 0, strip_elements_ = 0, output_strip_elements_ = 0;
};

}  // namespace

std::unique_ptr<const Execution> make_winograd(const ConvProblem& problem,
                                               const WinogradGeometry& geometry,
                                               const Machine& machine, int threads) {
  return make_typed<WinogradExecution>(problem, geometry, machine, threads);
}

}  // namespace convolith
