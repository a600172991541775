// The textbook method (Chellapilla et al., 2006): lay the patches that the kernel covers out as
// the columns of a matrix, and let one matrix product do the work. The matrix of a sample and
// group is materialised, and its size is the workspace that is reported. Backward-input scatters
// it back by the adjoint, which is a gather here; backward-weight multiplies by its transpose.
//
// With T taps, C channels a group and P output pixels the matrix is [C, T][P] in channels_first
// and [P][T, C] in channels_last, so that the innermost copies are contiguous in both.

#include <algorithm>
#include <optional>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "gemm/gemm.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "tolerance.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// A kernel of one tap that touches every input once: the matrix is the input itself.
bool is_pointwise(const ConvProblem& problem) {
  for (const Window& w : problem.windows) {
    if (w.kernel != 1 || w.stride != 1 || w.before != 0 || w.after != 0) return false;
  }
  return problem.input_pixels() == problem.output_pixels();
}

/// Extents of the matrix product of one sample and group.
struct Product {
  std::int64_t m, n, k;
};

/// The matrix product of one sample and group. Rows are channels in channels_first, pixels in
/// channels_last; a weight gradient has output channels as rows in both.
Product product_of(const ConvProblem& problem) {
  const std::int64_t in = problem.in_channels_per_group() * problem.taps();
  const std::int64_t out = problem.out_channels_per_group();
  const std::int64_t pixels = problem.output_pixels();
  const bool channels_last = problem.layout == Layout::channels_last;
  switch (problem.direction) {
    case Direction::forward:
      return channels_last ? Product{pixels, out, in} : Product{out, pixels, in};
    case Direction::backward_input:
      return channels_last ? Product{pixels, in, out} : Product{in, pixels, out};
    case Direction::backward_weight: return {out, in, pixels};
  }
  return {};
}

template <class T>
class Im2colGemm final : public Execution {
 public:
  Im2colGemm(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        kernels_(kernels_for<T>(machine)),
        threads_(threads),
        channels_last_(problem.layout == Layout::channels_last),
        pointwise_(is_pointwise(problem)),
        in_(problem.in_channels_per_group()),
        out_(problem.out_channels_per_group()),
        taps_(problem.taps()),
        pixels_(problem.output_pixels()),
        gemm_(make_gemm(machine)) {
    gemm_bytes_ = aligned_bytes<std::byte>(static_cast<std::int64_t>(gemm_.workspace_bytes()));
    if (!pointwise_) {
      matrix_bytes_ = aligned_bytes<T>(in_ * taps_ * pixels_);
    }
    if (problem.direction == Direction::backward_input && !pointwise_) {
      fold_.emplace(problem, true);
      constexpr std::int64_t kTilesPerRun = 8;
      fold_runs_ = fold_->runs(
          kTilesPerRun * (channels_last_ ? kernels_.tile_rows : kernels_.tile_columns));
      // Unit weights: one per channel of a tile, the same for every tap.
      extra_bytes_ = aligned_bytes<T>(kernels_.tile_columns) +
                     fold_->scratch_bytes() * static_cast<std::size_t>(threads);
    }
    if (problem.direction == Direction::backward_weight) {
      const std::int64_t additions = divide_up(pixels_, kMaxChain / 4);  // of one sample, at most
      samples_per_sum_ = std::max<std::int64_t>(1, kMaxChain / additions);
      const int sums = problem.batch > samples_per_sum_ ? 2 : gradient_in_order() ? 0 : 1;
      extra_bytes_ = sums * aligned_bytes<T>(out_ * in_ * taps_);
    }
  }

  std::size_t workspace_bytes() const noexcept override {
    return gemm_bytes_ + matrix_bytes_ + extra_bytes_;
  }

  std::size_t packed_bytes() const noexcept override {
    if (problem_.direction == Direction::backward_weight) return 0;
    return static_cast<std::size_t>(problem_.groups) * group_packed_bytes();
  }

  void pack(const void* weight, void* packed) const noexcept override {
    if (problem_.direction == Direction::backward_weight) return;
    const std::int64_t columns = in_ * taps_;
    for (std::int64_t g = 0; g < problem_.groups; ++g) {
      const T* source = static_cast<const T*>(weight) + g * out_ * columns;
      T* panels = static_cast<T*>(packed) + group_packed_bytes() / sizeof(T) * g;
      if (channels_last_) {
        pack_channels_last(source, panels);
      } else if (problem_.direction == Direction::forward) {
        gemm_.pack_a({source, columns, 1}, panels);
      } else {
        gemm_.pack_a({source, 1, columns}, panels);
      }
    }
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    auto* bytes = static_cast<std::byte*>(workspace);
    Buffers buffers{bytes, reinterpret_cast<T*>(bytes + gemm_bytes_),
                    reinterpret_cast<T*>(bytes + gemm_bytes_ + matrix_bytes_)};
    switch (problem_.direction) {
      case Direction::forward:
        return run_forward(arguments, static_cast<const T*>(packed), buffers);
      case Direction::backward_input:
        return run_backward_input(arguments, static_cast<const T*>(packed), buffers);
      case Direction::backward_weight: return run_backward_weight(arguments, buffers);
    }
  }

 private:
  struct Buffers {
    void* gemm;
    T* matrix;
    T* extra;
  };

  Gemm<T> make_gemm(const Machine& machine) const {
    const Product p = product_of(problem_);
    return Gemm<T>(p.m, p.n, p.k, machine, threads_);
  }

  std::size_t group_packed_bytes() const noexcept {
    return channels_last_ ? gemm_.packed_b_bytes() : gemm_.packed_a_bytes();
  }

  /// Panels of B whose k index (forward) or whose lanes (backward-input) run over [tap][channel].
  void pack_channels_last(const T* weight, T* panels) const noexcept {
    const std::int64_t width = kernels_.tile_columns;
    const bool forward = problem_.direction == Direction::forward;
    const std::int64_t lanes = forward ? out_ : taps_ * in_;
    const std::int64_t panel_size = width * (forward ? taps_ * in_ : out_);
    parallel_for(threads_, divide_up(lanes, width), [&](std::int64_t panel, int) {
      T* to = panels + panel * panel_size;
      const std::int64_t first = panel * width;
      const auto valid = static_cast<int>(std::min(width, lanes - first));
      if (forward) {
        for (std::int64_t t = 0; t < taps_; ++t) {
          kernels_.pack_panel(static_cast<int>(width), valid, in_,
                              weight + first * in_ * taps_ + t, in_ * taps_, taps_,
                              to + t * in_ * width);
        }
        return;
      }
      for (std::int64_t k = 0; k < out_; ++k) {
        const T* row = weight + k * in_ * taps_;
        for (std::int64_t lane = 0; lane < width; ++lane) {
          const std::int64_t column = first + lane;
          *to++ = lane < valid ? row[column % in_ * taps_ + column / in_] : T(0);
        }
      }
    });
  }

  /// One sample and group of `maps` as a matrix: [channel][pixel] or [pixel][channel].
  GemmOperand<T> as_matrix(const Maps<T>& maps, std::int64_t n,
                           std::int64_t channel) const noexcept {
    const T* data = maps.sample(n, channel);
    if (channels_last_) return {data, maps.pixel_stride, maps.channel_stride};
    return {data, maps.channel_stride, maps.pixel_stride};
  }

  GemmOperand<T> patches(const Maps<T>& x, std::int64_t n, std::int64_t g,
                         T* matrix) const noexcept {
    if (pointwise_) return as_matrix(x, n, g * in_);
    if (channels_last_) {
      lay_out_channels_last(x.sample(n, g * in_), x.pixel_stride, matrix);
      return {matrix, taps_ * in_, 1};
    }
    lay_out_channels_first(x.sample(n, g * in_), x.channel_stride, matrix);
    return {matrix, pixels_, 1};
  }

  std::int64_t source(int axis, std::int64_t output, std::int64_t tap) const noexcept {
    const Window& w = problem_.windows[axis];
    return padded_source(output * w.stride + tap * w.dilation - w.before, w.input,
                         problem_.padding_mode);
  }

  void lay_out_channels_first(const T* x, std::int64_t channel_stride, T* matrix) const noexcept {
    const Window& depth = problem_.windows[0];
    const Window& height = problem_.windows[1];
    const Window& width = problem_.windows[2];
    parallel_for(threads_, in_ * taps_, [&](std::int64_t row, int) {
      const std::int64_t t = row % taps_;
      const std::int64_t tap_w = t % width.kernel;
      const std::int64_t tap_h = t / width.kernel % height.kernel;
      const std::int64_t tap_d = t / width.kernel / height.kernel;
      const std::int64_t shift = tap_w * width.dilation - width.before;
      // Outputs whose input is no padding: 0 <= o * stride + shift < input.
      const std::int64_t begin =
          std::clamp<std::int64_t>(shift >= 0 ? 0 : divide_up(-shift, width.stride), 0,
                                   width.output);
      const std::int64_t end = std::clamp<std::int64_t>(
          shift >= width.input ? 0 : divide_up(width.input - shift, width.stride), begin,
          width.output);
      const T* channel = x + row / taps_ * channel_stride;
      T* to = matrix + row * pixels_;
      for (std::int64_t od = 0; od < depth.output; ++od) {
        const std::int64_t d = source(0, od, tap_d);
        for (std::int64_t oh = 0; oh < height.output; ++oh, to += width.output) {
          const std::int64_t h = source(1, oh, tap_h);
          if (d < 0 || h < 0) {
            std::fill(to, to + width.output, T(0));
            continue;
          }
          const T* from = channel + (d * height.input + h) * width.input;
          const auto border = [&](std::int64_t o) {
            const std::int64_t w = source(2, o, tap_w);
            to[o] = w < 0 ? T(0) : from[w];
          };
          for (std::int64_t o = 0; o < begin; ++o) border(o);
          if (width.stride == 1) {
            std::copy(from + begin + shift, from + end + shift, to + begin);
          } else {
            kernels_.copy_strided(end - begin, from + begin * width.stride + shift, width.stride,
                                  to + begin);
          }
          for (std::int64_t o = end; o < width.output; ++o) border(o);
        }
      }
    });
  }

  void lay_out_channels_last(const T* x, std::int64_t pixel_stride, T* matrix) const noexcept {
    const Window& depth = problem_.windows[0];
    const Window& height = problem_.windows[1];
    const Window& width = problem_.windows[2];
    parallel_for(threads_, pixels_, [&](std::int64_t pixel, int) {
      const std::int64_t ow = pixel % width.output;
      const std::int64_t oh = pixel / width.output % height.output;
      const std::int64_t od = pixel / width.output / height.output;
      T* to = matrix + pixel * taps_ * in_;
      for (std::int64_t tap_d = 0; tap_d < depth.kernel; ++tap_d) {
        const std::int64_t d = source(0, od, tap_d);
        for (std::int64_t tap_h = 0; tap_h < height.kernel; ++tap_h) {
          const std::int64_t h = source(1, oh, tap_h);
          for (std::int64_t tap_w = 0; tap_w < width.kernel; ++tap_w, to += in_) {
            const std::int64_t w = source(2, ow, tap_w);
            if (d < 0 || h < 0 || w < 0) {
              std::fill(to, to + in_, T(0));
            } else {
              const T* from = x + ((d * height.input + h) * width.input + w) * pixel_stride;
              std::copy(from, from + in_, to);
            }
          }
        }
      }
    });
  }

  void run_forward(const ConvArguments& arguments, const T* packed,
                   const Buffers& buffers) const noexcept {
    const Maps<T> x = typed<T>(arguments.x);
    const Maps<T> y = typed<T>(arguments.y);
    const BoundEpilogue<T> epilogue(problem_, arguments);
    for (std::int64_t n = 0; n < problem_.batch; ++n) {
      for (std::int64_t g = 0; g < problem_.groups; ++g) {
        const GemmOperand<T> matrix = patches(x, n, g, buffers.matrix);
        multiply(matrix, packed, g, y.sample(n, g * out_), row_stride(y),
                 epilogue.tile(n, g * out_, 0), !epilogue.empty(), buffers);
      }
    }
  }

  void run_backward_input(const ConvArguments& arguments, const T* packed,
                          const Buffers& buffers) const noexcept {
    const Maps<T> x = typed<T>(arguments.x);
    const Maps<T> y = typed<T>(arguments.y);
    const BoundEpilogue<T> epilogue(problem_, arguments);
    if (fold_) std::fill_n(buffers.extra, kernels_.tile_columns, T(1));
    for (std::int64_t n = 0; n < problem_.batch; ++n) {
      for (std::int64_t g = 0; g < problem_.groups; ++g) {
        const GemmOperand<T> dy = as_matrix(y, n, g * out_);
        if (pointwise_) {
          multiply(dy, packed, g, x.sample(n, g * in_), row_stride(x),
                   epilogue.tile(n, g * in_, 0), !epilogue.empty(), buffers);
          continue;
        }
        multiply(dy, packed, g, buffers.matrix, channels_last_ ? taps_ * in_ : pixels_, {}, false,
                 buffers);
        fold(x, epilogue, n, g, buffers);
      }
    }
  }

  std::int64_t row_stride(const Maps<T>& maps) const noexcept {
    return channels_last_ ? maps.pixel_stride : maps.channel_stride;
  }

  /// The product of a group's packed weights with `pixels`, on the side that the layout puts them.
  void multiply(const GemmOperand<T>& pixels, const T* packed, std::int64_t g, T* output,
                std::int64_t output_row_stride, const TileEpilogue<T>& epilogue,
                bool has_epilogue, const Buffers& buffers) const noexcept {
    const GemmOperand<T> weights{packed + group_packed_bytes() / sizeof(T) * g, 0, 0, true};
    gemm_.run(channels_last_ ? pixels : weights, channels_last_ ? weights : pixels, output,
              output_row_stride, false, has_epilogue ? &epilogue : nullptr, buffers.gemm);
  }

  /// Adds the matrix's columns back to the pixels that they were read from: each input pixel
  /// gathers its own, as a convolution with unit weights would.
  void fold(const Maps<T>& x, const BoundEpilogue<T>& epilogue, std::int64_t n, std::int64_t g,
            const Buffers& buffers) const noexcept {
    const std::int64_t width = channels_last_ ? kernels_.tile_columns : 1;
    const std::int64_t blocks = divide_up(in_, width);
    const std::int64_t tile_pixels = channels_last_ ? kernels_.tile_rows : kernels_.tile_columns;
    auto* scratch = reinterpret_cast<std::byte*>(buffers.extra) +
                    aligned_bytes<T>(kernels_.tile_columns);
    parallel_for(threads_, fold_->rows() * blocks, [&](std::int64_t index, int thread) {
      const std::int64_t row = index / blocks;
      const std::int64_t channel = index % blocks * width;
      std::byte* tap_buffer = scratch + fold_->scratch_bytes() * thread;
      for (std::int64_t r = 0; r < fold_runs_.size(); ++r) {
        const Run run = fold_runs_[r];
        const TapStrides strides = channels_last_ ? TapStrides{taps_ * in_, in_, 0}
                                                  : TapStrides{1, pixels_, 0};
        const std::int64_t count = fold_->list_taps(row, run, strides, tap_buffer);
        const std::int64_t first_pixel = row * fold_->row_pixels() + run.begin;
        GatherTile<T> tile{};
        tile.channels = 1;
        tile.weight = buffers.extra;
        tile.source_pixel_stride = run.source_step * strides.source_pixel;
        tile.output_pixel_stride = run.step * x.pixel_stride;
        tile.output_channel_stride = x.channel_stride;
        tile.out_channels = static_cast<int>(std::min(width, in_ - channel));
        const T* source = buffers.matrix + channel * (channels_last_ ? 1 : taps_ * pixels_);
        T* output = x.sample(n, g * in_ + channel) + first_pixel * x.pixel_stride;
        for (std::int64_t p = 0; p < run.count; p += tile_pixels) {
          tile.pixels = static_cast<int>(std::min(tile_pixels, run.count - p));
          tile.source = source + p * tile.source_pixel_stride;
          tile.output = output + p * tile.output_pixel_stride;
          std::int64_t t = 0;
          do {
            tile.taps = reinterpret_cast<const Tap*>(tap_buffer) + t;
            tile.tap_count = std::min<std::int64_t>(kMaxChain, count - t);
            tile.accumulate = t > 0;
            channels_last_ ? kernels_.gather_depthwise(tile)
                           : kernels_.gather_channels_first(tile);
            t += kMaxChain;
          } while (t < count);
        }
        if (!epilogue.empty()) {
          const auto pixels = static_cast<int>(run.count);
          kernels_.epilogue(epilogue.tile(n, g * in_ + channel, first_pixel, run.step),
                            channels_last_ ? pixels : tile.out_channels,
                            channels_last_ ? tile.out_channels : pixels, output,
                            channels_last_ ? tile.output_pixel_stride : x.channel_stride,
                            channels_last_ ? x.channel_stride : tile.output_pixel_stride);
        }
      }
    });
  }

  /// gradient = sum over samples of dy [out][P] times the transposed matrix [P][in, taps]. Long
  /// batches are summed in two levels, so that no chain of additions grows with them.
  void run_backward_weight(const ConvArguments& arguments, const Buffers& buffers) const noexcept {
    const Maps<T> x = typed<T>(arguments.x);
    const Maps<T> y = typed<T>(arguments.y);
    const std::int64_t columns = in_ * taps_;
    const std::int64_t size = out_ * columns;
    for (std::int64_t g = 0; g < problem_.groups; ++g) {
      T* gradient = static_cast<T*>(arguments.weight) + g * size;
      T* total = gradient_in_order() ? gradient : buffers.extra;
      T* partial = buffers.extra + aligned_bytes<T>(size) / sizeof(T);
      if (problem_.batch == 0) std::fill(total, total + size, T(0));
      for (std::int64_t n = 0; n < problem_.batch; ++n) {
        GemmOperand<T> matrix = patches(x, n, g, buffers.matrix);
        if (!channels_last_) std::swap(matrix.row_stride, matrix.column_stride);
        GemmOperand<T> dy = as_matrix(y, n, g * out_);
        if (channels_last_) std::swap(dy.row_stride, dy.column_stride);
        const bool in_first_sum = n < samples_per_sum_;
        gemm_.run(dy, matrix, in_first_sum ? total : partial, columns, n % samples_per_sum_ != 0,
                  nullptr, buffers.gemm);
        const bool ends_sum = n + 1 == problem_.batch || (n + 1) % samples_per_sum_ == 0;
        if (ends_sum && !in_first_sum) kernels_.add(size, partial, total);
      }
      if (total != gradient) store_gradient(total, gradient);
    }
  }

  /// Whether the product's columns [in, taps] or [taps, in] are those of the gradient.
  bool gradient_in_order() const noexcept { return !channels_last_ || taps_ == 1; }

  /// [out][taps, in] -> [out][in][taps]
  void store_gradient(const T* total, T* gradient) const noexcept {
    parallel_for(threads_, out_, [&](std::int64_t k, int) {
      const auto taps = static_cast<int>(taps_);
      kernels_.pack_panel(taps, taps, in_, total + k * in_ * taps_, in_, 1,
                          gradient + k * in_ * taps_);
    });
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool channels_last_, pointwise_;
  std::int64_t in_, out_, taps_, pixels_;  ///< channels per group, kernel taps, output pixels
  Gemm<T> gemm_;
  std::optional<Gather> fold_;
  Runs fold_runs_;
  std::int64_t samples_per_sum_ = 0;
  std::size_t gemm_bytes_ = 0, matrix_bytes_ = 0, extra_bytes_ = 0;
};

/// Seconds of the calls by which a sample and group of a backward-input is folded: for each row and
/// channel, or vector of them, one a residue of the stride and one at either border.
double fold_seconds(const ConvProblem& problem, const Machine& machine) {
  constexpr double kCall = 5e-8;
  const auto& [depth, height, width] = problem.windows;
  const std::int64_t channels = problem.in_channels_per_group();
  const std::int64_t together =
      problem.layout == Layout::channels_last ? 2 * lanes_of(problem.dtype, machine) : 1;
  return kCall * static_cast<double>(depth.input * height.input) *
         static_cast<double>(std::min(width.input, width.stride + 2)) *
         static_cast<double>(divide_up(channels, together));
}

class Im2colGemmAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "im2col_gemm"; }
  const char* summary() const noexcept override {
    return "materialises the matrix of patches and multiplies";
  }

  Support supports(const ConvProblem&) const override { return {}; }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const Product p = product_of(problem);
    const bool wide = problem.dtype == DType::float64;
    const auto product_cost = wide ? Gemm<double>::cost : Gemm<float>::cost;
    const double products = static_cast<double>(problem.batch * problem.groups);
    double seconds = product_cost(static_cast<double>(p.m), static_cast<double>(p.n),
                                  static_cast<double>(p.k), machine);
    if (!is_pointwise(problem)) {
      const double elements = static_cast<double>(problem.in_channels_per_group()) *
                              static_cast<double>(problem.taps()) *
                              static_cast<double>(problem.output_pixels());
      seconds += 2 * elements * static_cast<double>(size_of(problem.dtype)) /
                 machine.bytes_per_second;
      if (problem.direction == Direction::backward_input) seconds += fold_seconds(problem, machine);
    }
    if (problem.direction == Direction::backward_weight) {
      // Terms are pixels: both operands are packed along them, for few sums. That costs less where
      // the pixels of a channel are neighbours, unless they are many.
      constexpr double kMany = 28 * 28, kPacking = 0.25;
      const double many = problem.layout == Layout::channels_first
                              ? std::min(1.0, static_cast<double>(problem.output_pixels()) / kMany)
                              : 1.0;
      seconds *= 1 + kPacking * many;
    }
    constexpr double kForkJoin = 3e-6;
    return products * (seconds + kForkJoin);
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    return make_typed<Im2colGemm>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& im2col_gemm_algorithm() {
  static const Im2colGemmAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
