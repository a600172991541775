#include "winograd/weight_gradient.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "arithmetic.hpp"
#include "kernels/weight_gemm_table.hpp"
#include "kernels/winograd_gradient_table.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// How an axis is cut: the outputs of a phase, a dilation apart, read sources as far apart, and are
/// tiled by themselves.
struct TileAxis {
  std::int64_t step, phases;
  std::int64_t tiles;  ///< of the longest phase

  TileAxis(const Window& window, int outputs)
      : step(window.dilation),
        phases(std::min(step, window.output)),
        tiles(divide_up(divide_up(window.output, step), outputs)) {}
};

/// Where a line of tiles is, neighbours on the last axis: the coordinates of its first output.
struct LinePlace {
  std::int64_t sample, depth, row, column;
};

/// How many tiles there are, and of how many frequencies.
struct TileGrid {
  int outputs, taps, inputs;  ///< of a tile's axis
  std::int64_t frequencies;
  std::int64_t samples, depths;
  TileAxis height, width;

  TileGrid(const ConvProblem& problem, int size)
      : outputs(kWinogradSizes[size].outputs),
        taps(kWinogradSizes[size].taps),
        inputs(outputs + taps - 1),
        frequencies(inputs * inputs),
        samples(problem.batch),
        depths(problem.windows[0].output),
        height(problem.windows[1], outputs),
        width(problem.windows[2], outputs) {}

  std::int64_t columns() const noexcept { return width.tiles; }
  std::int64_t lines() const noexcept {
    return samples * depths * height.phases * width.phases * height.tiles;
  }
  std::int64_t tiles() const noexcept { return lines() * columns(); }

  LinePlace place(std::int64_t line) const noexcept {
    const auto take = [&](std::int64_t count) {
      const std::int64_t index = line % count;
      line /= count;
      return index;
    };
    LinePlace place{};
    place.row = take(height.tiles) * outputs * height.step;
    place.column = take(width.phases);
    place.row += take(height.phases);
    place.depth = take(depths);
    place.sample = line;
    return place;
  }
};

/// V[frequency][tile][row] = transformed tiles of the source, a row being a channel under a tap of
/// the depth, U[panel][frequency][tile][lane] = those of the output's gradient,
/// M[frequency][row][lane] = V^T U.
template <class T>
class WinogradWeightGradientExecution final : public Execution {
 public:
  WinogradWeightGradientExecution(const ConvProblem& problem, int size, const Machine& machine,
                                  int threads)
      : problem_(problem),
        grid_(problem, size),
        kernels_(kernels_for<T>(machine)),
        transform_source_(kernels_.winograd->square[size].input),
        form_(kernels_.winograd_gradient->square[size]),
        threads_(threads),
        channels_last_(problem.layout == Layout::channels_last),
        in_(problem.in_channels_per_group()),
        out_(problem.out_channels_per_group()),
        lanes_(kernels_.tile_columns),
        depth_taps_(problem.windows[0].kernel),
        rows_(depth_taps_ * in_),
        panels_(divide_up(out_, lanes_)),
        row_panels_(divide_up(rows_, kernels_.tile_rows)),
        tile_row_(odd_lines<T>(rows_ - in_ + round_up(in_, kernels_.lanes))) {
    cut_work();
    source_stride_ = odd_lines<T>(block_tiles_ * tile_row_);
    output_stride_ = odd_lines<T>(block_tiles_ * lanes_);
    product_stride_ = odd_lines<T>(chunk_rows_ * lanes_);
    if (!channels_last_) {
      source_strip_ = grid_.inputs * problem.windows[2].input * in_;
      output_strip_ = grid_.outputs * problem.windows[2].output * out_;
    }
  }

  std::size_t workspace_bytes() const noexcept override {
    return shared_bytes() + thread_bytes() * threads_;
  }

  void run(const ConvArguments& arguments, const void* /*packed*/,
           void* workspace) const noexcept override {
    const Call call{typed<const T>(arguments.x), typed<const T>(arguments.y),
                    static_cast<T*>(arguments.weight)};
    if (grid_.tiles() == 0) {
      std::fill(call.gradient, call.gradient + problem_.weight_size(), T(0));
      return;
    }
    auto* bytes = static_cast<std::byte*>(workspace);
    const auto of_thread = [&](int thread) {
      return Scratch(*this, bytes + shared_bytes() + thread_bytes() * thread);
    };
    for (std::int64_t group = 0; group < problem_.groups; ++group) {
      if (parts_ == 0) {
        run_shared(call, group, bytes, of_thread);
      } else {
        run_parts(call, group, reinterpret_cast<T*>(bytes), of_thread);
      }
    }
  }

 private:
  struct Call {
    Maps<const T> x, y;
    T* gradient;
  };

  struct Scratch {
    T *sources, *outputs;            ///< V and U of a part's block
    T *products, *gradient;          ///< M of a chunk, and what becomes of it
    T *zeros, *source_strip, *output_strip;
    const T** pixels;

    Scratch(const WinogradWeightGradientExecution& execution, std::byte* bytes) {
      const auto take = [&](std::int64_t elements) {
        T* at = reinterpret_cast<T*>(bytes);
        bytes += aligned_bytes<T>(elements);
        return at;
      };
      const bool own = execution.parts_ > 0;
      sources = take(own ? execution.sources() : 0);
      outputs = take(own ? execution.outputs() : 0);
      products = take(execution.chunk_products());
      gradient = take(execution.chunk_gradient());
      zeros = take(execution.zeros());
      source_strip = take(execution.source_strip_);
      output_strip = take(execution.output_strip_);
      pixels = reinterpret_cast<const T**>(bytes);
      std::fill(zeros, zeros + execution.zeros(), T(0));
    }
  };

  std::int64_t sources() const noexcept { return grid_.frequencies * source_stride_; }
  std::int64_t outputs() const noexcept { return panels_ * grid_.frequencies * output_stride_; }
  std::int64_t chunk_products() const noexcept { return grid_.frequencies * product_stride_; }
  std::int64_t chunk_gradient() const noexcept {
    return chunk_rows_ * grid_.taps * grid_.taps * lanes_;
  }
  std::int64_t zeros() const noexcept { return std::max(in_, out_) + 2 * kernels_.lanes; }
  std::int64_t all_products() const noexcept { return panels_ * chunks_ * chunk_products(); }

  std::size_t shared_bytes() const noexcept {
    if (parts_ > 0) return aligned_bytes<T>(parts_ * all_products());
    return aligned_bytes<T>(sources()) + aligned_bytes<T>(outputs()) +
           aligned_bytes<T>(blocks_ > 1 ? all_products() : 0);
  }
  std::size_t thread_bytes() const noexcept {
    const bool own = parts_ > 0;
    return aligned_bytes<T>(own ? sources() : 0) + aligned_bytes<T>(own ? outputs() : 0) +
           aligned_bytes<T>(chunk_products()) + aligned_bytes<T>(chunk_gradient()) +
           aligned_bytes<T>(zeros()) + aligned_bytes<T>(source_strip_) +
           aligned_bytes<T>(output_strip_) + aligned_bytes<const T*>(grid_.frequencies);
  }

  // Blocks are of whole lines of tiles. Where sums are few, parts of the lines have sums of their
  // own, which are added in order; else the threads share the sums of each block.
  void cut_work() {
    constexpr std::int64_t kSize = sizeof(T);
    constexpr std::int64_t kChunkBytes = 384 << 10;
    const std::int64_t row_bytes = grid_.frequencies * lanes_ * kSize;
    constexpr std::int64_t kFewestUnits = 8;
    const std::int64_t chunk_panels = std::clamp<std::int64_t>(
        kChunkBytes / (row_bytes * kernels_.tile_rows), 1,
        std::max<std::int64_t>(1, row_panels_ * panels_ / kFewestUnits));
    chunks_ = divide_up(row_panels_, chunk_panels);
    chunk_rows_ = 0;
    for (std::int64_t n = 0; n < chunks_; ++n) {
      const Range rows = chunk(n);
      chunk_rows_ = std::max(chunk_rows_, rows.end - rows.begin);
    }

    constexpr std::int64_t kMostSumBytes = 32 << 20, kSingleBytes = 40 << 20;
    constexpr std::int64_t kSharedBytes = 24 << 20, kPartBytes = 4 << 20, kSumBytes = 16 << 20;
    constexpr std::int64_t kFewestTiles = 256, kTilesOfPart = 98, kMostParts = 8;
    const std::int64_t tile_bytes = grid_.frequencies * (tile_row_ + panels_ * lanes_) * kSize;
    const std::int64_t line_bytes = grid_.columns() * tile_bytes;
    const std::int64_t lines = grid_.lines();
    const std::int64_t sum_bytes = row_bytes * rows_ * panels_;
    const auto blocks_of = [&](std::int64_t count, std::int64_t bytes) {
      return divide_up(count, std::max<std::int64_t>(1, bytes / line_bytes));
    };
    parts_ = std::clamp<std::int64_t>(grid_.tiles() / kTilesOfPart, 2, kMostParts) & ~1;
    if (grid_.tiles() < 2 * kFewestTiles) parts_ = 0;
    parts_ = std::min({parts_, kSumBytes / sum_bytes, lines});
    if (parts_ < 2) {
      parts_ = 0;
      // One block needs no sums of all channels.
      blocks_ = blocks_of(lines, sum_bytes > kMostSumBytes ? kSingleBytes : kSharedBytes);
      block_lines_ = blocks_ == 0 ? 1 : divide_up(lines, blocks_);
    } else {
      const std::int64_t part_lines = divide_up(lines, parts_);
      blocks_ = blocks_of(part_lines, kPartBytes);
      block_lines_ = divide_up(part_lines, blocks_);
    }
    block_tiles_ = block_lines_ * grid_.columns();
  }

  /// Rows that are summed together.
  Range chunk(std::int64_t number) const noexcept {
    const Range panels = share(row_panels_, number, chunks_);
    return {share(rows_, panels.begin, row_panels_).begin,
            share(rows_, panels.end - 1, row_panels_).end};
  }

  static Range share(std::int64_t count, std::int64_t number, std::int64_t of) noexcept {
    return Range::share(count, static_cast<int>(number), static_cast<int>(of));
  }

  int panel_lanes(std::int64_t panel) const noexcept {
    return static_cast<int>(out_ - panel * lanes_ <= kernels_.lanes ? kernels_.lanes : lanes_);
  }

  // ---- transforms --------------------------------------------------------------------------

  /// The rows of a line of tiles in one map.
  struct Line {
    const T* rows[8];  ///< the first pixel of each; null: zeros
    std::int64_t pixel_stride, row_stride;
  };

  /// Finds rows `step` apart from `first` on, of `width` pixels each, whose number `find` gives, or
  /// -1; in channels_first transposes them into the strip.
  template <class Find>
  Line find_rows(const Maps<const T>& maps, const T* plane, std::int64_t width, int count,
                 std::int64_t first, std::int64_t step, std::int64_t channels, T* strip,
                 const Find& find) const noexcept {
    Line line{};
    for (int i = 0; i < count; ++i) {
      const std::int64_t row = find(first + i * step);
      if (row < 0) continue;
      const T* from = plane + row * width * maps.pixel_stride;
      line.rows[i] = from;
      if (channels_last_) continue;
      T* to = strip + i * width * channels;
      kernels_.transpose(channels, width, from, maps.channel_stride, maps.pixel_stride, to,
                         channels, 1);
      line.rows[i] = to;
    }
    line.pixel_stride = channels_last_ ? maps.pixel_stride : channels;
    line.row_stride = width * line.pixel_stride * (channels_last_ ? step : 1);
    return line;
  }

  /// V of one line of tiles.
  void transform_sources(const Call& call, std::int64_t group, std::int64_t number, T* transformed,
                         const Scratch& scratch) const noexcept {
    const Window& depth = problem_.windows[0];
    const LinePlace place = grid_.place(number);
    const T* sample = call.x.sample(place.sample, group * in_);
    for (std::int64_t tap = 0; tap < depth_taps_; ++tap) {
      const std::int64_t plane =
          padded_source(place.depth * depth.stride - depth.before + tap * depth.dilation,
                        depth.input, problem_.padding_mode);
      T* to = transformed + tap * in_;
      if (plane >= 0) {
        transform_plane(call, place, sample, plane, to, scratch);
        continue;
      }
      for (std::int64_t f = 0; f < grid_.frequencies; ++f) {
        for (std::int64_t tile = 0; tile < grid_.columns(); ++tile) {
          T* row = to + f * source_stride_ + tile * tile_row_;
          std::fill(row, row + in_, T(0));
        }
      }
    }
  }

  /// Of one plane of the source. Windows end before the last tile does: what they do not read may
  /// be anything finite.
  void transform_plane(const Call& call, const LinePlace& place, const T* sample,
                       std::int64_t plane, T* transformed, const Scratch& scratch) const noexcept {
    const Window &height = problem_.windows[1], &width = problem_.windows[2];
    const auto source = [&](const Window& window, std::int64_t at) {
      return at >= window.input + window.after
                 ? -1
                 : padded_source(at, window.input, problem_.padding_mode);
    };
    const std::int64_t first_row = place.row - height.before;
    const std::int64_t last_row = first_row + (grid_.inputs - 1) * height.dilation;
    const Line line =
        find_rows(call.x, sample + plane * height.input * width.input * call.x.pixel_stride,
                  width.input, grid_.inputs, first_row, height.dilation, in_, scratch.source_strip,
                  [&](std::int64_t at) { return source(height, at); });

    WinogradInput<T> in{};
    in.row_stride = line.row_stride;
    in.column_stride = width.dilation * line.pixel_stride;
    in.source_tile_stride = grid_.outputs * in.column_stride;
    in.channels = in_;
    in.frequency_stride = source_stride_;
    in.tile_stride = tile_row_;
    const std::int64_t step = grid_.outputs * width.dilation;
    const std::int64_t reach = (grid_.inputs - 1) * width.dilation;
    for (std::int64_t tile = 0; tile < grid_.columns();) {
      const std::int64_t first = place.column + tile * step - width.before;
      in.transformed = transformed + tile * tile_row_;
      in.tiles = 1;
      if (first_row >= 0 && last_row < height.input && first >= 0 && first + reach < width.input) {
        in.pixels = nullptr;
        in.source = line.rows[0] + first * line.pixel_stride;
        in.tiles = std::min(grid_.columns() - tile, (width.input - 1 - reach - first) / step + 1);
      } else {
        for (int j = 0; j < grid_.inputs; ++j) {
          const std::int64_t column = source(width, first + j * width.dilation);
          for (int i = 0; i < grid_.inputs; ++i) {
            const T* row = line.rows[i];
            scratch.pixels[i * grid_.inputs + j] =
                row == nullptr || column < 0 ? scratch.zeros : row + column * line.pixel_stride;
          }
        }
        in.pixels = scratch.pixels;
      }
      transform_source_(in);
      tile += in.tiles;
    }
  }

  /// U of one line of tiles, for some panels.
  void transform_outputs(const Call& call, std::int64_t group, std::int64_t number,
                         const Range& panels, T* transformed,
                         const Scratch& scratch) const noexcept {
    const Window &height = problem_.windows[1], &width = problem_.windows[2];
    const LinePlace place = grid_.place(number);
    const std::int64_t first_channel = panels.begin * lanes_;
    const std::int64_t channels = std::min(out_, panels.end * lanes_) - first_channel;
    const Line line = find_rows(
        call.y,
        call.y.sample(place.sample, group * out_ + first_channel) +
            place.depth * height.output * width.output * call.y.pixel_stride,
        width.output, grid_.outputs, place.row, height.dilation, channels, scratch.output_strip,
        [&](std::int64_t at) { return at < height.output ? at : -1; });

    WinogradOutputGradient<T> in{};
    in.row_stride = line.row_stride;
    in.column_stride = width.dilation * line.pixel_stride;
    in.source_tile_stride = grid_.outputs * in.column_stride;
    in.frequency_stride = output_stride_;
    in.tile_stride = lanes_;
    const std::int64_t phase_columns = divide_up(width.output - place.column, width.dilation);
    const bool rows_inside = place.row + (grid_.outputs - 1) * height.dilation < height.output;
    const std::int64_t whole = rows_inside ? phase_columns / grid_.outputs : 0;
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const std::int64_t channel = (panel - panels.begin) * lanes_;
      in.channels = static_cast<int>(std::min(lanes_, channels - channel));
      in.lanes = panel_lanes(panel);
      in.transformed = transformed + panel * grid_.frequencies * output_stride_;
      in.pixels = nullptr;
      in.tiles = whole;
      if (whole > 0) {
        in.source = line.rows[0] + place.column * line.pixel_stride + channel;
        form_.output(in);
      }
      in.tiles = 1;
      in.pixels = scratch.pixels;
      for (std::int64_t tile = whole; tile < grid_.columns(); ++tile) {
        for (int j = 0; j < grid_.outputs; ++j) {
          const std::int64_t column = place.column + (tile * grid_.outputs + j) * width.dilation;
          for (int i = 0; i < grid_.outputs; ++i) {
            const T* row = line.rows[i];
            scratch.pixels[i * grid_.outputs + j] =
                row == nullptr || column >= width.output
                    ? scratch.zeros
                    : row + column * line.pixel_stride + channel;
          }
        }
        in.transformed =
            transformed + panel * grid_.frequencies * output_stride_ + tile * lanes_;
        form_.output(in);
      }
    }
  }

  // ---- products ----------------------------------------------------------------------------

  /// M (+)= V^T U for a chunk of rows and a panel, over `tiles` tiles.
  void multiply(const T* sources, const T* outputs, std::int64_t panel, std::int64_t number,
                std::int64_t tiles, T* products, bool accumulate) const noexcept {
    constexpr std::int64_t kTogether = 256;  // a panel of so many tiles leaves room in L1
    const int width = panel_lanes(panel);
    const Range panels = share(row_panels_, number, chunks_);
    const std::int64_t first = chunk(number).begin;
    const std::int64_t pieces = divide_up(tiles, kTogether);
    WeightGemmTile<T> tile{};
    PixelRun run{};
    tile.runs = &run;
    tile.run_count = 1;
    tile.rows_pixel_stride = tile_row_;
    tile.columns_pixel_stride = lanes_;
    tile.sum_row_stride = width;
    tile.vectors = width / kernels_.lanes;
    tile.lines = 1;
    for (std::int64_t f = 0; f < grid_.frequencies; ++f) {
      tile.columns = outputs + (panel * grid_.frequencies + f) * output_stride_;
      tile.prefetch = tile.columns + output_stride_;
      tile.prefetch_stride = width;
      for (std::int64_t piece = 0; piece < pieces; ++piece) {
        const Range some = share(tiles, piece, pieces);
        run.count = some.end - some.begin;
        run.rows = some.begin * tile_row_;
        run.columns = some.begin * lanes_;
        tile.accumulate = accumulate || piece > 0;
        for (std::int64_t p = panels.begin; p < panels.end; ++p) {
          const Range rows = share(rows_, p, row_panels_);
          tile.row_count = static_cast<int>(rows.end - rows.begin);
          tile.rows = sources + f * source_stride_ + rows.begin;
          tile.sum = products + f * product_stride_ + (rows.begin - first) * width;
          kernels_.weight_gemm->tile(tile);
        }
      }
    }
  }

  /// The sums of all parts in those of the first, for a chunk and panel. What lies between the
  /// frequencies is left out: it may be subnormal, which slows additions down.
  void add_parts(std::int64_t panel, std::int64_t number, T* products) const noexcept {
    const Range rows = chunk(number);
    const std::int64_t count = (rows.end - rows.begin) * panel_lanes(panel);
    for (std::int64_t f = 0; f < grid_.frequencies; ++f, products += product_stride_) {
      for (std::int64_t part = 1; part < parts_; ++part) {
        kernels_.add(count, products + part * all_products(), products);
      }
    }
  }

  /// The gradient of a chunk and panel.
  void finish(const Call& call, std::int64_t group, std::int64_t panel, std::int64_t number,
              const T* products, T* gradient) const noexcept {
    const Range rows = chunk(number);
    const std::int64_t taps = grid_.taps * grid_.taps;
    WinogradWeightGradient<T> in{};
    in.products = products;
    in.frequency_stride = product_stride_;
    in.rows = rows.end - rows.begin;
    in.lanes = panel_lanes(panel);
    in.gradient = gradient;
    form_.weight(in);
    const std::int64_t first = panel * lanes_;
    const std::int64_t channels = std::min(lanes_, out_ - first), all_taps = depth_taps_ * taps;
    T* to = call.gradient + (group * out_ + first) * in_ * all_taps;
    // The taps of a channel are neighbours there: of all depths.
    const std::int64_t together = depth_taps_ == 1 ? in.rows : 1;
    for (std::int64_t row = rows.begin; row < rows.end; row += together) {
      kernels_.transpose(together * taps, channels, gradient + (row - rows.begin) * taps * in.lanes,
                         in.lanes, 1, to + row % in_ * all_taps + row / in_ * taps, in_ * all_taps,
                         1);
    }
  }

  template <class OfThread>
  void run_shared(const Call& call, std::int64_t group, std::byte* bytes,
                  const OfThread& of_thread) const noexcept {
    T* sources_at = reinterpret_cast<T*>(bytes);
    T* outputs_at = reinterpret_cast<T*>(bytes + aligned_bytes<T>(sources()));
    T* products_at = reinterpret_cast<T*>(bytes + aligned_bytes<T>(sources()) +
                                          aligned_bytes<T>(outputs()));
    // A thread transforms the outputs of the panels that it then multiplies: what another core has
    // just written takes long where the two have no cache in common.
    const bool own_panels = panels_ % threads_ == 0;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      const Range lines = share(grid_.lines(), b, blocks_);
      const std::int64_t count = lines.end - lines.begin;
      const auto outputs_of = [&](std::int64_t i, const Range& panels, const Scratch& scratch) {
        transform_outputs(call, group, lines.begin + i, panels,
                          outputs_at + i * grid_.columns() * lanes_, scratch);
      };
      parallel_for(threads_, count, [&](std::int64_t i, int thread) {
        const Scratch scratch = of_thread(thread);
        transform_sources(call, group, lines.begin + i,
                          sources_at + i * grid_.columns() * tile_row_, scratch);
        if (!own_panels) outputs_of(i, {0, panels_}, scratch);
      });
      if (own_panels) {
        parallel_ranges(threads_, panels_, panels_ / threads_, [&](const Range& range, int thread) {
          const Scratch scratch = of_thread(thread);
          for (std::int64_t i = 0; i < count; ++i) outputs_of(i, range, scratch);
        });
      }
      parallel_for(threads_, panels_ * chunks_, [&](std::int64_t unit, int thread) {
        const Scratch scratch = of_thread(thread);
        T* products = blocks_ > 1 ? products_at + unit * chunk_products() : scratch.products;
        multiply(sources_at, outputs_at, unit / chunks_, unit % chunks_, count * grid_.columns(),
                 products, b > 0);
        if (b == blocks_ - 1) {
          finish(call, group, unit / chunks_, unit % chunks_, products, scratch.gradient);
        }
      });
    }
  }

  template <class OfThread>
  void run_parts(const Call& call, std::int64_t group, T* all,
                 const OfThread& of_thread) const noexcept {
    const std::int64_t units = parts_ * panels_;
    // Sources are transformed anew for every range.
    const std::int64_t grain = std::min(panels_, divide_up(units, 4 * threads_));
    parallel_ranges(threads_, units, grain, [&](const Range& range, int thread) {
      const Scratch scratch = of_thread(thread);
      for (std::int64_t unit = range.begin; unit < range.end;) {
        const std::int64_t part = unit / panels_, first = unit % panels_;
        const Range panels{first, std::min(panels_, first + range.end - unit)};
        const Range part_lines = share(grid_.lines(), part, parts_);
        for (std::int64_t b = 0; b < blocks_; ++b) {
          const Range lines = share(part_lines.end - part_lines.begin, b, blocks_);
          for (std::int64_t i = lines.begin; i < lines.end; ++i) {
            const std::int64_t tile = (i - lines.begin) * grid_.columns();
            transform_sources(call, group, part_lines.begin + i,
                              scratch.sources + tile * tile_row_, scratch);
            transform_outputs(call, group, part_lines.begin + i, panels,
                              scratch.outputs + tile * lanes_, scratch);
          }
          for (std::int64_t n = panels.begin * chunks_; n < panels.end * chunks_; ++n) {
            multiply(scratch.sources, scratch.outputs, n / chunks_, n % chunks_,
                     (lines.end - lines.begin) * grid_.columns(),
                     all + part * all_products() + n * chunk_products(), b > 0);
          }
        }
        unit += panels.end - panels.begin;
      }
    });
    parallel_for(threads_, panels_ * chunks_, [&](std::int64_t unit, int thread) {
      const Scratch scratch = of_thread(thread);
      T* products = all + unit * chunk_products();
      add_parts(unit / chunks_, unit % chunks_, products);
      finish(call, group, unit / chunks_, unit % chunks_, products, scratch.gradient);
    });
  }

  ConvProblem problem_;
  TileGrid grid_;
  const Kernels<T>& kernels_;
  void (*transform_source_)(const WinogradInput<T>&);
  const WinogradGradientForm<T>& form_;
  int threads_;
  bool channels_last_;
  std::int64_t in_, out_;  ///< channels per group
  std::int64_t lanes_, depth_taps_, rows_, panels_, row_panels_, tile_row_;
  std::int64_t chunks_, chunk_rows_;
  std::int64_t parts_;  ///< 0: threads share the sums
  std::int64_t blocks_, block_lines_, block_tiles_;
  std::int64_t source_stride_, output_stride_, product_stride_;  ///< of frequencies
  std::int64_t source_strip_ = 0, output_strip_ = 0;
};

}  // namespace

int winograd_weight_gradient_size(const ConvProblem& problem, int outputs, std::string* reason) {
  const auto refuse = [&](std::string why) {
    if (reason != nullptr) *reason = std::move(why);
    return -1;
  };
  const Window &height = problem.windows[1], &width = problem.windows[2];
  int size = 0;
  for (; size < kWinogradSizeCount; ++size) {
    const WinogradSize& s = kWinogradSizes[size];
    if (s.outputs == outputs && s.taps == height.kernel && s.taps == width.kernel) break;
  }
  if (size == kWinogradSizeCount) {
    return refuse(std::string("the gradient of a kernel that is not 3 x 3") +
                  (outputs < 6 ? " or 5 x 5" : ""));
  }
  if (height.stride != 1 || width.stride != 1) return refuse("the stride is not 1");
  const TileGrid grid(problem, size);
  constexpr std::int64_t kMostColumns = 512;
  if (grid.columns() > kMostColumns) {
    return refuse("rows of " + std::to_string(grid.columns()) + " tiles, above " +
                  std::to_string(kMostColumns));
  }
  constexpr double kMostSums = 8 << 20;
  const std::int64_t rows = problem.windows[0].kernel * problem.in_channels_per_group();
  const std::int64_t out = problem.out_channels_per_group();
  const double sums = static_cast<double>(grid.frequencies) * static_cast<double>(rows) *
                      static_cast<double>(out);
  const double tile_elements = static_cast<double>(grid.frequencies) *
                               static_cast<double>(rows + out);
  constexpr double kMostTransformed = 10 << 20;
  if (sums > kMostSums && tile_elements * static_cast<double>(grid.tiles()) > kMostTransformed) {
    return refuse("sums and transformed tiles of more than 64 MiB");
  }
  return size;
}

std::int64_t winograd_weight_gradient_tiles(const ConvProblem& problem, int size) {
  return TileGrid(problem, size).tiles();
}

double winograd_weight_gradient_cost(const ConvProblem& problem, int outputs,
                                     const Machine& machine) {
  const TileGrid grid(problem, winograd_weight_gradient_size(problem, outputs, nullptr));
  const bool wide = problem.dtype == DType::float64;
  const std::int64_t lanes = lanes_of(problem.dtype, machine);
  const std::int64_t tile_rows =
      wide ? machine.kernels->float64.tile_rows : machine.kernels->float32.tile_rows;
  const auto bytes = static_cast<double>(size_of(problem.dtype));
  const auto tiles = static_cast<double>(grid.tiles());
  const auto frequencies = static_cast<double>(grid.frequencies);
  const std::int64_t in = problem.in_channels_per_group(), out = problem.out_channels_per_group();
  const std::int64_t depth_taps = problem.windows[0].kernel, rows = depth_taps * in;
  const auto in_vectors = static_cast<double>(depth_taps * divide_up(in, lanes));
  const auto out_vectors = static_cast<double>(divide_up(out, lanes));
  const double two_products = 4.0 * static_cast<double>(lanes) / machine.flops_per_second[wide];

  // Products: each register tile is loaded and stored, once for so many tiles.
  constexpr double kTogether = 256, kTileCycles = 90;
  const double register_tiles = frequencies * static_cast<double>(divide_up(rows, tile_rows)) *
                                std::ceil(out_vectors / 2) * std::ceil(tiles / kTogether);
  const double products = frequencies * tiles * static_cast<double>(rows) * out_vectors / 2 / 0.9 *
                          two_products;
  // Transforms, a vector at a time; of eight frequencies an axis, registers do not hold them.
  constexpr double kNarrow = 10, kWide = 12, kSum = 5;
  const double vector_cycles = grid.inputs > 6 ? kWide : kNarrow;
  const double transforms = tiles * (in_vectors + out_vectors) * frequencies * vector_cycles;
  const double sums = frequencies * static_cast<double>(rows) * out_vectors * kSum;
  double moved = bytes * static_cast<double>(problem.x_size() + problem.y_size());
  // In channels_first every phase of the columns transposes whole rows.
  if (problem.layout == Layout::channels_first) moved *= static_cast<double>(grid.width.phases);
  // Groups come one after the other, and each calls the threads together twice.
  const double group = problem.groups > 1 ? 5e-5 : 1e-5;
  return static_cast<double>(problem.groups) *
             (products +
              (register_tiles * kTileCycles + transforms + sums) / machine.cycles_per_second +
              group) +
         moved / (2 * machine.bytes_per_second);
}

std::unique_ptr<const Execution> make_winograd_weight_gradient(const ConvProblem& problem,
                                                               int outputs,
                                                               const Machine& machine,
                                                               int threads) {
  const int size = winograd_weight_gradient_size(problem, outputs, nullptr);
  return make_typed<WinogradWeightGradientExecution>(problem, size, machine, threads);
}

}  // namespace convolith
