// Direct convolution: every output sums its own products, read from the arrays where they lie.
// Forward and backward-input gather over the taps of each destination; backward-weight
// accumulates over runs of output pixels. Register tiles follow Georganas et al.,
// arXiv:1808.05567, without their code generation.

#include <algorithm>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "tolerance.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

bool is_depthwise(const ConvProblem& problem) {
  return problem.in_channels_per_group() == 1 && problem.out_channels_per_group() == 1;
}

/// A reduction cut into equal chunks of at most kMaxChain products, which are summed in registers
/// and then folded into memory one after the other.
struct ReductionChunks {
  std::int64_t channels, taps;  ///< of a chunk
  std::int64_t folds;

  ReductionChunks(std::int64_t all_channels, std::int64_t all_taps) {
    const std::int64_t channel_chunks = divide_up(all_channels, kMaxChain);
    channels = divide_up(all_channels, channel_chunks);
    const std::int64_t fitting = std::max<std::int64_t>(1, kMaxChain / channels);
    const std::int64_t tap_chunks = std::max<std::int64_t>(1, divide_up(all_taps, fitting));
    taps = std::max<std::int64_t>(1, divide_up(all_taps, tap_chunks));
    folds = channel_chunks * tap_chunks;
  }
};

/// Forward (sources are x) and backward-input (sources are y).
template <class T>
class DirectGather final : public Execution {
 public:
  DirectGather(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        kernels_(kernels_for<T>(machine)),
        threads_(threads),
        adjoint_(problem.direction == Direction::backward_input),
        channels_last_(problem.layout == Layout::channels_last),
        depthwise_(channels_last_ && is_depthwise(problem)),
        gather_(problem, adjoint_) {
    // The depthwise kernel takes all channels as the lanes of one group.
    groups_ = depthwise_ ? 1 : problem.groups;
    reduced_ = adjoint_ ? problem.out_channels_per_group() : problem.in_channels_per_group();
    produced_ = adjoint_ ? problem.in_channels_per_group() : problem.out_channels_per_group();
    if (depthwise_) produced_ = problem.in_channels;
    tile_pixels_ = channels_last_ ? kernels_.tile_rows : kernels_.tile_columns;
    panel_width_ = channels_last_ ? kernels_.tile_columns : kernels_.tile_rows;
    panels_ = divide_up(produced_, panel_width_);
    panel_size_ = problem.taps() * reduced_ * panel_width_;

    constexpr std::int64_t kTilesPerRun = 8;
    runs_ = gather_.runs(kTilesPerRun * tile_pixels_);

    const ReductionChunks chunks(reduced_, gather_.most_taps());
    channel_chunk_ = chunks.channels;
    tap_chunk_ = chunks.taps;
  }

  std::size_t workspace_bytes() const noexcept override {
    return gather_.scratch_bytes() * threads_;
  }

  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(groups_ * panels_ * panel_size_) * sizeof(T);
  }

  /// Panels [group][panel][tap][reduced channel][lane], the last one filled up with zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* panels = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps();
    const std::int64_t in_stride = taps;
    const std::int64_t out_stride = taps * problem_.in_channels_per_group();
    // In the depthwise case the groups are the lanes.
    const std::int64_t lane_stride = adjoint_ && !depthwise_ ? in_stride : out_stride;
    const std::int64_t reduced_stride = adjoint_ ? out_stride : in_stride;
    parallel_for(threads_, groups_ * panels_, [&](std::int64_t index, int) {
      const std::int64_t first = index % panels_ * panel_width_;
      const T* from = source + index / panels_ * problem_.out_channels_per_group() * out_stride +
                      first * lane_stride;
      const auto valid = static_cast<int>(std::min(panel_width_, produced_ - first));
      for (std::int64_t t = 0; t < taps; ++t) {
        kernels_.pack_panel(static_cast<int>(panel_width_), valid, reduced_, from + t, lane_stride,
                            reduced_stride,
                            panels + index * panel_size_ + t * reduced_ * panel_width_);
      }
    });
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const Maps<T> source = typed<T>(adjoint_ ? arguments.y : arguments.x);
    const Maps<T> output = typed<T>(adjoint_ ? arguments.x : arguments.y);
    const BoundEpilogue<T> epilogue(problem_, arguments);
    const std::int64_t pieces = runs_.size();
    const std::int64_t pixel_units = gather_.rows() * pieces;
    // The operand that is larger stays in cache longer: it gets the outer loop.
    const bool panels_outer = static_cast<std::int64_t>(packed_bytes() / sizeof(T)) >
                              problem_.in_channels * problem_.input_pixels();
    const std::int64_t units = problem_.batch * groups_ * panels_ * pixel_units;
    parallel_for(threads_, units, [&](std::int64_t index, int thread) {
      std::int64_t panel, unit;
      if (panels_outer) {
        unit = index % pixel_units;
        index /= pixel_units;
        panel = index % panels_;
        index /= panels_;
      } else {
        panel = index % panels_;
        index /= panels_;
        unit = index % pixel_units;
        index /= pixel_units;
      }
      auto* scratch = static_cast<std::byte*>(workspace) + gather_.scratch_bytes() * thread;
      run_unit(source, output, epilogue, static_cast<const T*>(packed), index / groups_,
               index % groups_, panel, unit / pieces, runs_[unit % pieces], scratch);
    });
  }

 private:
  void run_unit(const Maps<T>& source, const Maps<T>& output, const BoundEpilogue<T>& epilogue,
                const T* packed, std::int64_t sample, std::int64_t group, std::int64_t panel,
                std::int64_t row, const Run& run, std::byte* scratch) const noexcept {
    const std::int64_t tap_count = gather_.list_taps(
        row, run, {source.pixel_stride, 0, reduced_ * panel_width_}, scratch);
    const auto* taps = reinterpret_cast<const Tap*>(scratch);
    const std::int64_t first_channel = group * produced_ + panel * panel_width_;
    const auto channels =
        static_cast<int>(std::min(panel_width_, produced_ - panel * panel_width_));
    const std::int64_t first_pixel = row * gather_.row_pixels() + run.begin;
    const std::int64_t source_channel = depthwise_ ? first_channel : group * reduced_;
    const auto kernel = depthwise_      ? kernels_.gather_depthwise
                        : channels_last_ ? kernels_.gather_channels_last
                                         : kernels_.gather_channels_first;

    GatherTile<T> tile{};
    tile.source_pixel_stride = run.source_step * source.pixel_stride;
    tile.source_channel_stride = source.channel_stride;
    tile.output_pixel_stride = run.step * output.pixel_stride;
    tile.output_channel_stride = output.channel_stride;
    tile.out_channels = channels;
    tile.tile_pixels = static_cast<int>(tile_pixels_);
    const T* source_base = source.sample(sample, source_channel);
    const T* weight_base = packed + (group * panels_ + panel) * panel_size_;
    T* output_base = output.sample(sample, first_channel) + first_pixel * output.pixel_stride;

    std::int64_t t = 0;
    do {
      tile.taps = taps + t;
      tile.tap_count = std::min(tap_chunk_, tap_count - t);
      for (std::int64_t c = 0; c < reduced_; c += channel_chunk_) {
        tile.channels = std::min(channel_chunk_, reduced_ - c);
        tile.weight = weight_base + c * panel_width_;
        tile.accumulate = t > 0 || c > 0;
        for (std::int64_t p = 0; p < run.count;) {
          tile.pixels = tile_extent(run.count, p);
          tile.source = source_base + c * source.channel_stride + p * tile.source_pixel_stride;
          tile.output = output_base + p * tile.output_pixel_stride;
          kernel(tile);
          p += tile.pixels;
        }
      }
      t += tap_chunk_;
    } while (t < tap_count);

    if (!epilogue.empty()) {
      const auto pixels = static_cast<int>(run.count);
      kernels_.epilogue(
          epilogue.tile(sample, first_channel, first_pixel, run.step),
          channels_last_ ? pixels : channels, channels_last_ ? channels : pixels, output_base,
          channels_last_ ? tile.output_pixel_stride : output.channel_stride,
          channels_last_ ? output.channel_stride : tile.output_pixel_stride);
    }
  }

  /// Pixels that the kernel takes from the p-th on: all of them where it cuts them itself.
  int tile_extent(std::int64_t count, std::int64_t p) const noexcept {
    const bool cuts = channels_last_ && !depthwise_;
    return static_cast<int>(cuts ? count - p : std::min(tile_pixels_, count - p));
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool adjoint_, channels_last_, depthwise_;
  Gather gather_;
  std::int64_t groups_, reduced_, produced_;  ///< channels per group that are read and written
  std::int64_t tile_pixels_, panel_width_, panels_, panel_size_;
  Runs runs_;
  std::int64_t tap_chunk_, channel_chunk_;
};

/// Backward-weight. The output is cut into strips, runs of at most kMaxChain pixels of a row, and
/// the strips into parts. Each part has an accumulator of its own; they are added in order, so
/// that the result does not depend on which thread took which.
template <class T>
class DirectWeightGradient final : public Execution {
 public:
  DirectWeightGradient(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        kernels_(kernels_for<T>(machine)),
        threads_(threads),
        channels_last_(problem.layout == Layout::channels_last),
        depthwise_(channels_last_ && is_depthwise(problem)) {
    groups_ = depthwise_ ? 1 : problem.groups;
    in_ = depthwise_ ? 1 : problem.in_channels_per_group();
    out_ = depthwise_ ? problem.out_channels : problem.out_channels_per_group();
    in_tile_ = depthwise_ ? 1 : channels_last_ ? kernels_.tile_rows : kernels_.gradient_block;
    out_tile_ = channels_last_ ? kernels_.tile_columns : kernels_.gradient_block;
    // A unit of work covers this many output channels: enough to reuse the x that it reads.
    out_block_ = std::min(out_, divide_up(64, out_tile_) * out_tile_);
    out_blocks_ = divide_up(out_, out_block_);

    const Window& width = problem.windows[2];
    strip_pixels_ = std::min<std::int64_t>(width.output, kMaxChain);
    strips_per_row_ = divide_up(width.output, strip_pixels_);
    rows_ = problem.windows[0].output * problem.windows[1].output;
    strips_ = problem.batch * rows_ * strips_per_row_;
    strips_per_flush_ = std::max<std::int64_t>(1, kMaxChain / strip_pixels_);

    accumulator_ = groups_ * problem.taps() * in_ * out_;
    constexpr std::int64_t kUnits = 16;
    constexpr std::int64_t kAccumulatorBytes = 32 << 20;
    const std::int64_t flushes = std::max<std::int64_t>(1, divide_up(strips_, strips_per_flush_));
    const std::int64_t fitting = std::max<std::int64_t>(
        1, kAccumulatorBytes / (accumulator_ * static_cast<std::int64_t>(sizeof(T))));
    parts_ = std::min({divide_up(kUnits, groups_ * out_blocks_), flushes, fitting});
    parts_ = std::max(parts_, divide_up(flushes, kMaxChain));
  }

  std::size_t workspace_bytes() const noexcept override {
    return aligned_bytes<T>(parts_ * accumulator_) + thread_bytes() * threads_;
  }

  void run(const ConvArguments& arguments, const void* /*packed*/,
           void* workspace) const noexcept override {
    const Maps<T> x = typed<T>(arguments.x);
    const Maps<T> y = typed<T>(arguments.y);
    auto* accumulators = static_cast<T*>(workspace);
    auto* segment_buffers =
        static_cast<std::byte*>(workspace) + aligned_bytes<T>(parts_ * accumulator_);

    parallel_for(threads_, parts_ * groups_ * out_blocks_, [&](std::int64_t unit, int thread) {
      const std::int64_t block = unit % out_blocks_;
      const std::int64_t group = unit / out_blocks_ % groups_;
      const std::int64_t part = unit / out_blocks_ / groups_;
      run_unit(x, y, part, group, block, accumulators + part * accumulator_,
               reinterpret_cast<Segment*>(segment_buffers + thread_bytes() * thread));
    });

    // accumulators [part][group][tap][in][out] -> gradient [group, out][in][tap]
    auto* gradient = static_cast<T*>(arguments.weight);
    const std::int64_t taps = problem_.taps();
    parallel_for(threads_, groups_ * out_, [&](std::int64_t row, int) {
      const T* group = accumulators + row / out_ * taps * in_ * out_ + row % out_;
      for (std::int64_t c = 0; c < in_; ++c) {
        for (std::int64_t t = 0; t < taps; ++t) {
          const T* value = group + (t * in_ + c) * out_;
          T sum = *value;
          for (std::int64_t part = 1; part < parts_; ++part) sum += value[part * accumulator_];
          gradient[(row * in_ + c) * taps + t] = sum;
        }
      }
    });
  }

 private:
  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<Segment>(strips_per_flush_ * strip_pixels_);
  }

  void run_unit(const Maps<T>& x, const Maps<T>& y, std::int64_t part, std::int64_t group,
                std::int64_t block, T* accumulator, Segment* segments) const noexcept {
    const std::int64_t out_begin = block * out_block_;
    const std::int64_t out_end = std::min(out_, out_begin + out_block_);
    const std::int64_t taps = problem_.taps();
    T* group_sum = accumulator + group * taps * in_ * out_;
    for (std::int64_t row = 0; row < taps * in_; ++row) {
      std::fill(group_sum + row * out_ + out_begin, group_sum + row * out_ + out_end, T(0));
    }

    WeightGradientTile<T> tile{};
    tile.segments = segments;
    tile.x_pixel_stride = problem_.windows[2].stride * x.pixel_stride;
    tile.x_channel_stride = x.channel_stride;
    tile.y_pixel_stride = y.pixel_stride;
    tile.y_channel_stride = y.channel_stride;
    tile.gradient_row_stride = out_;
    const auto kernel = depthwise_      ? kernels_.weight_gradient_depthwise
                        : channels_last_ ? kernels_.weight_gradient_channels_last
                                         : kernels_.weight_gradient_channels_first;
    const std::int64_t out_step = depthwise_ ? out_end - out_begin : out_tile_;
    const T* x_group = x.data + (depthwise_ ? out_begin : group * in_) * x.channel_stride;
    const T* y_group = y.data + group * out_ * y.channel_stride;

    const Range strips = Range::share(strips_, static_cast<int>(part), static_cast<int>(parts_));
    for (std::int64_t s = strips.begin; s < strips.end; s += strips_per_flush_) {
      const std::int64_t s_end = std::min(strips.end, s + strips_per_flush_);
      for (std::int64_t t = 0; t < taps; ++t) {
        tile.segment_count = list_segments(s, s_end, t, x, y, segments);
        if (tile.segment_count == 0) continue;
        for (std::int64_t c = 0; c < in_; c += in_tile_) {
          tile.in_channels = static_cast<int>(std::min(in_tile_, in_ - c));
          tile.x = x_group + c * x.channel_stride;
          for (std::int64_t k = out_begin; k < out_end; k += out_step) {
            tile.out_channels = static_cast<int>(std::min(out_step, out_end - k));
            tile.y = y_group + k * y.channel_stride;
            tile.gradient = group_sum + (t * in_ + c) * out_ + k;
            kernel(tile);
          }
        }
      }
    }
  }

  /// The pixels of strips [s, s_end) that have an input under `tap`.
  std::int64_t list_segments(std::int64_t s, std::int64_t s_end, std::int64_t tap,
                             const Maps<T>& x, const Maps<T>& y,
                             Segment* segments) const noexcept {
    const auto& windows = problem_.windows;
    const std::int64_t tap_w = tap % windows[2].kernel;
    const std::int64_t tap_h = tap / windows[2].kernel % windows[1].kernel;
    const std::int64_t tap_d = tap / windows[2].kernel / windows[1].kernel;
    const auto source = [&](int axis, std::int64_t o, std::int64_t t) {
      const Window& w = windows[axis];
      return padded_source(o * w.stride + t * w.dilation - w.before, w.input,
                           problem_.padding_mode);
    };
    const Window& width = windows[2];
    // Outputs whose input under tap_w is no padding: 0 <= o * stride + shift < input.
    const std::int64_t shift = tap_w * width.dilation - width.before;
    const std::int64_t inside_begin = shift >= 0 ? 0 : divide_up(-shift, width.stride);
    const std::int64_t inside_end =
        shift >= width.input ? 0 : divide_up(width.input - shift, width.stride);

    std::int64_t count = 0;
    for (; s < s_end; ++s) {
      const std::int64_t row = s / strips_per_row_ % rows_;
      const std::int64_t sample = s / strips_per_row_ / rows_;
      const std::int64_t d = source(0, row / windows[1].output, tap_d);
      const std::int64_t h = source(1, row % windows[1].output, tap_h);
      if (d < 0 || h < 0) continue;
      const std::int64_t begin = s % strips_per_row_ * strip_pixels_;
      const std::int64_t end = std::min(width.output, begin + strip_pixels_);
      const std::int64_t x_row = (d * windows[1].input + h) * width.input;
      const std::int64_t y_row = row * width.output;
      const auto add = [&](std::int64_t o, std::int64_t pixels) {
        const std::int64_t i = source(2, o, tap_w);
        if (pixels <= 0 || i < 0) return;
        segments[count++] = {sample * x.sample_stride + (x_row + i) * x.pixel_stride,
                             sample * y.sample_stride + (y_row + o) * y.pixel_stride, pixels};
      };
      const std::int64_t first = std::clamp(inside_begin, begin, end);
      const std::int64_t last = std::clamp(inside_end, first, end);
      if (problem_.padding_mode != PaddingMode::zeros) {
        for (std::int64_t o = begin; o < first; ++o) add(o, 1);
      }
      if (first < last) add(first, last - first);
      if (problem_.padding_mode != PaddingMode::zeros) {
        for (std::int64_t o = last; o < end; ++o) add(o, 1);
      }
    }
    return count;
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool channels_last_, depthwise_;
  std::int64_t groups_, in_, out_;  ///< channels per group
  std::int64_t in_tile_, out_tile_, out_block_, out_blocks_;
  std::int64_t strip_pixels_, strips_per_row_, rows_, strips_, strips_per_flush_;
  std::int64_t accumulator_, parts_;
};

class Direct final : public Algorithm {
 public:
  const char* name() const noexcept override { return "direct"; }
  const char* summary() const noexcept override {
    return "loops over taps and channels in register tiles; no workspace to speak of";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) return {};
    const bool adjoint = problem.direction == Direction::backward_input;
    const bool folds_back = adjoint && problem.padding_mode != PaddingMode::zeros;
    const std::int64_t taps = folds_back ? Gather(problem, true).most_taps() : problem.taps();
    const ReductionChunks chunks(
        adjoint ? problem.out_channels_per_group() : problem.in_channels_per_group(), taps);
    if (chunks.folds <= kMaxChain) return {};
    return Support::no("sums of " + std::to_string(reduction_terms(problem)) +
                       " products would be folded in a chain of " + std::to_string(chunks.folds) +
                       ", above " + std::to_string(kMaxChain));
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const bool wide = problem.dtype == DType::float64;
    const int lanes = lanes_of(problem.dtype, machine);
    const bool channels_last = problem.layout == Layout::channels_last;
    const bool to_input = problem.direction == Direction::backward_input;
    const std::int64_t channels =
        to_input ? problem.in_channels_per_group() : problem.out_channels_per_group();
    // Lanes hold channels, or pixels of a row; what does not fill a vector is lost. The factors
    // are shares of peak that were measured where every vector is full.
    std::int64_t extent = channels;
    double efficiency = 0.88;
    if (!channels_last) {
      // Each row of pixels is loaded for few channels, and border pixels one at a time.
      extent = to_input ? problem.windows[2].input : problem.windows[2].output;
      efficiency = 0.25 * std::min(1.0, static_cast<double>(channels) / 8);
    } else if (is_depthwise(problem)) {
      extent = problem.out_channels;
      efficiency = 0.35;  // two loads for each multiply-add
    }
    double sum_cycles = 0;
    if (problem.direction == Direction::backward_weight) {
      efficiency *= 0.5;
      constexpr double kVectorCycles = 30;  // sums are read and written for every run of pixels
      sum_cycles = kVectorCycles * static_cast<double>(problem.weight_size()) / lanes;
    }
    efficiency *= static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
    // Weights that outgrow L2 are streamed again for every row of output.
    const double weight_bytes =
        static_cast<double>(problem.weight_size()) * static_cast<double>(size_of(problem.dtype));
    const double rows = static_cast<double>(problem.batch * problem.output_pixels()) /
                        static_cast<double>(problem.windows[2].output);
    const double streamed =
        weight_bytes > static_cast<double>(machine.l2_bytes) ? rows * weight_bytes : weight_bytes;
    const double maps_bytes = static_cast<double>(problem.x_size() + problem.y_size()) *
                              static_cast<double>(size_of(problem.dtype));
    return problem.flops() / (machine.flops_per_second[wide] * efficiency) +
           sum_cycles / machine.cycles_per_second +
           (streamed / 4 + maps_bytes) / machine.bytes_per_second;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.direction == Direction::backward_weight) {
      return make_typed<DirectWeightGradient>(problem, machine, threads);
    }
    return make_typed<DirectGather>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& direct_algorithm() {
  static const Direct algorithm;
  return algorithm;
}

}  // namespace convolith
