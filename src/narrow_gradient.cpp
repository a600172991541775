#include "narrow_gradient.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "kernels/narrow_gradient_table.hpp"
#include "pixel_blocks.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

template <class T>
class NarrowGradientExecution final : public Execution {
 public:
  NarrowGradientExecution(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        kernels_(kernels_for<T>(machine)),
        narrow_(*kernels_.narrow_gradient),
        threads_(threads),
        channels_last_(problem.layout == Layout::channels_last),
        group_(problem.in_channels_per_group()),
        channels_(problem.in_channels),
        taps_(problem.taps()) {
    int log = 0;
    while (1 << log < group_) ++log;
    kernel_ = narrow_.channels[log];

    // Strips are [vector of channels][pixel][lane], or whole groups where those are longer.
    lanes_ = std::max<std::int64_t>(kernels_.lanes, group_);
    // Strips are transposed, and best stay in L1; the array is best read as it lies.
    const std::int64_t chunk_bytes = channels_last_ ? 2048 : 256;
    const std::int64_t vectors = divide_up(channels_, lanes_);
    const std::int64_t together =
        std::max<std::int64_t>(1, chunk_bytes / (lanes_ * static_cast<std::int64_t>(sizeof(T))));
    chunks_ = divide_up(vectors, together);
    chunk_ = divide_up(vectors, chunks_) * lanes_;
    chunks_ = divide_up(channels_, chunk_);
    sums_ = taps_ * group_ * chunk_;

    // channels_last is read in place. Strips have the padding of small kernels with them.
    const auto& windows = problem.windows;
    constexpr std::int64_t kSmallKernel = 8;
    packs_source_ = !channels_last_;
    padded_ = packs_source_ && windows[1].effective_kernel() <= kSmallKernel &&
              windows[2].effective_kernel() <= kSmallKernel;

    // What a block reads and writes takes a quarter of L2.
    const auto ratio = static_cast<double>(problem.input_pixels()) /
                       static_cast<double>(problem.output_pixels());
    const double pixel_bytes = static_cast<double>(chunk_) * sizeof(T) * (1 + ratio);
    const std::int64_t wanted = std::max<std::int64_t>(
        32, static_cast<std::int64_t>(static_cast<double>(machine.l2_bytes) / 4 / pixel_bytes));
    const std::int64_t planes = problem.batch * windows[0].output;
    blocks_ = PixelBlocks(planes, windows[1].output, windows[2].output, wanted,
                          std::min<std::int64_t>(wanted, kMaxChain * 3 / 4));

    constexpr std::int64_t kPixelsOfPart = 196, kMostParts = 16;
    constexpr std::int64_t kSumBytes = 16 << 20;
    const std::int64_t all = planes * windows[1].output * windows[2].output;
    const std::int64_t bytes = sums_ * chunks_ * static_cast<std::int64_t>(sizeof(T));
    parts_ = std::clamp<std::int64_t>(all / kPixelsOfPart, 1, kMostParts);
    if (parts_ > 1) parts_ &= ~1;
    parts_ = std::min({parts_, blocks_.size(), std::max<std::int64_t>(1, kSumBytes / bytes)});
    parts_ = std::max({parts_, divide_up(blocks_.size(), kMaxChain / 8), std::int64_t{1}});

    // Taps that are summed together, in registers.
    const std::int64_t width = windows[2].kernel, height = windows[1].kernel;
    const bool rolls = windows[2].stride == windows[2].dilation &&
                       std::min<std::int64_t>(width, 3) * group_ <= narrow_.most_rolled_sums;
    const std::int64_t most = std::max<std::int64_t>(
        1, (rolls ? narrow_.most_rolled_sums : narrow_.most_sums) / group_);
    column_taps_ = divide_up(width, std::min<std::int64_t>(narrow_.most_columns, most));
    const std::int64_t columns = divide_up(width, column_taps_);
    row_taps_ = divide_up(height, std::clamp<std::int64_t>(most / columns, 1, narrow_.most_rows));

    const PixelBlock block = blocks_.most();
    most_runs_ = block.pixels();
    if (packs_source_) {
      const Range rows = source_range(1, block.row, block.rows, true);
      const Range columns_read = source_range(2, block.column, block.columns, true);
      source_strip_ = block.planes * (rows.end - rows.begin) *
                      (columns_read.end - columns_read.begin) * chunk_;
    }
    if (!channels_last_) output_strip_ = block.pixels() * chunk_;
  }

  std::size_t workspace_bytes() const noexcept override {
    return aligned_bytes<T>(parts_ * chunks_ * sums_) + thread_bytes() * threads_;
  }

  void run(const ConvArguments& arguments, const void* /*packed*/,
           void* workspace) const noexcept override {
    const Call call{typed<const T>(arguments.x), typed<const T>(arguments.y),
                    static_cast<T*>(arguments.weight)};
    T* sums = static_cast<T*>(workspace);
    auto* scratch = static_cast<std::byte*>(workspace) +
                    aligned_bytes<T>(parts_ * chunks_ * sums_);
    parallel_for(threads_, parts_ * chunks_, [&](std::int64_t unit, int thread) {
      run_part(call, unit / chunks_, unit % chunks_, sums + unit * sums_,
               scratch + thread_bytes() * thread);
    });
    parallel_for(threads_, chunks_, [&](std::int64_t number, int) {
      T* total = sums + number * sums_;
      for (std::int64_t part = 1; part < parts_; ++part) {
        kernels_.add(sums_, total + part * chunks_ * sums_, total);
      }
      // [tap][channel of the group][lane] -> [lane][channel of the group][tap]
      const std::int64_t first = number * chunk_;
      for (std::int64_t c = 0; c < group_; ++c) {
        kernels_.transpose(taps_, std::min(chunk_, channels_ - first), total + c * chunk_,
                           group_ * chunk_, 1, call.gradient + (first * group_ + c) * taps_,
                           group_ * taps_, 1);
      }
    });
  }

 private:
  struct Call {
    Maps<const T> x, y;
    T* gradient;
  };

  /// A map itself, or a copy of the planes, rows and columns that a block reads.
  struct View {
    const T* data;
    std::int64_t vector_stride, sample_stride, plane_stride, row_stride, pixel_stride;
    std::int64_t first_row, first_column;

    std::int64_t at(std::int64_t row, std::int64_t column) const noexcept {
      return (row - first_row) * row_stride + (column - first_column) * pixel_stride;
    }
  };

  /// Taps [row, row + rows) x [column, column + columns) at one depth.
  struct TapBlock {
    std::int64_t depth, row, rows, column, columns;
  };

  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<T>(source_strip_) + aligned_bytes<T>(output_strip_) +
           aligned_bytes<NarrowRun>(most_runs_);
  }

  std::int64_t coordinate(int axis, std::int64_t output, std::int64_t tap) const noexcept {
    const Window& w = problem_.windows[axis];
    return output * w.stride + tap * w.dilation - w.before;
  }
  std::int64_t source(int axis, std::int64_t output, std::int64_t tap) const noexcept {
    return padded_source(coordinate(axis, output, tap), problem_.windows[axis].input,
                         problem_.padding_mode);
  }

  /// The same for a row or column, as the view of x has it: strips with padding have them all.
  std::int64_t place(int axis, std::int64_t output, std::int64_t tap) const noexcept {
    return padded_ ? coordinate(axis, output, tap) : source(axis, output, tap);
  }

  /// What `count` outputs read of an axis; `most`: at least as much as any so many do.
  Range source_range(int axis, std::int64_t output, std::int64_t count, bool most) const noexcept {
    const Window& w = problem_.windows[axis];
    const std::int64_t reach = (count - 1) * w.stride + w.effective_kernel();
    const std::int64_t first = most ? 0 : coordinate(axis, output, 0);
    if (padded_) return {first, first + reach};
    if (problem_.padding_mode != PaddingMode::zeros) return {0, w.input};
    const std::int64_t begin = std::clamp<std::int64_t>(first, 0, w.input);
    return {begin, std::clamp(first + reach, begin, w.input)};
  }

  // ---- a part of the pixels, for a chunk of channels ------------------------------------------

  void run_part(const Call& call, std::int64_t part, std::int64_t number, T* sums,
                std::byte* scratch) const noexcept {
    T* source_strip = reinterpret_cast<T*>(scratch);
    T* output_strip = reinterpret_cast<T*>(scratch + aligned_bytes<T>(source_strip_));
    auto* runs = reinterpret_cast<NarrowRun*>(scratch + aligned_bytes<T>(source_strip_) +
                                              aligned_bytes<T>(output_strip_));
    const std::int64_t first = number * chunk_;
    const std::int64_t channels = std::min(chunk_, channels_ - first);
    std::fill(sums, sums + sums_, T(0));
    const Range range = share(blocks_.size(), part, parts_);
    for (std::int64_t b = range.begin; b < range.end; ++b) {
      const PixelBlock block = blocks_[b];
      const View y = view_output(call.y, block, first, channels, output_strip);
      for (std::int64_t depth = 0; depth < problem_.windows[0].kernel; ++depth) {
        const View x = view_source(call.x, block, depth, first, channels, source_strip);
        for (std::int64_t i = 0; i < row_taps_; ++i) {
          const Range rows = share(problem_.windows[1].kernel, i, row_taps_);
          for (std::int64_t j = 0; j < column_taps_; ++j) {
            const Range columns = share(problem_.windows[2].kernel, j, column_taps_);
            const TapBlock taps{depth, rows.begin, rows.end - rows.begin, columns.begin,
                                columns.end - columns.begin};
            sum_taps(x, y, block, taps, channels, runs, sums);
          }
        }
      }
    }
  }

  static Range share(std::int64_t count, std::int64_t number, std::int64_t of) noexcept {
    return Range::share(count, static_cast<int>(number), static_cast<int>(of));
  }

  View in_place(const Maps<const T>& maps, std::int64_t first, const Window& height,
                const Window& width, std::int64_t Window::*extent) const noexcept {
    const std::int64_t row = width.*extent * maps.pixel_stride;
    return {maps.sample(0, first), lanes_, maps.sample_stride, height.*extent * row, row,
            maps.pixel_stride,     0,      0};
  }

  View view_output(const Maps<const T>& y, const PixelBlock& block, std::int64_t first,
                   std::int64_t channels, T* strip) const noexcept {
    const Window &height = problem_.windows[1], &width = problem_.windows[2];
    if (channels_last_) return in_place(y, first, height, width, &Window::output);
    const std::int64_t depths = problem_.windows[0].output;
    const std::int64_t vector_stride = block.pixels() * lanes_;
    T* to = strip;
    for (std::int64_t plane = block.plane; plane < block.plane + block.planes; ++plane) {
      const T* from = y.sample(plane / depths, first) +
                      plane % depths * height.output * width.output * y.pixel_stride;
      for (std::int64_t row = block.row; row < block.row + block.rows; ++row) {
        copy_pixels(y, from + (row * width.output + block.column) * y.pixel_stride, block.columns,
                    channels, to, vector_stride);
        to += block.columns * lanes_;
      }
    }
    return {strip, vector_stride, 0, block.rows * block.columns * lanes_, block.columns * lanes_,
            lanes_, block.row, block.column};
  }

  View view_source(const Maps<const T>& x, const PixelBlock& block, std::int64_t tap,
                   std::int64_t first, std::int64_t channels, T* strip) const noexcept {
    const Window &height = problem_.windows[1], &width = problem_.windows[2];
    if (!packs_source_) return in_place(x, first, height, width, &Window::input);
    const std::int64_t depths = problem_.windows[0].output;
    const Range rows = source_range(1, block.row, block.rows, false);
    const Range columns = source_range(2, block.column, block.columns, false);
    const std::int64_t row_stride = (columns.end - columns.begin) * lanes_;
    const std::int64_t plane_stride = (rows.end - rows.begin) * row_stride;
    const std::int64_t vector_stride = block.planes * plane_stride;
    for (std::int64_t plane = 0; plane < block.planes; ++plane) {
      const std::int64_t number = block.plane + plane;
      const std::int64_t d = source(0, number % depths, tap);
      if (d < 0) continue;
      const T* from = x.sample(number / depths, first) +
                      d * height.input * width.input * x.pixel_stride;
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        const std::int64_t h = padded_source(row, height.input, problem_.padding_mode);
        copy_row(x, h < 0 ? nullptr : from + h * width.input * x.pixel_stride, columns, channels,
                 strip + plane * plane_stride + (row - rows.begin) * row_stride, vector_stride);
      }
    }
    return {strip, vector_stride, 0, plane_stride, row_stride, lanes_, rows.begin, columns.begin};
  }

  /// Columns of a row, which may be padding.
  void copy_row(const Maps<const T>& x, const T* row, const Range& columns, std::int64_t channels,
                T* to, std::int64_t vector_stride) const noexcept {
    const std::int64_t width = problem_.windows[2].input;
    const std::int64_t begin = std::clamp<std::int64_t>(0, columns.begin, columns.end);
    const std::int64_t end = std::clamp(width, begin, columns.end);
    const auto pad = [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t c = first; c < last; ++c) {
        const std::int64_t column =
            row == nullptr ? -1 : padded_source(c, width, problem_.padding_mode);
        T* at = to + (c - columns.begin) * lanes_;
        if (column >= 0) {
          copy_pixels(x, row + column * x.pixel_stride, 1, channels, at, vector_stride);
          continue;
        }
        for (std::int64_t n = 0; n < channels; n += lanes_, at += vector_stride) {
          std::fill(at, at + lanes_, T(0));
        }
      }
    };
    if (row == nullptr) return pad(columns.begin, columns.end);
    pad(columns.begin, begin);
    copy_pixels(x, row + begin * x.pixel_stride, end - begin, channels,
                to + (begin - columns.begin) * lanes_, vector_stride);
    pad(end, columns.end);
  }

  void copy_pixels(const Maps<const T>& maps, const T* from, std::int64_t pixels,
                   std::int64_t channels, T* to, std::int64_t vector_stride) const noexcept {
    for (std::int64_t c = 0; c < channels; c += lanes_, to += vector_stride) {
      kernels_.transpose(std::min(lanes_, channels - c), pixels, from + c * maps.channel_stride,
                         maps.channel_stride, maps.pixel_stride, to, lanes_, 1);
    }
  }

  /// The outputs of [begin, begin + count) whose sources under all of some taps are no padding.
  Range inside(int axis, std::int64_t begin, std::int64_t count, std::int64_t tap,
               std::int64_t taps) const noexcept {
    if (padded_) return {begin, begin + count};
    const Window& w = problem_.windows[axis];
    const std::int64_t first = coordinate(axis, 0, tap);
    const std::int64_t last = coordinate(axis, 0, tap + taps - 1);
    const std::int64_t from = std::clamp(divide_up(-first, w.stride), begin, begin + count);
    return {from, std::clamp(divide_up(w.input - last, w.stride), from, begin + count)};
  }

  /// Pixels inside take all taps at once. Where some taps read padding, the rows, or columns, or
  /// both are taken one by one.
  void sum_taps(const View& x, const View& y, const PixelBlock& block, const TapBlock& taps,
                std::int64_t channels, NarrowRun* runs, T* sums) const noexcept {
    const Range rows = inside(1, block.row, block.rows, taps.row, taps.rows);
    const Range columns = inside(2, block.column, block.columns, taps.column, taps.columns);
    const bool all_rows = rows.begin == block.row && rows.end == block.row + block.rows;
    const bool all_columns =
        columns.begin == block.column && columns.end == block.column + block.columns;
    for (std::int64_t i = -1; i < (all_rows ? 0 : taps.rows); ++i) {
      for (std::int64_t j = -1; j < (all_columns ? 0 : taps.columns); ++j) {
        const TapBlock some{taps.depth, taps.row + std::max<std::int64_t>(i, 0),
                            i < 0 ? taps.rows : 1, taps.column + std::max<std::int64_t>(j, 0),
                            j < 0 ? taps.columns : 1};
        const std::int64_t count =
            list_runs(x, y, block, some, rows, columns, i < 0, j < 0, runs);
        if (count > 0) multiply(x, y, some, channels, runs, count, sums);
      }
    }
  }

  /// Pixels in rows that are, or are not, in `rows`, and likewise for columns.
  std::int64_t list_runs(const View& x, const View& y, const PixelBlock& block,
                         const TapBlock& taps, const Range& rows, const Range& columns,
                         bool in_rows, bool in_columns, NarrowRun* runs) const noexcept {
    std::int64_t count = 0;
    for (std::int64_t plane = 0; plane < block.planes; ++plane) {
      const std::int64_t depths = problem_.windows[0].output;
      const std::int64_t number = block.plane + plane;
      const std::int64_t d = source(0, number % depths, taps.depth);
      if (d < 0) continue;
      std::int64_t x_plane = plane * x.plane_stride, y_plane = plane * y.plane_stride;
      if (!packs_source_) x_plane = number / depths * x.sample_stride + d * x.plane_stride;
      if (channels_last_) {
        y_plane = number / depths * y.sample_stride + number % depths * y.plane_stride;
      }
      const auto add_row = [&](std::int64_t row) {
        const std::int64_t h = place(1, row, taps.row);
        if (!padded_ && h < 0) return;
        const auto add = [&](std::int64_t column, std::int64_t pixels) {
          const std::int64_t w = place(2, column, taps.column);
          if (!padded_ && w < 0) return;
          runs[count++] = {x_plane + x.at(h, w), y_plane + y.at(row, column), pixels};
        };
        if (in_columns) {
          if (columns.begin < columns.end) add(columns.begin, columns.end - columns.begin);
          return;
        }
        for (std::int64_t c = block.column; c < columns.begin; ++c) add(c, 1);
        for (std::int64_t c = columns.end; c < block.column + block.columns; ++c) add(c, 1);
      };
      if (in_rows) {
        for (std::int64_t row = rows.begin; row < rows.end; ++row) add_row(row);
      } else {
        for (std::int64_t row = block.row; row < rows.begin; ++row) add_row(row);
        for (std::int64_t row = rows.end; row < block.row + block.rows; ++row) add_row(row);
      }
    }
    return count;
  }

  void multiply(const View& x, const View& y, const TapBlock& taps, std::int64_t channels,
                const NarrowRun* runs, std::int64_t count, T* sums) const noexcept {
    const auto& windows = problem_.windows;
    NarrowGradient<T> gradient{};
    gradient.x_pixel_stride = windows[2].stride * x.pixel_stride;
    gradient.y_pixel_stride = y.pixel_stride;
    gradient.row_stride = windows[1].dilation * x.row_stride;
    gradient.column_stride = windows[2].dilation * x.pixel_stride;
    gradient.gradient_channel_stride = chunk_;
    gradient.gradient_column_stride = group_ * chunk_;
    gradient.gradient_row_stride = windows[2].kernel * group_ * chunk_;
    gradient.rows = static_cast<int>(taps.rows);
    gradient.columns = static_cast<int>(taps.columns);
    const std::int64_t tap =
        (taps.depth * windows[1].kernel + taps.row) * windows[2].kernel + taps.column;
    for (std::int64_t c = 0; c < channels; c += kernels_.lanes) {
      gradient.lanes = static_cast<int>(std::min<std::int64_t>(kernels_.lanes, channels - c));
      gradient.x = x.data + c / lanes_ * x.vector_stride + c % lanes_ / group_ * group_;
      gradient.y = y.data + c / lanes_ * y.vector_stride + c % lanes_;
      gradient.gradient = sums + tap * group_ * chunk_ + c;
      // As many runs as a chain of additions may be long.
      for (std::int64_t n = 0; n < count; n += gradient.run_count) {
        gradient.runs = runs + n;
        gradient.run_count = 0;
        std::int64_t pixels = runs[n].count;
        do {
          ++gradient.run_count;
          if (n + gradient.run_count == count) break;
          pixels += runs[n + gradient.run_count].count;
        } while (pixels <= kMaxChain);
        kernel_(gradient);
      }
    }
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  const NarrowGradientKernels<T>& narrow_;
  int threads_;
  bool channels_last_;
  bool packs_source_, padded_;  ///< x is read from strips; they have its padding
  std::int64_t group_, channels_, taps_;
  void (*kernel_)(const NarrowGradient<T>&);
  std::int64_t lanes_;           ///< of a strip
  std::int64_t chunk_, chunks_;  ///< channels that are summed together
  std::int64_t sums_;            ///< elements, of a chunk
  PixelBlocks blocks_;
  std::int64_t parts_;           ///< of the blocks, each with sums of its own
  std::int64_t row_taps_, column_taps_;  ///< blocks of taps
  std::int64_t most_runs_, source_strip_ = 0, output_strip_ = 0;
};

}  // namespace

std::unique_ptr<const Execution> make_narrow_gradient(const ConvProblem& problem,
                                                      const Machine& machine, int threads) {
  return make_typed<NarrowGradientExecution>(problem, machine, threads);
}

std::string narrow_gradient_refusal(const ConvProblem& problem) {
  const std::int64_t in = problem.in_channels_per_group();
  const std::int64_t out = problem.out_channels_per_group();
  if (in != out || (in != 1 && in != 2 && in != 4 && in != 8)) {
    return "the gradient in groups of " + std::to_string(in) + " channels in and " +
           std::to_string(out) + " out; it takes 1, 2, 4 or 8 in and as many out";
  }
  constexpr std::int64_t kMostPixels = 1 << 16;
  if (problem.padding_mode != PaddingMode::zeros && problem.input_pixels() > kMostPixels) {
    return std::string("the gradient of maps of more than ") + std::to_string(kMostPixels) +
           " pixels with padding_mode '" + name(problem.padding_mode) + "'";
  }
  constexpr double kMostTerms = double{kMaxChain} * kMaxChain * 4;
  const double terms =
      static_cast<double>(problem.batch) * static_cast<double>(problem.output_pixels());
  if (terms > kMostTerms) {
    return "sums of more than " + std::to_string(static_cast<std::int64_t>(kMostTerms)) +
           " products";
  }
  return {};
}

double narrow_gradient_cost(const ConvProblem& problem, const Machine& machine) {
  const std::int64_t lanes = lanes_of(problem.dtype, machine);
  const auto filled = static_cast<double>(problem.in_channels) /
                      static_cast<double>(round_up(problem.in_channels, lanes));
  const auto bytes = static_cast<double>(size_of(problem.dtype));
  const auto elements = static_cast<double>(problem.x_size() + problem.y_size());
  const double multiply_adds = problem.in_channels_per_group() == 1 ? 1.0 : 0.7;  // a cycle
  double seconds = problem.flops() / (2 * static_cast<double>(lanes) * machine.cycles_per_second *
                                      multiply_adds * filled) +
                   bytes * elements / (2 * machine.bytes_per_second);
  if (problem.layout == Layout::channels_first) {
    constexpr double kTransposition = 0.6;  // cycles of a lane
    seconds += elements * kTransposition / machine.cycles_per_second;
  }
  constexpr double kCall = 3e-6;
  return seconds + kCall;
}

}  // namespace convolith
