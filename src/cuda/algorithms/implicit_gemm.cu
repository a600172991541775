// Implicit GEMM by ordinary threads: forward, backward-input in phases of the stride, and the
// gradient of weights. No matrix of patches is made; what would be in it is gathered from the
// feature maps slice by slice.

#include <algorithm>
#include <cmath>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "cuda/bounds.hpp"
#include "cuda/device.hpp"
#include "cuda/implicit_gemm.hpp"
#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/simt_gemm.cuh"
#include "cuda/launch.hpp"
#include "cuda/pack.cuh"
#include "cuda/weight_gradient.hpp"

namespace convolith::cuda {
namespace {

enum class Reading { pixels, channels, channel_quads };  ///< what neighbouring threads read

/// Rows of the product: destination pixels. Writes slices [depth][row].
template <class T, class Gemm, Reading kReading>
class GatheredRows {
 public:
  using Number = Wide<T>;

  __device__ GatheredRows(const GemmGeometry& g, const Maps<const T>& source, int group,
                          int first_row)
      : g_(g), source_(source) {
    const auto thread = static_cast<int>(threadIdx.x);
    row_ = thread / kAcross;
    depth_ = kReading == Reading::channel_quads ? thread % kAcross * 4 : thread % kAcross;
    if (kReading == Reading::pixels) {
      row_ = thread % Gemm::kRows;
      depth_ = thread / Gemm::kRows;
    }
#pragma unroll
    for (int i = 0; i < kRowSlots; ++i) {
      const int row = first_row + row_ + i * kRowStep;
      rows_[i] = gemm_row(g, row < g.rows ? row : 0);
      base_[i] = source.data + rows_[i].sample * source.sample_stride +
                 std::int64_t{group} * g.reduced * source.channel_stride;
      if (row >= g.rows) rows_[i].sample = -1;
    }
    walk_.advance(g, depth_);
  }

  /// The next slice, into registers.
  __device__ void load() {
#pragma unroll
    for (int d = 0; d < kDepthSlots; ++d) {
      const bool inside = walk_.inside(g_);
#pragma unroll
      for (int i = 0; i < kRowSlots; ++i) {
        const std::int64_t pixel =
            inside && rows_[i].sample >= 0 ? walk_.source(g_, rows_[i]) : -1;
        T* const held = held_ + (d * kRowSlots + i) * kWidth;
        const T* const from =
            base_[i] + pixel * source_.pixel_stride + walk_.channel * source_.channel_stride;
        if constexpr (kWidth == 4) {
          const Quad<T> quad = pixel >= 0 ? *reinterpret_cast<const Quad<T>*>(from) : Quad<T>{};
#pragma unroll
          for (int j = 0; j < 4; ++j) held[j] = quad.values[j];
        } else {
          *held = pixel >= 0 ? *from : T{};
        }
      }
      walk_.advance(g_, kDepthStep);
    }
  }

  __device__ void store(Number* slice) const {
#pragma unroll
    for (int d = 0; d < kDepthSlots; ++d) {
#pragma unroll
      for (int i = 0; i < kRowSlots; ++i) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          slice[(depth_ + d * kDepthStep + j) * Gemm::kRowPitch + row_ + i * kRowStep] =
              widen(held_[(d * kRowSlots + i) * kWidth + j]);
        }
      }
    }
  }

 private:
  static constexpr int kWidth = kReading == Reading::channel_quads ? 4 : 1;
  /// Threads along the reduction.
  static constexpr int kAcross = kReading == Reading::pixels ? Gemm::kThreads / Gemm::kRows
                                                             : Gemm::kDepth / kWidth;
  static constexpr int kRowStep = Gemm::kThreads / kAcross;
  static constexpr int kRowSlots = Gemm::kRows / kRowStep;
  static constexpr int kDepthSlots = kReading == Reading::pixels ? Gemm::kDepth / kAcross : 1;
  static constexpr int kDepthStep = kReading == Reading::pixels ? kAcross : Gemm::kDepth;

  const GemmGeometry& g_;
  const Maps<const T>& source_;
  int row_, depth_;
  GemmRow rows_[kRowSlots];
  const T* base_[kRowSlots];
  TapWalk walk_;
  T held_[kDepthSlots * kRowSlots * kWidth];
};

/// Columns of the product: packed weights [tap][reduced][produced].
template <class T, class Gemm>
class PackedColumns {
 public:
  using Number = Wide<T>;

  __device__ PackedColumns(const GemmGeometry& g, const T* packed, int group, int first_column)
      : g_(g), pitch_(packed_pitch(g.produced)) {
    const auto thread = static_cast<int>(threadIdx.x);
    column_ = thread % kAcross * 4;
    depth_ = thread / kAcross;
    valid_ = first_column + column_ < pitch_;
    packed_ = packed + std::int64_t{group} * g.kernel[0] * g.kernel[1] * g.kernel[2] * g.reduced *
                           pitch_ + first_column + column_;
    walk_.advance(g, depth_);
  }

  __device__ void load() {
#pragma unroll
    for (int d = 0; d < kDepthSlots; ++d) {
      held_[d] = Quad<T>{};
      if (valid_ && walk_.inside(g_)) {
        const std::int64_t at =
            (std::int64_t{walk_.weight_tap(g_)} * g_.reduced + walk_.channel) * pitch_;
        held_[d] = *reinterpret_cast<const Quad<T>*>(packed_ + at);
      }
      walk_.advance(g_, kDepthStep);
    }
  }

  __device__ void store(Number* slice) const {
#pragma unroll
    for (int d = 0; d < kDepthSlots; ++d) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        slice[(depth_ + d * kDepthStep) * Gemm::kColumnPitch + column_ + j] =
            widen(held_[d].values[j]);
      }
    }
  }

 private:
  static constexpr int kAcross = Gemm::kColumns / 4;
  static constexpr int kDepthStep = Gemm::kThreads / kAcross;
  static constexpr int kDepthSlots = Gemm::kDepth / kDepthStep;

  const GemmGeometry& g_;
  int pitch_, column_, depth_;
  bool valid_;
  const T* packed_;
  TapWalk walk_;
  Quad<T> held_[kDepthSlots];
};

template <class T, Reading kReading>
using GemmFor = SimtGemm<Wide<T>, sizeof(T) == 8 ? 64 : 128, kReading == Reading::pixels>;

template <class T, Reading kReading>
__global__ void __launch_bounds__(256)
    multiply(const __grid_constant__ GemmGeometry g, const __grid_constant__ Maps<const T> source,
             const T* packed, const __grid_constant__ Maps<T> destination,
             const __grid_constant__ BoundEpilogue<T> epilogue) {
  using Gemm = GemmFor<T, kReading>;
  const int column_tiles = (g.produced + Gemm::kColumns - 1) / Gemm::kColumns;
  const auto tile = static_cast<int>(blockIdx.x);
  const int first_column = tile % column_tiles * Gemm::kColumns;
  const int group = tile / column_tiles % g.groups;
  const int first_row = tile / column_tiles / g.groups * Gemm::kRows;

  GatheredRows<T, Gemm, kReading> rows(g, source, group, first_row);
  PackedColumns<T, Gemm> columns(g, packed, group, first_column);
  const int steps = (g.depth() + Gemm::kDepth - 1) / Gemm::kDepth;
  const Wide<T>* const sums = Gemm::run(rows, columns, steps);
  __shared__ std::int64_t pixels[Gemm::kRows];
  __shared__ int samples[Gemm::kRows];
  if (threadIdx.x < Gemm::kRows && first_row + static_cast<int>(threadIdx.x) < g.rows) {
    const GemmRow at = gemm_row(g, first_row + static_cast<int>(threadIdx.x));
    pixels[threadIdx.x] = at.destination;
    samples[threadIdx.x] = at.sample;
  }
  __syncthreads();
  Gemm::for_each_element([&](int row, int column) {
    if (first_row + row >= g.rows || first_column + column >= g.produced) return;
    const std::int64_t channel = std::int64_t{group} * g.produced + first_column + column;
    const std::int64_t sample = samples[row], pixel = pixels[row];
    destination.data[sample * destination.sample_stride + channel * destination.channel_stride +
                     pixel * destination.pixel_stride] =
        epilogue(sums[row * Gemm::kResultPitch + column], sample, channel, pixel);
  });
}

template <class T>
class ImplicitGemm final : public Execution {
 public:
  explicit ImplicitGemm(const ConvProblem& problem) : problem_(problem) {
    for (const Phase& phase : phases(problem)) {
      if (phase.pixels() > 0) geometries_.push_back(gemm_geometry(problem, phase));
    }
  }

  std::size_t workspace_bytes() const noexcept override { return 0; }
  std::size_t packed_bytes() const noexcept override {
    return aligned_bytes<T>(packed_elements(problem_));
  }
  void pack(const void* weight, void* packed) const noexcept override {
    pack_weights(problem_, static_cast<const T*>(weight), static_cast<T*>(packed));
  }

  void run(const ConvArguments& arguments, const void* packed, void*) const noexcept override {
    const bool adjoint = is_adjoint(problem_);
    const Maps<const T> source = typed<const T>(adjoint ? arguments.y : arguments.x);
    if (problem_.layout == Layout::channels_first) {
      run_phases<Reading::pixels>(arguments, source, packed);
    } else if (in_quads(source)) {
      run_phases<Reading::channel_quads>(arguments, source, packed);
    } else {
      run_phases<Reading::channels>(arguments, source, packed);
    }
  }

 private:
  /// Whether four channels at a time are aligned.
  bool in_quads(const Maps<const T>& source) const {
    const std::int64_t reduced = geometries_.empty() ? 1 : geometries_[0].reduced;
    return reduced % 4 == 0 && source.pixel_stride % 4 == 0 && source.sample_stride % 4 == 0 &&
           reinterpret_cast<std::uintptr_t>(source.data) % (4 * sizeof(T)) == 0;
  }

  template <Reading kReading>
  void run_phases(const ConvArguments& arguments, const Maps<const T>& source,
                  const void* packed) const {
    using Gemm = GemmFor<T, kReading>;
    const Maps<T> destination = typed<T>(is_adjoint(problem_) ? arguments.x : arguments.y);
    for (const GemmGeometry& g : geometries_) {
      const std::int64_t tiles = divide_up(g.rows, Gemm::kRows) *
                                 divide_up(g.produced, Gemm::kColumns) * g.groups;
      const auto steps = static_cast<int>(divide_up(g.depth(), Gemm::kDepth));
      launch(multiply<T, kReading>, static_cast<unsigned>(tiles), Gemm::kThreads,
             Gemm::shared_bytes(steps), g, source, static_cast<const T*>(packed), destination,
             BoundEpilogue<T>(problem_, arguments));
    }
  }

  ConvProblem problem_;
  std::vector<GemmGeometry> geometries_;
};

class ImplicitGemmAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "implicit_gemm"; }
  const char* summary() const noexcept override {
    return "a matrix product of gathered pixels by ordinary threads";
  }
  Support supports(const ConvProblem& problem) const override {
    if (std::string reason = not_as_gemm(problem); !reason.empty()) return Support::no(reason);
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const Device& device = *machine.device;
    const double rate =
        problem.dtype == DType::float64 ? device.float64_flops : device.simt_flops;
    if (problem.direction == Direction::backward_weight) {
      const double reduced = static_cast<double>(reduction_terms(problem));
      const double used = std::min(1.0, reduced / 4096);
      constexpr double kShareOfPeak = 0.45;
      return 2 * device.launch_seconds + problem.flops() / (kShareOfPeak * used * rate + 1);
    }
    const bool adjoint = is_adjoint(problem);
    const std::int64_t produced =
        adjoint ? problem.in_channels_per_group() : problem.out_channels_per_group();
    const double width = problem.dtype == DType::float64 ? 64 : 128;
    const double full = static_cast<double>(round_up(produced, static_cast<std::int64_t>(width))) /
                        static_cast<double>(produced);
    const double pixels = static_cast<double>(
        problem.batch * (adjoint ? problem.input_pixels() : problem.output_pixels()));
    const double tiles = std::ceil(pixels / 128) * static_cast<double>(problem.groups) *
                         std::ceil(static_cast<double>(produced) / width);
    const double waves = std::max(1.0, tiles / device.multiprocessors);
    constexpr double kShareOfPeak = 0.6;
    const double flops = problem.flops() * full * std::ceil(waves) / waves;
    const double idle = std::max(1.0, device.multiprocessors / std::max(tiles, 1.0));
    return device.launch_seconds + idle * flops / (kShareOfPeak * rate);
  }
  double packing_cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) return 0;
    return machine.device->launch_seconds +
           2.0 * static_cast<double>(problem.weight_size()) *
               static_cast<double>(size_of(problem.dtype)) / machine.bytes_per_second;
  }
  Tolerance tolerance(const ConvProblem& problem) const override {
    return {accumulation_bound(problem), 0};
  }
  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int) const override {
    if (problem.direction == Direction::backward_weight) {
      return make_weight_gradient(problem, machine);
    }
    return with_type(problem.dtype, [&](auto zero) -> std::unique_ptr<const Execution> {
      return std::make_unique<ImplicitGemm<decltype(zero)>>(problem);
    });
  }
};

}  // namespace

const Algorithm& implicit_gemm_algorithm() {
  static const ImplicitGemmAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith::cuda
