#include "cuda/winograd.hpp"

#include <algorithm>
#include <cmath>

#include "amplification.hpp"
#include "arithmetic.hpp"
#include "cuda/device.hpp"
#include "cuda/implicit_gemm.hpp"
#include "cuda/kernels/epilogue.cuh"
#include "cuda/kernels/simt_gemm.cuh"
#include "cuda/launch.hpp"
#include "cuda/pack.cuh"
#include "kernels/cook_toom_table.hpp"
#include "tolerance.hpp"

namespace convolith::cuda {
namespace {

constexpr int kTaps = 3;
constexpr int kThreads = 256;

/// Tiles of m x m outputs. The maps are those of the phase of stride 1 that the problem is.
struct TileGrid {
  GemmGeometry gemm;
  int rows, columns;  ///< tiles of a map
  int count;          ///< of the batch
  int channels, produced, pitch;

  TileGrid(const ConvProblem& problem, int outputs) : gemm{} {
    gemm = gemm_geometry(problem, phases(problem).front());
    rows = static_cast<int>(divide_up(gemm.axes[1].count, outputs));
    columns = static_cast<int>(divide_up(gemm.axes[2].count, outputs));
    count = static_cast<int>(problem.batch) * gemm.axes[0].count * rows * columns;
    channels = gemm.reduced;
    produced = gemm.produced;
    pitch = packed_pitch(produced);
  }
};

struct Tile {
  int sample, plane, row, column;
};

constexpr Tile tile_at(const TileGrid& grid, int tile) {
  const int in_sample = grid.gemm.axes[0].count * grid.rows * grid.columns;
  const int rest = tile % in_sample;
  return {tile / in_sample, rest / grid.columns / grid.rows, rest / grid.columns % grid.rows,
          rest % grid.columns};
}

constexpr std::int64_t source_at(const GemmAxis& axis, std::int64_t at, PaddingMode mode) {
  return at >= 0 && at < axis.sources ? at : padded_source(at, axis.sources, mode);
}

/// to = matrix * from * matrix^T, where matrix(i, j) is called with constants.
template <class Number, int kTo, int kFrom, class Matrix>
__device__ __forceinline__ void transform(const Number (&from)[kFrom][kFrom],
                                          Number (&to)[kTo][kTo], const Matrix& matrix) {
  Number half[kTo][kFrom];
#pragma unroll
  for (int i = 0; i < kTo; ++i) {
#pragma unroll
    for (int j = 0; j < kFrom; ++j) {
      Number sum = 0;
#pragma unroll
      for (int k = 0; k < kFrom; ++k) sum += matrix(i, k) * from[k][j];
      half[i][j] = sum;
    }
  }
#pragma unroll
  for (int i = 0; i < kTo; ++i) {
#pragma unroll
    for (int j = 0; j < kTo; ++j) {
      Number sum = 0;
#pragma unroll
      for (int k = 0; k < kFrom; ++k) sum += matrix(j, k) * half[i][k];
      to[i][j] = sum;
    }
  }
}

/// u[frequency][channel][pitch] = G w G^T; what fills a row up is zero.
template <class T, int kOutputs>
__global__ void __launch_bounds__(kThreads)
    transform_weights(const __grid_constant__ TileGrid grid, std::int64_t channel_stride,
                      std::int64_t produced_stride, const T* weight, T* u) {
  constexpr int kInputs = kOutputs + kTaps - 1;
  constexpr CookToom matrices = cook_toom(kOutputs, kTaps);
  const std::int64_t total = std::int64_t{grid.channels} * grid.pitch;
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    const std::int64_t k = index % grid.pitch, c = index / grid.pitch;
    T w[kTaps][kTaps] = {}, transformed[kInputs][kInputs];
    if (k < grid.produced) {
#pragma unroll
      for (int i = 0; i < kTaps; ++i) {
#pragma unroll
        for (int j = 0; j < kTaps; ++j) {
          const int row = grid.gemm.axes[1].first_tap + i * grid.gemm.axes[1].tap_step;
          const int column = grid.gemm.axes[2].first_tap + j * grid.gemm.axes[2].tap_step;
          w[i][j] = weight[k * produced_stride + c * channel_stride + row * kTaps + column];
        }
      }
    }
    // G has more rows than columns: the taps are filled up with zeros.
    T padded[kInputs][kInputs] = {};
#pragma unroll
    for (int i = 0; i < kTaps; ++i) {
#pragma unroll
      for (int j = 0; j < kTaps; ++j) padded[i][j] = w[i][j];
    }
    transform(padded, transformed, [&](int i, int j) {
      return j < kTaps ? static_cast<T>(matrices.weight[i][j]) : T(0);
    });
#pragma unroll
    for (int f = 0; f < kInputs * kInputs; ++f) {
      u[f * total + index] = transformed[f / kInputs][f % kInputs];
    }
  }
}

/// v[frequency][tile][channel] = B^T d B, for the tiles from `first` on.
template <class T, int kOutputs>
__global__ void __launch_bounds__(kThreads)
    transform_sources(const __grid_constant__ TileGrid grid, bool channels_touch, int first,
                      int tiles, const __grid_constant__ Maps<const T> source, T* v) {
  constexpr int kInputs = kOutputs + kTaps - 1;
  constexpr CookToom matrices = cook_toom(kOutputs, kTaps);
  const std::int64_t total = std::int64_t{tiles} * grid.channels;
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    const std::int64_t c = channels_touch ? index % grid.channels : index / tiles;
    const std::int64_t t = channels_touch ? index / grid.channels : index % tiles;
    const Tile tile = tile_at(grid, first + static_cast<int>(t));
    const auto& [depth, height, width] = grid.gemm.axes;
    const std::int64_t plane = tile.plane + depth.first_offset;
    const T* const from =
        source.data + tile.sample * source.sample_stride + c * source.channel_stride;
    T d[kInputs][kInputs], transformed[kInputs][kInputs];
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      const std::int64_t row =
          source_at(height, tile.row * kOutputs + height.first_offset + i, grid.gemm.mode);
#pragma unroll
      for (int j = 0; j < kInputs; ++j) {
        const std::int64_t column =
            source_at(width, tile.column * kOutputs + width.first_offset + j, grid.gemm.mode);
        const bool inside = row >= 0 && row < height.sources && column >= 0 &&
                            column < width.sources;
        d[i][j] = inside ? from[((plane * height.sources + row) * width.sources + column) *
                                source.pixel_stride]
                         : T(0);
      }
    }
    transform(d, transformed,
              [&](int i, int j) { return static_cast<T>(matrices.input[i][j]); });
#pragma unroll
    for (int f = 0; f < kInputs * kInputs; ++f) {
      v[f * total + t * grid.channels + c] = transformed[f / kInputs][f % kInputs];
    }
  }
}

/// destination = A^T m A with the epilogue, where m is [frequency][tile][produced].
template <class T, int kOutputs>
__global__ void __launch_bounds__(kThreads)
    transform_products(const __grid_constant__ TileGrid grid, bool channels_touch, int first,
                       int tiles, const T* m, const __grid_constant__ Maps<T> destination,
                       const __grid_constant__ BoundEpilogue<T> epilogue) {
  constexpr int kInputs = kOutputs + kTaps - 1;
  constexpr CookToom matrices = cook_toom(kOutputs, kTaps);
  const std::int64_t total = std::int64_t{tiles} * grid.produced;
  for (std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{kThreads}) {
    const std::int64_t k = channels_touch ? index % grid.produced : index / tiles;
    const std::int64_t t = channels_touch ? index / grid.produced : index % tiles;
    const Tile tile = tile_at(grid, first + static_cast<int>(t));
    T products[kInputs][kInputs], outputs[kOutputs][kOutputs];
#pragma unroll
    for (int f = 0; f < kInputs * kInputs; ++f) {
      products[f / kInputs][f % kInputs] = m[f * total + t * grid.produced + k];
    }
    transform(products, outputs,
              [&](int i, int j) { return static_cast<T>(matrices.output[i][j]); });
    const auto& [depth, height, width] = grid.gemm.axes;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
#pragma unroll
      for (int j = 0; j < kOutputs; ++j) {
        const int row = tile.row * kOutputs + i, column = tile.column * kOutputs + j;
        if (row >= height.count || column >= width.count) continue;
        const std::int64_t pixel =
            (std::int64_t{tile.plane} * height.count + row) * width.count + column;
        destination.data[tile.sample * destination.sample_stride +
                         k * destination.channel_stride + pixel * destination.pixel_stride] =
            epilogue(outputs[i][j], tile.sample, k, pixel);
      }
    }
  }
}

/// Lines of a dense matrix, as rows [line][depth] or columns [depth][line] of a product.
template <class T, class Gemm, bool kRows>
class DenseLines {
 public:
  __device__ DenseLines(const T* matrix, int lines, int depth, int pitch, int first)
      : matrix_(matrix), lines_(lines - first), depth_(depth), pitch_(pitch), first_(first) {
    const auto thread = static_cast<int>(threadIdx.x);
    // Neighbouring threads read what lies side by side.
    line_ = kRows ? thread / Gemm::kDepth : thread % kLines;
    at_ = kRows ? thread % Gemm::kDepth : thread / kLines;
  }

  __device__ void load() {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const int line = line_ + (kRows ? i * kStep : 0), at = at_ + (kRows ? 0 : i * kStep);
      const std::int64_t index = kRows ? std::int64_t{first_ + line} * pitch_ + at
                                       : std::int64_t{at} * pitch_ + first_ + line;
      held_[i] = line < lines_ && at < depth_ ? matrix_[index] : T(0);
    }
    at_ += Gemm::kDepth;
  }

  __device__ void store(T* slice) const {
    const int at = static_cast<int>(threadIdx.x);
    const int depth = kRows ? at % Gemm::kDepth : at / kLines;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const int line = line_ + (kRows ? i * kStep : 0);
      slice[(depth + (kRows ? 0 : i * kStep)) * kPitch + line] = held_[i];
    }
  }

 private:
  static constexpr int kLines = kRows ? Gemm::kRows : Gemm::kColumns;
  static constexpr int kPitch = kRows ? Gemm::kRowPitch : Gemm::kColumnPitch;
  static constexpr int kStep = Gemm::kThreads / (kRows ? Gemm::kDepth : kLines);
  static constexpr int kSlots = (kRows ? kLines : Gemm::kDepth) / kStep;

  const T* matrix_;
  int lines_, depth_, pitch_, first_, line_, at_;
  T held_[kSlots];
};

template <class T>
using ProductGemm = SimtGemm<T, sizeof(T) == 8 ? 64 : 128, false>;

/// m[frequency] = v[frequency] u[frequency]; a frequency for each block along y.
template <class T>
__global__ void __launch_bounds__(256)
    multiply(const __grid_constant__ TileGrid grid, int tiles, const T* v, const T* u, T* m) {
  using Gemm = ProductGemm<T>;
  const int column_tiles = (grid.produced + Gemm::kColumns - 1) / Gemm::kColumns;
  const int first_column = static_cast<int>(blockIdx.x) % column_tiles * Gemm::kColumns;
  const int first_row = static_cast<int>(blockIdx.x) / column_tiles * Gemm::kRows;
  const std::int64_t frequency = blockIdx.y;
  DenseLines<T, Gemm, true> rows(v + frequency * tiles * grid.channels, tiles, grid.channels,
                                 grid.channels, first_row);
  DenseLines<T, Gemm, false> columns(u + frequency * grid.channels * grid.pitch, grid.produced,
                                     grid.channels, grid.pitch, first_column);
  const T* const sums =
      Gemm::run(rows, columns, (grid.channels + Gemm::kDepth - 1) / Gemm::kDepth);
  Gemm::for_each_element([&](int row, int column) {
    if (first_row + row >= tiles || first_column + column >= grid.produced) return;
    m[(frequency * tiles + first_row + row) * grid.produced + first_column + column] =
        sums[row * Gemm::kResultPitch + column];
  });
}

unsigned blocks(std::int64_t count) {
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(divide_up(count, kThreads), 1, std::int64_t{1} << 30));
}

/// Tiles go through in groups whose transforms fit a budget.
template <class T, int kOutputs>
class WinogradExecution final : public Execution {
 public:
  explicit WinogradExecution(const ConvProblem& problem)
      : problem_(problem), grid_(problem, kOutputs) {
    constexpr std::int64_t kBudget = 256 << 20;
    const std::int64_t tile_bytes =
        std::int64_t{kFrequencies} * (grid_.channels + grid_.produced) * sizeof(T);
    group_ = static_cast<int>(std::clamp<std::int64_t>(
        round_up(kBudget / tile_bytes, 128), 128, std::max(grid_.count, 1)));
    if (group_ > grid_.count) group_ = std::max(grid_.count, 1);
  }

  std::size_t workspace_bytes() const noexcept override {
    return aligned_bytes<T>(std::int64_t{kFrequencies} * group_ * grid_.channels) +
           aligned_bytes<T>(std::int64_t{kFrequencies} * group_ * grid_.produced);
  }
  std::size_t packed_bytes() const noexcept override {
    return aligned_bytes<T>(std::int64_t{kFrequencies} * grid_.channels * grid_.pitch);
  }

  void pack(const void* weight, void* packed) const noexcept override {
    const bool adjoint = is_adjoint(problem_);
    const std::int64_t in_stride = problem_.taps();
    const std::int64_t out_stride = in_stride * problem_.in_channels;
    launch(transform_weights<T, kOutputs>, blocks(std::int64_t{grid_.channels} * grid_.pitch),
           kThreads, 0, grid_, adjoint ? out_stride : in_stride,
           adjoint ? in_stride : out_stride, static_cast<const T*>(weight),
           static_cast<T*>(packed));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    using Gemm = ProductGemm<T>;
    const bool adjoint = is_adjoint(problem_);
    const bool touch = problem_.layout == Layout::channels_last;
    auto* const v = static_cast<T*>(workspace);
    auto* const m = reinterpret_cast<T*>(
        static_cast<std::byte*>(workspace) +
        aligned_bytes<T>(std::int64_t{kFrequencies} * group_ * grid_.channels));
    for (int first = 0; first < grid_.count; first += group_) {
      const int tiles = std::min(group_, grid_.count - first);
      launch(transform_sources<T, kOutputs>, blocks(std::int64_t{tiles} * grid_.channels),
             kThreads, 0, grid_, touch, first, tiles,
             typed<const T>(adjoint ? arguments.y : arguments.x), v);
      const auto across = static_cast<unsigned>(divide_up(tiles, Gemm::kRows) *
                                                divide_up(grid_.produced, Gemm::kColumns));
      const auto steps = static_cast<int>(divide_up(grid_.channels, Gemm::kDepth));
      launch(multiply<T>, dim3(across, kFrequencies), Gemm::kThreads, Gemm::shared_bytes(steps),
             grid_, tiles, static_cast<const T*>(v), static_cast<const T*>(packed), m);
      launch(transform_products<T, kOutputs>, blocks(std::int64_t{tiles} * grid_.produced),
             kThreads, 0, grid_, touch, first, tiles, static_cast<const T*>(m),
             typed<T>(adjoint ? arguments.x : arguments.y),
             BoundEpilogue<T>(problem_, arguments));
    }
  }

 private:
  static constexpr int kFrequencies = (kOutputs + kTaps - 1) * (kOutputs + kTaps - 1);

  ConvProblem problem_;
  TileGrid grid_;
  int group_;
};

template <class T>
std::unique_ptr<const Execution> make(const ConvProblem& problem, int outputs) {
  if (outputs == 2) return std::make_unique<WinogradExecution<T, 2>>(problem);
  return std::make_unique<WinogradExecution<T, 4>>(problem);
}

}  // namespace

Support Winograd::supports(const ConvProblem& problem) const {
  if (problem.direction == Direction::backward_weight) {
    return Support::no("direction is backward_weight");
  }
  if (problem.dtype != DType::float32 && problem.dtype != DType::float64) {
    return Support::no("dtype is neither float32 nor float64");
  }
  if (problem.groups != 1) return Support::no("groups is not 1");
  if (problem.rank == 1 || problem.windows[0].kernel != 1) {
    return Support::no("the kernel is not 3 x 3");
  }
  for (int i = 0; i < kSpatialAxes; ++i) {
    const Window& w = problem.windows[i];
    if (w.stride != 1) return Support::no("stride is not 1");
    if (i == 0) {
      if (w.before != 0 || w.after != 0) return Support::no("padding on the first axis");
      continue;
    }
    if (w.kernel != kTaps) return Support::no("the kernel is not 3 x 3");
    if (w.dilation != 1) return Support::no("dilation is not 1");
  }
  if (std::string reason = not_as_gemm(problem); !reason.empty()) return Support::no(reason);
  return {};
}

double Winograd::cost(const ConvProblem& problem, const Machine& machine) const {
  const Device& device = *machine.device;
  const bool wide = problem.dtype == DType::float64;
  const double rate = wide ? device.float64_flops : device.simt_flops;
  const TileGrid grid(problem, outputs_);
  const double frequencies = (outputs_ + 2.0) * (outputs_ + 2.0);
  const double tiles = grid.count;
  const double width = wide ? 64 : 128;
  const double products = 2 * frequencies * tiles * grid.channels *
                          std::ceil(grid.produced / width) * width;
  const double moved = 2 * frequencies * tiles * (grid.channels + grid.produced) *
                           static_cast<double>(size_of(problem.dtype)) +
                       static_cast<double>(problem.x_size() + problem.y_size()) *
                           static_cast<double>(size_of(problem.dtype));
  constexpr double kShareOfPeak = 0.55, kShareOfCopy = 0.6;
  return 3 * device.launch_seconds + products / (kShareOfPeak * rate) +
         moved / (kShareOfCopy * machine.bytes_per_second);
}

double Winograd::packing_cost(const ConvProblem& problem, const Machine& machine) const {
  const double frequencies = (outputs_ + 2.0) * (outputs_ + 2.0);
  return machine.device->launch_seconds +
         (frequencies / 9 + 1) * static_cast<double>(problem.weight_size()) *
             static_cast<double>(size_of(problem.dtype)) / machine.bytes_per_second;
}

/// As on the processor: see Winograd::tolerance there.
Tolerance Winograd::tolerance(const ConvProblem& problem) const {
  const CookToom matrices = cook_toom(outputs_, kTaps);
  const double amplified = amplification(matrices) * amplification(matrices);
  const double reduced = static_cast<double>(
      is_adjoint(problem) ? problem.out_channels : problem.in_channels);
  return {summation_bound(problem.dtype, 1),
          probable_bound(problem.dtype, reduced + 6.0 * matrices.inputs) * amplified};
}

std::unique_ptr<const Execution> Winograd::prepare(const ConvProblem& problem, const Machine&,
                                                   int) const {
  if (problem.dtype == DType::float64) return make<double>(problem, outputs_);
  return make<float>(problem, outputs_);
}

}  // namespace convolith::cuda
