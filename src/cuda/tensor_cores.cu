#include "cuda/tensor_cores.hpp"

#include <algorithm>
#include <cmath>

#include "arithmetic.hpp"
#include "cuda/device.hpp"
#include "cuda/implicit_gemm.hpp"
#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/tensor_gemm.cuh"
#include "cuda/launch.hpp"

namespace convolith::cuda {
namespace {

/// Elements of one aligned copy of 16 bytes.
std::int64_t chunk_of(const ConvProblem& problem) {
  return 16 / static_cast<std::int64_t>(size_of(problem.dtype));
}

/// Begins to copy slices: rows of gathered pixels, and of packed weights [produced][depth]. A thread
/// has one column of chunks, so that one walk through the reduction serves both.
template <class T, class Gemm>
class SliceCopies {
 public:
  __device__ SliceCopies(const GemmGeometry& g, const Maps<const T>& source, const T* packed,
                         int group, int first_row, int first_column)
      : g_(g), source_(source) {
    const auto thread = static_cast<int>(threadIdx.x);
    chunk_ = thread % Gemm::kChunks;
    line_ = thread / Gemm::kChunks;
#pragma unroll
    for (int i = 0; i < kRowSlots; ++i) {
      const int row = first_row + line_ + i * kStep;
      rows_[i] = gemm_row(g, row < g.rows ? row : 0);
      base_[i] = source.data + rows_[i].sample * source.sample_stride +
                 std::int64_t{group} * g.reduced * source.channel_stride;
      if (row >= g.rows) rows_[i].sample = -1;
    }
    const std::int64_t pitch =
        std::int64_t{g.kernel[0]} * g.kernel[1] * g.kernel[2] * g.reduced;
#pragma unroll
    for (int i = 0; i < kColumnSlots; ++i) {
      const int column = first_column + line_ + i * kStep;
      weights_[i] = column < g.produced
                        ? packed + (std::int64_t{group} * g.produced + column) * pitch
                        : nullptr;
    }
    walk_.advance(g, chunk_ * Gemm::kChunk);
  }

  __device__ void operator()(unsigned char* left, unsigned char* right) {
    const bool inside = walk_.inside(g_);
#pragma unroll
    for (int i = 0; i < kRowSlots; ++i) {
      const std::int64_t pixel =
          inside && rows_[i].sample >= 0 ? walk_.source(g_, rows_[i]) : -1;
      copy_async_16(Gemm::chunk_at(left, line_ + i * kStep, chunk_),
                    pixel >= 0 ? base_[i] + pixel * source_.pixel_stride + walk_.channel
                               : base_[i],
                    pixel >= 0);
    }
    const std::int64_t depth =
        inside ? std::int64_t{walk_.weight_tap(g_)} * g_.reduced + walk_.channel : 0;
#pragma unroll
    for (int i = 0; i < kColumnSlots; ++i) {
      const bool valid = inside && weights_[i] != nullptr;
      copy_async_16(Gemm::chunk_at(right, line_ + i * kStep, chunk_),
                    valid ? weights_[i] + depth : base_[0], valid);
    }
    walk_.advance(g_, Gemm::kDepth);
  }

 private:
  static constexpr int kStep = Gemm::kThreads / Gemm::kChunks;
  static constexpr int kRowSlots = Gemm::kRows / kStep;
  static constexpr int kColumnSlots = Gemm::kColumns / kStep;

  const GemmGeometry& g_;
  const Maps<const T>& source_;
  int chunk_, line_;
  GemmRow rows_[kRowSlots];
  const T* base_[kRowSlots];
  const T* weights_[kColumnSlots];
  TapWalk walk_;
};

template <class T, int kTileColumns>
__global__ void __launch_bounds__(256, 2)
    multiply(const __grid_constant__ GemmGeometry g, const __grid_constant__ Maps<const T> source,
             const T* packed, const __grid_constant__ Maps<T> destination,
             const __grid_constant__ BoundEpilogue<T> epilogue) {
  using Gemm = TensorGemm<T, kTileColumns>;
  const int column_tiles = (g.produced + Gemm::kColumns - 1) / Gemm::kColumns;
  const auto tile = static_cast<int>(blockIdx.x);
  const int first_column = tile % column_tiles * Gemm::kColumns;
  const int group = tile / column_tiles % g.groups;
  const int first_row = tile / column_tiles / g.groups * Gemm::kRows;

  SliceCopies<T, Gemm> copies(g, source, packed, group, first_row, first_column);
  const float* const sums = Gemm::run(copies, (g.depth() + Gemm::kDepth - 1) / Gemm::kDepth);

  // Neighbouring threads store neighbouring channels, kWidth each.
  constexpr int kWidth = Gemm::kChunk, kAcross = Gemm::kColumns / kWidth;
  struct alignas(16) Chunk {
    T values[kWidth];
  };
  const int column = static_cast<int>(threadIdx.x) % kAcross * kWidth;
  const int channels = g.produced - first_column - column;
  for (int row = static_cast<int>(threadIdx.x) / kAcross; row < Gemm::kRows;
       row += Gemm::kThreads / kAcross) {
    if (first_row + row >= g.rows || channels <= 0) continue;
    const GemmRow at = gemm_row(g, first_row + row);
    const std::int64_t channel = std::int64_t{group} * g.produced + first_column + column;
    T* const to = destination.data + at.sample * destination.sample_stride + channel +
                  at.destination * destination.pixel_stride;
    Chunk chunk;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (i < channels) {
        chunk.values[i] = epilogue(sums[row * Gemm::kResultPitch + column + i], at.sample,
                                   channel + i, at.destination);
      }
    }
    if (channels >= kWidth && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
      *reinterpret_cast<Chunk*>(to) = chunk;
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (i < channels) to[i] = chunk.values[i];
      }
    }
  }
}

/// [group][produced][tap][reduced]; float32 rounded to tf32.
template <class T>
__global__ void pack_kernel(int taps, int reduced, int produced, std::int64_t reduced_stride,
                            std::int64_t produced_stride, std::int64_t total, const T* weight,
                            T* packed) {
  for (std::int64_t index = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{blockDim.x}) {
    const std::int64_t c = index % reduced;
    const std::int64_t tap = index / reduced % taps;
    const std::int64_t k = index / reduced / taps % produced;
    const std::int64_t group = index / reduced / taps / produced;
    T value = weight[group * produced * reduced * taps + k * produced_stride +
                     c * reduced_stride + tap];
    if constexpr (sizeof(T) == 4) {
      std::uint32_t bits;
      memcpy(&bits, &value, sizeof bits);
      bits = round_to_tf32(bits);
      memcpy(&value, &bits, sizeof bits);
    }
    packed[index] = value;
  }
}

template <class T>
class TensorCores final : public Execution {
 public:
  explicit TensorCores(const ConvProblem& problem) : problem_(problem) {
    for (const Phase& phase : phases(problem)) {
      if (phase.pixels() > 0) geometries_.push_back(gemm_geometry(problem, phase));
    }
  }

  std::size_t workspace_bytes() const noexcept override { return 0; }
  std::size_t packed_bytes() const noexcept override {
    return aligned_bytes<T>(problem_.weight_size());
  }

  void pack(const void* weight, void* packed) const noexcept override {
    const bool adjoint = is_adjoint(problem_);
    const std::int64_t taps = problem_.taps();
    const std::int64_t in_stride = taps, out_stride = taps * problem_.in_channels_per_group();
    const std::int64_t in = problem_.in_channels_per_group();
    const std::int64_t out = problem_.out_channels_per_group();
    launch(pack_kernel<T>, blocks(problem_.weight_size()), 256, 0, static_cast<int>(taps),
           static_cast<int>(adjoint ? out : in), static_cast<int>(adjoint ? in : out),
           adjoint ? out_stride : in_stride, adjoint ? in_stride : out_stride,
           problem_.weight_size(), static_cast<const T*>(weight), static_cast<T*>(packed));
  }

  void run(const ConvArguments& arguments, const void* packed, void*) const noexcept override {
    const Maps<const T> source =
        typed<const T>(is_adjoint(problem_) ? arguments.y : arguments.x);
    for (const GemmGeometry& g : geometries_) {
      if (g.produced <= 64) {
        run_phase<64>(g, source, arguments, packed);
      } else {
        run_phase<128>(g, source, arguments, packed);
      }
    }
  }

 private:
  static unsigned blocks(std::int64_t count) {
    return static_cast<unsigned>(std::min<std::int64_t>(divide_up(count, 256), 1 << 20));
  }

  template <int kTileColumns>
  void run_phase(const GemmGeometry& g, const Maps<const T>& source,
                 const ConvArguments& arguments, const void* packed) const {
    using Gemm = TensorGemm<T, kTileColumns>;
    const std::int64_t tiles = divide_up(g.rows, Gemm::kRows) *
                               divide_up(g.produced, Gemm::kColumns) * g.groups;
    launch(multiply<T, kTileColumns>, static_cast<unsigned>(tiles), Gemm::kThreads,
           Gemm::shared_bytes(), g, source, static_cast<const T*>(packed),
           typed<T>(is_adjoint(problem_) ? arguments.x : arguments.y),
           BoundEpilogue<T>(problem_, arguments));
  }

  ConvProblem problem_;
  std::vector<GemmGeometry> geometries_;
};

}  // namespace

Support tensor_gemm_supports(const ConvProblem& problem) {
  if (problem.direction == Direction::backward_weight && problem.dtype == DType::float32) {
    return Support::no("direction is backward_weight");
  }
  if (problem.layout != Layout::channels_last) {
    return Support::no("data_format is channels_first");
  }
  const std::int64_t reduced = is_adjoint(problem) ? problem.out_channels_per_group()
                                                   : problem.in_channels_per_group();
  const std::int64_t chunk = chunk_of(problem);
  if (problem.direction == Direction::backward_weight &&
      problem.out_channels_per_group() % chunk != 0) {
    return Support::no(std::to_string(problem.out_channels_per_group()) +
                       " output channels of a group; they must be a multiple of " +
                       std::to_string(chunk));
  }
  if (reduced % chunk != 0) {
    return Support::no(std::to_string(reduced) +
                       " channels of a group are read; they must be a multiple of " +
                       std::to_string(chunk));
  }
  if (std::string reason = not_as_gemm(problem); !reason.empty()) return Support::no(reason);
  return {};
}

double tensor_gemm_cost(const ConvProblem& problem, const Machine& machine) {
  const Device& device = *machine.device;
  const double rate = device.tensor_flops / (problem.dtype == DType::float32 ? 2 : 1);
  if (problem.direction == Direction::backward_weight) {
    constexpr double kShareOfPeak = 0.25;
    return 2 * device.launch_seconds + problem.flops() / (kShareOfPeak * rate);
  }
  const bool adjoint = is_adjoint(problem);
  const std::int64_t produced =
      adjoint ? problem.in_channels_per_group() : problem.out_channels_per_group();
  const std::int64_t width = produced <= 64 ? 64 : 128;
  const double full = static_cast<double>(round_up(produced, width)) /
                      static_cast<double>(produced);
  const double pixels = static_cast<double>(
      problem.batch * (adjoint ? problem.input_pixels() : problem.output_pixels()));
  const double tiles = std::ceil(pixels / 128) * static_cast<double>(problem.groups) *
                       static_cast<double>(divide_up(produced, width));
  const double idle = std::max(1.0, device.multiprocessors / std::max(tiles, 1.0));
  constexpr double kShareOfPeak = 0.35;
  return device.launch_seconds + idle * problem.flops() * full / (kShareOfPeak * rate);
}

std::unique_ptr<const Execution> make_tensor_gemm(const ConvProblem& problem) {
  switch (problem.dtype) {
    case DType::float16: return std::make_unique<TensorCores<__half>>(problem);
    case DType::bfloat16: return std::make_unique<TensorCores<__nv_bfloat16>>(problem);
    default: return std::make_unique<TensorCores<float>>(problem);
  }
}

}  // namespace convolith::cuda
