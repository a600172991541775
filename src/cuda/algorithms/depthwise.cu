// Depthwise convolution: one channel a group, so that there is no sum over channels and a kernel
// is as fast as memory. A thread makes one output of one channel, or of four that touch.

#include <algorithm>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "cuda/bounds.hpp"
#include "cuda/device.hpp"
#include "cuda/implicit_gemm.hpp"
#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/ptx.cuh"
#include "cuda/launch.hpp"
#include "cuda/patches.hpp"

namespace convolith::cuda {
namespace {

constexpr int kThreads = 256;

template <class T, int kWidth>
struct alignas(kWidth * sizeof(T)) Channels {
  T values[kWidth];
};

/// Weights are packed [tap][channel]. Of a geometry with one channel a group.
template <class T, int kWidth, bool kChannelsTouch>
__global__ void __launch_bounds__(kThreads)
    gather(const __grid_constant__ GemmGeometry g, const __grid_constant__ Maps<const T> source,
           const T* packed, const __grid_constant__ Maps<T> destination,
           const __grid_constant__ BoundEpilogue<T> epilogue) {
  const int across = g.groups / kWidth;  // threads of a pixel
  const std::int64_t total = std::int64_t{g.rows} * across;
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    int row, channel;
    if constexpr (kChannelsTouch) {
      row = static_cast<int>(index / across);
      channel = static_cast<int>(index % across) * kWidth;
    } else {
      const std::int64_t map = index / g.pixels;  // of a sample and channel
      channel = static_cast<int>(map % across);
      row = static_cast<int>(map / across) * g.pixels + static_cast<int>(index % g.pixels);
    }
    const GemmRow at = gemm_row(g, row);
    const T* const from = source.data + at.sample * source.sample_stride +
                          channel * source.channel_stride;
    Wide<T> sums[kWidth] = {}, partial[kWidth] = {};
    int chain = 0;
    for (TapWalk walk; walk.inside(g); walk.advance(g, 1)) {
      const std::int64_t pixel = walk.source(g, at);
      if (pixel < 0) continue;
      const auto x = *reinterpret_cast<const Channels<T, kWidth>*>(from +
                                                                   pixel * source.pixel_stride);
      const auto w = *reinterpret_cast<const Channels<T, kWidth>*>(
          packed + std::int64_t{walk.weight_tap(g)} * g.groups + channel);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) partial[i] += widen(x.values[i]) * widen(w.values[i]);
      if (++chain == 256) {
        chain = 0;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          sums[i] += partial[i];
          partial[i] = 0;
        }
      }
    }
    Channels<T, kWidth> result;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      result.values[i] =
          epilogue(sums[i] + partial[i], at.sample, channel + i, at.destination);
    }
    *reinterpret_cast<Channels<T, kWidth>*>(
        destination.data + at.sample * destination.sample_stride +
        channel * destination.channel_stride + at.destination * destination.pixel_stride) = result;
  }
}

/// weight (channels, taps) as [tap][channel].
template <class T>
__global__ void pack_kernel(std::int64_t channels, std::int64_t taps, const T* weight, T* packed) {
  const std::int64_t total = channels * taps;
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    packed[index] = weight[index % channels * taps + index / channels];
  }
}

unsigned blocks(std::int64_t count) {
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(divide_up(count, kThreads), 1, std::int64_t{1} << 30));
}

template <class T>
class Depthwise final : public Execution {
 public:
  explicit Depthwise(const ConvProblem& problem) : problem_(problem) {
    for (const Phase& phase : phases(problem)) {
      if (phase.pixels() > 0) geometries_.push_back(gemm_geometry(problem, phase));
    }
  }

  std::size_t workspace_bytes() const noexcept override { return 0; }
  std::size_t packed_bytes() const noexcept override {
    return aligned_bytes<T>(problem_.weight_size());
  }
  void pack(const void* weight, void* packed) const noexcept override {
    launch(pack_kernel<T>, blocks(problem_.weight_size()), kThreads, 0, problem_.groups,
           problem_.taps(), static_cast<const T*>(weight), static_cast<T*>(packed));
  }

  void run(const ConvArguments& arguments, const void* packed, void*) const noexcept override {
    const bool adjoint = is_adjoint(problem_);
    const Maps<const T> source = typed<const T>(adjoint ? arguments.y : arguments.x);
    const Maps<T> destination = typed<T>(adjoint ? arguments.x : arguments.y);
    constexpr int kWidth = 16 / sizeof(T) < 4 ? 16 / sizeof(T) : 4;
    for (const GemmGeometry& g : geometries_) {
      if (problem_.layout == Layout::channels_first) {
        enqueue<1, false>(g, source, packed, destination, arguments);
      } else if (in_quads(source, kWidth) && in_quads(destination, kWidth)) {
        enqueue<kWidth, true>(g, source, packed, destination, arguments);
      } else {
        enqueue<1, true>(g, source, packed, destination, arguments);
      }
    }
  }

 private:
  template <class Element>
  bool in_quads(const Maps<Element>& maps, std::int64_t width) const {
    return problem_.groups % width == 0 && maps.pixel_stride % width == 0 &&
           maps.sample_stride % width == 0 &&
           reinterpret_cast<std::uintptr_t>(maps.data) % (width * sizeof(T)) == 0;
  }

  template <int kWidth, bool kChannelsTouch>
  void enqueue(const GemmGeometry& g, const Maps<const T>& source, const void* packed,
               const Maps<T>& destination, const ConvArguments& arguments) const {
    launch(gather<T, kWidth, kChannelsTouch>,
           blocks(std::int64_t{g.rows} * (g.groups / kWidth)), kThreads, 0, g, source,
           static_cast<const T*>(packed), destination, BoundEpilogue<T>(problem_, arguments));
  }

  ConvProblem problem_;
  std::vector<GemmGeometry> geometries_;
};

/// The gradient of weights: a block for 32 channels that touch, or for one whose pixels do, of one tap
/// and one part of the pixels; the parts are added up in order.
template <class T, bool kChannelsTouch>
__global__ void __launch_bounds__(kThreads)
    gradient(const __grid_constant__ PatchGeometry g, const __grid_constant__ Maps<const T> dy,
             const __grid_constant__ Maps<const T> x, int part_count, int pixels_of_part,
             Wide<T>* parts) {
  constexpr int kAcross = kChannelsTouch ? 32 : 1, kDown = kThreads / kAcross;
  auto* const partial = dynamic_shared<Wide<T>>();
  const int across = static_cast<int>(threadIdx.x) % kAcross;
  const int down = static_cast<int>(threadIdx.x) / kAcross;
  const int taps = g.columns();
  const int part = static_cast<int>(blockIdx.x) % part_count;
  const int tap = static_cast<int>(blockIdx.x) / part_count % taps;
  const int channel = static_cast<int>(blockIdx.x) / part_count / taps * kAcross + across;
  const int begin = part * pixels_of_part;
  const int end = begin + pixels_of_part < g.terms() ? begin + pixels_of_part : g.terms();
  const PatchTap at = patch_tap(g, tap);
  ChainedSum<Wide<T>> sum;
  if (channel < g.groups) {
    PixelWalk walk;
    walk.start(g, begin + down);
    for (int term = begin + down; term < end; term += kDown, walk.advance(g, kDown)) {
      const std::int64_t from = walk.source(g, at);
      if (from < 0) continue;
      sum.add_product(widen(dy.data[walk.sample * dy.sample_stride +
                                    walk.pixel(g) * dy.pixel_stride +
                                    channel * dy.channel_stride]),
                      widen(x.data[walk.sample * x.sample_stride + from * x.pixel_stride +
                                   channel * x.channel_stride]));
    }
  }
  partial[threadIdx.x] = sum.value();
  __syncthreads();
  for (int half = kDown / 2; half > 0; half /= 2) {
    if (down < half) partial[threadIdx.x] += partial[threadIdx.x + half * kAcross];
    __syncthreads();
  }
  if (down == 0 && channel < g.groups) {
    parts[(std::int64_t{part} * g.groups + channel) * taps + tap] = partial[across];
  }
}

template <class T>
__global__ void add_parts(std::int64_t total, int part_count, const Wide<T>* parts, T* weight) {
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    Wide<T> sum = 0;
    for (int part = 0; part < part_count; ++part) sum += parts[part * total + index];
    weight[index] = narrow<T>(sum);
  }
}

template <class T>
class DepthwiseGradient final : public Execution {
 public:
  DepthwiseGradient(const ConvProblem& problem, const Device& device)
      : problem_(problem), geometry_(patch_geometry(problem)) {
    const std::int64_t terms = std::max(geometry_.terms(), 1);
    const std::int64_t across = problem.layout == Layout::channels_last ? 32 : 1;
    columns_ = divide_up(problem.groups, across) * geometry_.columns();
    constexpr std::int64_t kBlocksEach = 8, kShortest = 2048, kMost = 256;
    parts_ = std::clamp<std::int64_t>(
        divide_up(kBlocksEach * device.multiprocessors, columns_), 1,
        std::min<std::int64_t>(divide_up(terms, kShortest), kMost));
    pixels_of_part_ = divide_up(terms, parts_);
    parts_ = divide_up(terms, pixels_of_part_);
  }

  std::size_t workspace_bytes() const noexcept override {
    return static_cast<std::size_t>(parts_ * problem_.weight_size()) * sizeof(Wide<T>);
  }

  void run(const ConvArguments& arguments, const void*, void* workspace) const noexcept override {
    auto* const parts = static_cast<Wide<T>*>(workspace);
    const auto kernel =
        problem_.layout == Layout::channels_last ? gradient<T, true> : gradient<T, false>;
    launch(kernel, static_cast<unsigned>(columns_ * parts_), kThreads,
           kThreads * sizeof(Wide<T>), geometry_, typed<const T>(arguments.y),
           typed<const T>(arguments.x), static_cast<int>(parts_),
           static_cast<int>(pixels_of_part_), parts);
    launch(add_parts<T>, blocks(problem_.weight_size()), kThreads, 0, problem_.weight_size(),
           static_cast<int>(parts_), static_cast<const Wide<T>*>(parts),
           static_cast<T*>(arguments.weight));
  }

 private:
  ConvProblem problem_;
  PatchGeometry geometry_;
  std::int64_t columns_, parts_, pixels_of_part_;
};

class DepthwiseAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "depthwise"; }
  const char* summary() const noexcept override { return "one channel a group, no sum over them"; }
  Support supports(const ConvProblem& problem) const override {
    if (problem.groups != problem.in_channels) {
      return Support::no("groups is " + std::to_string(problem.groups) +
                         "; it must equal in_channels, " + std::to_string(problem.in_channels));
    }
    if (problem.groups != problem.out_channels) {
      return Support::no("groups is " + std::to_string(problem.groups) +
                         "; it must equal out_channels, " + std::to_string(problem.out_channels));
    }
    if (std::string reason = not_as_gemm(problem); !reason.empty()) return Support::no(reason);
    return {};
  }
  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const double bytes = static_cast<double>(problem.x_size() + problem.y_size()) *
                         static_cast<double>(size_of(problem.dtype));
    constexpr double kShareOfCopy = 0.6, kShareOfPeak = 0.05;
    return machine.device->launch_seconds + bytes / (kShareOfCopy * machine.bytes_per_second) +
           problem.flops() / (kShareOfPeak * machine.device->simt_flops);
  }
  double packing_cost(const ConvProblem&, const Machine& machine) const override {
    return machine.device->launch_seconds;
  }
  Tolerance tolerance(const ConvProblem& problem) const override {
    return {accumulation_bound(problem), 0};
  }
  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int) const override {
    return with_type(problem.dtype, [&](auto zero) -> std::unique_ptr<const Execution> {
      using T = decltype(zero);
      if (problem.direction == Direction::backward_weight) {
        return std::make_unique<DepthwiseGradient<T>>(problem, *machine.device);
      }
      return std::make_unique<Depthwise<T>>(problem);
    });
  }
};

}  // namespace

const Algorithm& depthwise_algorithm() {
  static const DepthwiseAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith::cuda
