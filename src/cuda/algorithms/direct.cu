// Direct convolution: a thread for each output, or a block for each weight. It serves every
// problem, and the other algorithms are held against it.

#include <algorithm>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "cuda/device.hpp"
#include "cuda/gather.hpp"
#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/ptx.cuh"
#include "cuda/launch.hpp"
#include "cuda/bounds.hpp"

namespace convolith::cuda {
namespace {

constexpr int kThreads = 128;

/// What of a problem the kernels read. The reduced channels are those of the sources.
struct Geometry {
  Window windows[kSpatialAxes];
  PaddingMode mode;
  bool adjoint, channels_last;
  std::int64_t batch, groups, produced, reduced;       ///< channels of a group
  std::int64_t source_pixels, destination_pixels, taps;

  explicit Geometry(const ConvProblem& p)
      : windows{p.windows[0], p.windows[1], p.windows[2]},
        mode(p.padding_mode),
        adjoint(p.direction == Direction::backward_input),
        channels_last(p.layout == Layout::channels_last),
        batch(p.batch),
        groups(p.groups),
        produced(adjoint ? p.in_channels_per_group() : p.out_channels_per_group()),
        reduced(adjoint ? p.out_channels_per_group() : p.in_channels_per_group()),
        source_pixels(adjoint ? p.output_pixels() : p.input_pixels()),
        destination_pixels(adjoint ? p.input_pixels() : p.output_pixels()),
        taps(p.taps()) {}

  __host__ __device__ std::int64_t destinations(int axis) const {
    return adjoint ? windows[axis].input : windows[axis].output;
  }
  __host__ __device__ std::int64_t sources(int axis) const {
    return adjoint ? windows[axis].output : windows[axis].input;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather(const Geometry g, const Maps<const T> source, const T* weight,
           const Maps<T> destination, const BoundEpilogue<T> epilogue) {
  const std::int64_t channels = g.groups * g.produced;
  const std::int64_t total = g.batch * channels * g.destination_pixels;
  const std::int64_t reduced_stride = g.adjoint ? g.produced * g.taps : g.taps;
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    std::int64_t sample, channel, pixel;
    if (g.channels_last) {
      channel = index % channels;
      pixel = index / channels % g.destination_pixels;
    } else {
      pixel = index % g.destination_pixels;
      channel = index / g.destination_pixels % channels;
    }
    sample = index / channels / g.destination_pixels;
    const std::int64_t group = channel / g.produced;
    const std::int64_t w = pixel % g.destinations(2);
    const std::int64_t h = pixel / g.destinations(2) % g.destinations(1);
    const std::int64_t d = pixel / g.destinations(2) / g.destinations(1);
    // weight: (out, in / groups, taps)
    const T* const weights = weight + (g.adjoint ? group * g.reduced * g.produced * g.taps +
                                                       channel % g.produced * g.taps
                                                 : channel * g.reduced * g.taps);
    const T* const sources = source.data + sample * source.sample_stride +
                             group * g.reduced * source.channel_stride;
    ChainedSum<Wide<T>> sum;
    const std::int64_t d_entries = entry_count(g.windows[0], g.mode, g.adjoint, d);
    const std::int64_t h_entries = entry_count(g.windows[1], g.mode, g.adjoint, h);
    const std::int64_t w_entries = entry_count(g.windows[2], g.mode, g.adjoint, w);
    for (std::int64_t i = 0; i < d_entries; ++i) {
      const AxisEntry in_depth = axis_entry(g.windows[0], g.mode, g.adjoint, d, i);
      if (in_depth.source < 0) continue;
      for (std::int64_t j = 0; j < h_entries; ++j) {
        const AxisEntry in_height = axis_entry(g.windows[1], g.mode, g.adjoint, h, j);
        if (in_height.source < 0) continue;
        for (std::int64_t k = 0; k < w_entries; ++k) {
          const AxisEntry in_width = axis_entry(g.windows[2], g.mode, g.adjoint, w, k);
          if (in_width.source < 0) continue;
          const std::int64_t from =
              (in_depth.source * g.sources(1) + in_height.source) * g.sources(2) +
              in_width.source;
          const std::int64_t tap =
              (in_depth.tap * g.windows[1].kernel + in_height.tap) * g.windows[2].kernel +
              in_width.tap;
          const T* s = sources + from * source.pixel_stride;
          const T* v = weights + tap;
          for (std::int64_t c = 0; c < g.reduced; ++c) {
            sum.add_product(widen(*s), widen(*v));
            s += source.channel_stride;
            v += reduced_stride;
          }
        }
      }
    }
    destination.data[sample * destination.sample_stride + channel * destination.channel_stride +
                     pixel * destination.pixel_stride] =
        epilogue(sum.value(), sample, channel, pixel);
  }
}

/// A block for each weight: its threads share the outputs, and add up in a fixed order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    weight_gradient(const Geometry g, const Maps<const T> x, const Maps<const T> dy, T* weight) {
  auto* const partial = dynamic_shared<Wide<T>>();
  const std::int64_t total = g.groups * g.produced * g.reduced * g.taps;
  const std::int64_t terms = g.batch * g.destination_pixels;
  for (std::int64_t index = blockIdx.x; index < total; index += gridDim.x) {
    const std::int64_t tap = index % g.taps;
    const std::int64_t c = index / g.taps % g.reduced;
    const std::int64_t k = index / g.taps / g.reduced;
    const std::int64_t taps[] = {tap / g.windows[2].kernel / g.windows[1].kernel,
                                 tap / g.windows[2].kernel % g.windows[1].kernel,
                                 tap % g.windows[2].kernel};
    const T* const from_x = x.data + (k / g.produced * g.reduced + c) * x.channel_stride;
    const T* const from_dy = dy.data + k * dy.channel_stride;
    ChainedSum<Wide<T>> sum;
    for (std::int64_t term = threadIdx.x; term < terms; term += kThreads) {
      const std::int64_t sample = term / g.destination_pixels;
      const std::int64_t pixel = term % g.destination_pixels;
      const std::int64_t outputs[] = {pixel / g.windows[2].output / g.windows[1].output,
                                      pixel / g.windows[2].output % g.windows[1].output,
                                      pixel % g.windows[2].output};
      std::int64_t from = 0;
      bool inside = true;
      for (int axis = 0; axis < kSpatialAxes; ++axis) {
        const std::int64_t at =
            axis_entry(g.windows[axis], g.mode, false, outputs[axis], taps[axis]).source;
        inside = inside && at >= 0;
        from = from * g.windows[axis].input + at;
      }
      if (!inside) continue;
      sum.add_product(widen(from_dy[sample * dy.sample_stride + pixel * dy.pixel_stride]),
                      widen(from_x[sample * x.sample_stride + from * x.pixel_stride]));
    }
    partial[threadIdx.x] = sum.value();
    __syncthreads();
    for (unsigned half = kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
      __syncthreads();
    }
    if (threadIdx.x == 0) weight[index] = narrow<T>(partial[0]);
    __syncthreads();
  }
}

template <class T>
class Direct final : public Execution {
 public:
  explicit Direct(const ConvProblem& problem) : problem_(problem) {}

  std::size_t workspace_bytes() const noexcept override { return 0; }

  void run(const ConvArguments& arguments, const void*, void*) const noexcept override {
    const Geometry g(problem_);
    if (problem_.direction == Direction::backward_weight) {
      launch(weight_gradient<T>, blocks(problem_.weight_size(), 1), kThreads,
             kThreads * sizeof(Wide<T>), g, typed<const T>(arguments.x),
             typed<const T>(arguments.y), static_cast<T*>(arguments.weight));
      return;
    }
    const std::int64_t outputs = g.adjoint ? problem_.x_size() : problem_.y_size();
    launch(gather<T>, blocks(outputs, kThreads), kThreads, 0, g,
           typed<const T>(g.adjoint ? arguments.y : arguments.x),
           static_cast<const T*>(arguments.weight),
           typed<T>(g.adjoint ? arguments.x : arguments.y),
           BoundEpilogue<T>(problem_, arguments));
  }

 private:
  static unsigned blocks(std::int64_t count, int each) {
    return static_cast<unsigned>(
        std::min<std::int64_t>(divide_up(count, each), std::int64_t{1} << 30));
  }

  ConvProblem problem_;
};

class DirectAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "direct"; }
  const char* summary() const noexcept override {
    return "a thread for each output, a block for each weight";
  }
  Support supports(const ConvProblem&) const override { return {}; }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const double rate = problem.dtype == DType::float64 ? machine.device->float64_flops
                                                        : machine.device->simt_flops;
    constexpr double kShareOfPeak = 0.03;
    return machine.device->launch_seconds + problem.flops() / (kShareOfPeak * rate);
  }
  Tolerance tolerance(const ConvProblem& problem) const override {
    return {accumulation_bound(problem), 0};
  }
  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine&,
                                           int) const override {
    return with_type(problem.dtype, [&](auto zero) -> std::unique_ptr<const Execution> {
      return std::make_unique<Direct<decltype(zero)>>(problem);
    });
  }
};

}  // namespace

const Algorithm& direct_algorithm() {
  static const DirectAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith::cuda
