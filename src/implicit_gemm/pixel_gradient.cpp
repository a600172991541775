#include "implicit_gemm/pixel_gradient.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "implicit_gemm/pixel_strips.hpp"
#include "kernels/weight_gemm_table.hpp"
#include "pixel_blocks.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// The stride of a single output counts for nothing.
ConvProblem with_least_strides(ConvProblem problem) {
  for (Window& window : problem.windows) {
    if (window.output == 1) window.stride = 1;
  }
  return problem;
}

StripAxis axis_of(const Window& window, std::int64_t destinations) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t t = 0; t < window.kernel; ++t) {
    offsets.push_back(t * window.dilation - window.before);
  }
  return {std::move(offsets), window.stride, std::min(window.output, destinations)};
}

/// A block is some rows, or pieces of rows, of one plane of the output. Its maps are packed with
/// pixels together; every sum has a vector, whose lanes are added at the very end.
template <class T>
class PixelGradient final : public Execution {
 public:
  PixelGradient(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(with_least_strides(problem)),
        kernels_(kernels_for<T>(machine)),
        gemm_(*kernels_.weight_gemm),
        threads_(threads),
        in_(problem.in_channels_per_group()),
        out_(problem.out_channels_per_group()),
        rows_axis_(axis_of(problem_.windows[1], 4)),
        columns_axis_(axis_of(problem_.windows[2], kernels_.lanes)),
        strips_(columns_axis_, problem.windows[2].input, problem_.windows[2].stride, in_, problem,
                kernels_) {
    const auto& [depth, height, width] = problem_.windows;
    const std::int64_t planes = problem.batch * depth.output;
    constexpr std::int64_t kMostColumns = 512, kMostVectors = kMaxChain / 2;
    const std::int64_t columns = std::min(width.output, kMostColumns);
    const std::int64_t rows = kMostVectors / divide_up(columns, kernels_.lanes);
    blocks_ = PixelBlocks(planes, height.output, width.output,
                          std::min(height.output, rows) * columns, kMostColumns);
    const PixelBlock most = blocks_.most();
    strips_.serve(most.columns);
    strip_ = strips_.elements(most.columns);
    places_ = rows_axis_.places(most.rows);
    output_row_ = round_up(most.columns, kernels_.lanes);
    sums_ = in_ * problem.taps() * out_ * kernels_.lanes;
    list_tap_runs();

    constexpr std::int64_t kPixelsOfPart = 1568, kMostParts = 8, kSumBytes = 16 << 20;
    const std::int64_t pixels = planes * height.output * width.output;
    const std::int64_t bytes = problem.groups * sums_ * static_cast<std::int64_t>(sizeof(T));
    parts_ = std::clamp<std::int64_t>(pixels / kPixelsOfPart, 1, kMostParts);
    if (parts_ > 1) parts_ &= ~1;
    parts_ = std::min({parts_, std::max<std::int64_t>(1, blocks_.size()),
                       std::max<std::int64_t>(1, kSumBytes / bytes)});
    parts_ = std::max(parts_, divide_up(blocks_.size(), kMaxChain));
  }

  std::size_t workspace_bytes() const noexcept override {
    return aligned_bytes<T>(parts_ * problem_.groups * sums_) + thread_bytes() * threads_;
  }

  void run(const ConvArguments& arguments, const void* /*packed*/,
           void* workspace) const noexcept override {
    const Maps<const T> x = typed<const T>(arguments.x), y = typed<const T>(arguments.y);
    T* sums = static_cast<T*>(workspace);
    auto* scratch = static_cast<std::byte*>(workspace) +
                    aligned_bytes<T>(parts_ * problem_.groups * sums_);
    parallel_for(threads_, parts_ * problem_.groups, [&](std::int64_t unit, int thread) {
      run_part(x, y, unit / problem_.groups, unit % problem_.groups, sums + unit * sums_,
               reinterpret_cast<T*>(scratch + thread_bytes() * thread));
    });
    parallel_for(threads_, problem_.groups, [&](std::int64_t group, int) {
      T* total = sums + group * sums_;
      for (std::int64_t part = 1; part < parts_; ++part) {
        kernels_.add(sums_, total + part * problem_.groups * sums_, total);
      }
      finish(total, static_cast<T*>(arguments.weight) + group * in_ * out_ * problem_.taps());
    });
  }

 private:
  /// Taps of a kernel row that lie one behind the other in a residue of the strips.
  struct TapRun {
    std::int64_t first;  ///< tap; the next ones are the stride apart
    int count;
    std::int64_t sums;  ///< number of the first among the row's
  };

  void list_tap_runs() {
    const Window& width = problem_.windows[2];
    std::int64_t listed = 0;
    for (std::int64_t residue = 0; residue < std::min(width.stride, width.kernel); ++residue) {
      const std::int64_t taps = divide_up(width.kernel - residue, width.stride);
      const std::int64_t runs = divide_up(taps, gemm_.pixel_taps);
      for (std::int64_t n = 0; n < runs; ++n) {
        const Range some = Range::share(taps, static_cast<int>(n), static_cast<int>(runs));
        const auto count = static_cast<int>(some.end - some.begin);
        runs_.push_back({residue + some.begin * width.stride, count, listed});
        listed += count;
      }
    }
  }

  std::size_t thread_bytes() const noexcept {
    const PixelBlock most = blocks_.most();
    return aligned_bytes<T>(rows_axis_.length(most.rows) * strip_) +
           aligned_bytes<T>(out_ * most.rows * output_row_);
  }

  void run_part(const Maps<const T>& x, const Maps<const T>& y, std::int64_t part,
                std::int64_t group, T* sums, T* strips) const noexcept {
    const Window& depth = problem_.windows[0];
    std::fill(sums, sums + sums_, T(0));
    T* outputs = strips + aligned_bytes<T>(rows_axis_.length(blocks_.most().rows) * strip_) /
                              static_cast<std::int64_t>(sizeof(T));
    const Range range =
        Range::share(blocks_.size(), static_cast<int>(part), static_cast<int>(parts_));
    for (std::int64_t b = range.begin; b < range.end; ++b) {
      const PixelBlock block = blocks_[b];
      pack_output(y, group, block, outputs);
      for (std::int64_t tap = 0; tap < depth.kernel; ++tap) {
        const std::int64_t plane = padded_source(
            block.plane % depth.output * depth.stride + tap * depth.dilation - depth.before,
            depth.input, problem_.padding_mode);
        if (plane < 0) continue;
        pack_source(x, group, block, plane, strips);
        multiply(block, strips, outputs, sums + tap * kernel_rows_sums());
      }
    }
  }

  /// Sums are [depth tap][row tap][channel of x][tap][channel of y][lane].
  std::int64_t row_sums() const noexcept {
    return in_ * problem_.windows[2].kernel * out_ * kernels_.lanes;
  }
  std::int64_t kernel_rows_sums() const noexcept { return problem_.windows[1].kernel * row_sums(); }

  void pack_output(const Maps<const T>& y, std::int64_t group, const PixelBlock& block,
                   T* outputs) const noexcept {
    const std::int64_t depths = problem_.windows[0].output;
    const T* plane = y.sample(block.plane / depths, group * out_);
    for (std::int64_t row = 0; row < block.rows; ++row) {
      const std::int64_t pixel =
          (block.plane % depths * problem_.windows[1].output + block.row + row) *
              problem_.windows[2].output +
          block.column;
      kernels_.split_channels(block.columns, out_, plane + pixel * y.pixel_stride, y.pixel_stride,
                              y.channel_stride, outputs + row * output_row_,
                              block.rows * output_row_);
    }
  }

  void pack_source(const Maps<const T>& x, std::int64_t group, const PixelBlock& block,
                   std::int64_t plane, T* strips) const noexcept {
    const Window &height = problem_.windows[1], &width = problem_.windows[2];
    const T* from = x.sample(block.plane / problem_.windows[0].output, group * in_) +
                    plane * height.input * width.input * x.pixel_stride;
    for (const auto& [place, source_row, destination] : places_) {
      if (destination >= block.rows) break;
      const std::int64_t row = padded_source(block.row * height.stride + source_row, height.input,
                                             problem_.padding_mode);
      if (row < 0) continue;  // is never read
      strips_.pack(x, from + row * width.input * x.pixel_stride, block.column, block.columns,
                   strips + place * strip_);
    }
  }

  /// The rows of a block whose source under a kernel row is no padding.
  Range rows_inside(const PixelBlock& block, std::int64_t offset) const noexcept {
    if (problem_.padding_mode != PaddingMode::zeros) return {0, block.rows};
    const Window& height = problem_.windows[1];
    const std::int64_t first = block.row * height.stride + offset;
    const std::int64_t begin =
        std::clamp<std::int64_t>(divide_up(-first, height.stride), 0, block.rows);
    return {begin, std::clamp(divide_up(height.input - first, height.stride), begin, block.rows)};
  }

  void multiply(const PixelBlock& block, const T* strips, const T* outputs,
                T* sums) const noexcept {
    const Window &height = problem_.windows[1], &width = problem_.windows[2];
    PixelGradientTile<T> tile{};
    tile.x_row_stride = rows_axis_.step() * strip_;
    tile.y_row_stride = output_row_;
    tile.y_channel_stride = block.rows * output_row_;
    tile.columns = block.columns;
    tile.sums_tap_stride = out_ * kernels_.lanes;
    for (std::int64_t h = 0; h < height.kernel; ++h, sums += row_sums()) {
      const std::int64_t offset = h * height.dilation - height.before;
      const Range rows = rows_inside(block, offset);
      tile.rows = rows.end - rows.begin;
      if (tile.rows == 0) continue;
      const T* line = strips + (rows.begin * rows_axis_.step() + rows_axis_.place(offset)) * strip_;
      for (std::int64_t c = 0; c < in_; ++c) {
        for (const TapRun& run : runs_) {
          tile.x = line + strips_.at(c, run.first - width.before);
          tile.taps = run.count;
          T* to = sums + (c * width.kernel + run.sums) * tile.sums_tap_stride;
          const auto chunks = static_cast<int>(divide_up(out_, gemm_.pixel_channels(run.count)));
          for (int n = 0; n < chunks; ++n) {
            const Range channels = Range::share(out_, n, chunks);
            tile.channels = static_cast<int>(channels.end - channels.begin);
            tile.y = outputs + channels.begin * tile.y_channel_stride + rows.begin * output_row_;
            tile.sums = to + channels.begin * kernels_.lanes;
            gemm_.pixel_tile(tile);
          }
        }
      }
    }
  }

  /// Adds up lanes: to [channel of y][channel of x][tap].
  void finish(const T* sums, T* gradient) const noexcept {
    const std::int64_t width = problem_.windows[2].kernel;
    const std::int64_t kernel_rows = problem_.windows[0].kernel * problem_.windows[1].kernel;
    for (std::int64_t row = 0; row < kernel_rows; ++row) {
      for (std::int64_t c = 0; c < in_; ++c) {
        for (const TapRun& run : runs_) {
          for (int t = 0; t < run.count; ++t) {
            const std::int64_t tap = row * width + run.first + t * problem_.windows[2].stride;
            for (std::int64_t k = 0; k < out_; ++k, sums += kernels_.lanes) {
              gradient[(k * in_ + c) * problem_.taps() + tap] =
                  kernels_.sum(kernels_.lanes, sums, 1);
            }
          }
        }
      }
    }
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  const WeightGemmKernels<T>& gemm_;
  int threads_;
  std::int64_t in_, out_;  ///< channels of a group
  StripAxis rows_axis_, columns_axis_;
  PixelStrips<T> strips_;
  PixelBlocks blocks_;
  std::int64_t strip_, output_row_, sums_;  ///< elements
  std::vector<StripAxis::Place> places_;
  std::vector<TapRun> runs_;
  std::int64_t parts_;
};

}  // namespace

std::unique_ptr<const Execution> make_pixel_gradient(const ConvProblem& problem,
                                                     const Machine& machine, int threads) {
  return make_typed<PixelGradient>(problem, machine, threads);
}

bool takes_pixel_gradient(const ConvProblem& problem) noexcept {
  constexpr std::int64_t kMostChannels = 16;
  return problem.windows[2].dilation == 1 && problem.in_channels_per_group() <= kMostChannels &&
         problem.out_channels_per_group() <= kMostChannels;
}

double pixel_gradient_cycles(const ConvProblem& problem, int lanes) {
  const std::int64_t row = problem.windows[2].output;
  const auto in = static_cast<double>(problem.in_channels_per_group());
  const auto out = static_cast<double>(problem.out_channels_per_group());
  const double filled = static_cast<double>(row) / static_cast<double>(round_up(row, lanes));
  // Unaligned vectors take two loads; splitting channels a shuffle or two for each of them.
  return 1.2 * in * out / (lanes * filled) +
         (in * in + out * out) / (lanes * static_cast<double>(problem.taps()));
}

}  // namespace convolith
