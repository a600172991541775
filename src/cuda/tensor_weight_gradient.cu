#include <algorithm>

#include "arithmetic.hpp"
#include "cuda/device.hpp"
#include "cuda/kernels/ptx.cuh"
#include "cuda/kernels/warp_tile.cuh"
#include "cuda/launch.hpp"
#include "cuda/parts.cuh"
#include "cuda/patches.hpp"
#include "cuda/tensor_cores.hpp"

namespace convolith::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 128;              ///< rows and columns of a block's result
constexpr int kChunk = 8;               ///< elements of an aligned copy
constexpr int kChunks = kTile / kChunk;
constexpr int kDepth = 32;              ///< pixels of a slice
constexpr int kStages = 4;
constexpr int kRowBytes = kChunks * 16;
constexpr int kSliceBytes = kDepth * kRowBytes;
constexpr int kResultPitch = kTile + 4;
constexpr int kSharedBytes =
    std::max(2 * kStages * kSliceBytes, kTile * kResultPitch * static_cast<int>(sizeof(float)));
// Warps stand 2 by 4; each has 64 rows, in tiles of 16, and 32 columns, in tiles of 8.
constexpr int kRowTiles = 4, kColumnTiles = 4;

/// Chunks of a pixel are permuted, so that the reading of a column of chunks meets no bank twice.
__device__ unsigned char* chunk_at(unsigned char* slice, int pixel, int chunk) {
  return slice + pixel * kRowBytes + (chunk ^ (pixel % 8)) * 16;
}

/// dy^T patches(x): slices are [pixel][output channel] and [pixel][(tap, channel)], and are
/// transposed as they are read.
template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    multiply(const __grid_constant__ PatchGeometry g, const __grid_constant__ Maps<const T> dy,
             const __grid_constant__ Maps<const T> x, int pixels_of_part, float* parts) {
  const int row_tiles = (g.out_channels + kTile - 1) / kTile;
  const int column_tiles = (g.columns() + kTile - 1) / kTile;
  int tile = static_cast<int>(blockIdx.x);
  const int first_row = tile % row_tiles * kTile;
  tile /= row_tiles;
  const int first_column = tile % column_tiles * kTile;
  tile /= column_tiles;
  const int group = tile % g.groups;
  const int part = tile / g.groups;
  const int begin = part * pixels_of_part;
  const int end = begin + pixels_of_part < g.terms() ? begin + pixels_of_part : g.terms();

  // A thread copies one column of chunks, of two pixels of a slice.
  constexpr int kSlots = kDepth * kChunks / kThreads, kStep = kDepth / kSlots;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int line = static_cast<int>(threadIdx.x) / kChunks;
  const int row = first_row + chunk * kChunk, column = first_column + chunk * kChunk;
  const bool row_valid = row < g.out_channels, column_valid = column < g.columns();
  const T* const from_dy = dy.data + (row_valid ? group * g.out_channels + row : 0);
  const PatchTap tap = patch_tap(g, column_valid ? column : 0);
  const T* const from_x =
      x.data + (column_valid ? group * g.in_channels + column % g.in_channels : 0);
  PixelWalk walks[kSlots];
#pragma unroll
  for (int i = 0; i < kSlots; ++i) walks[i].start(g, begin + line + i * kStep);
  int left = end - begin - line;

  auto* const stages = dynamic_shared<unsigned char>();
  const auto begin_copy = [&](int stage) {
    unsigned char* const of_dy = stages + stage * 2 * kSliceBytes;
    unsigned char* const of_x = of_dy + kSliceBytes;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const bool inside = left > i * kStep;
      const PixelWalk& at = walks[i];
      copy_async_16(chunk_at(of_dy, line + i * kStep, chunk),
                    inside ? from_dy + at.sample * dy.sample_stride +
                                 at.pixel(g) * dy.pixel_stride
                           : from_dy,
                    inside && row_valid);
      const std::int64_t pixel = inside && column_valid ? at.source(g, tap) : -1;
      copy_async_16(chunk_at(of_x, line + i * kStep, chunk),
                    pixel >= 0 ? from_x + at.sample * x.sample_stride + pixel * x.pixel_stride
                               : from_x,
                    pixel >= 0);
      walks[i].advance(g, kDepth);
    }
    left -= kDepth;
  };

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = warp / 4 * 64, warp_column = warp % 4 * 32;
  const int steps = end > begin ? (end - begin + kDepth - 1) / kDepth : 0;
  WarpTile<T, kRowTiles, kColumnTiles> tile_sums;
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) begin_copy(step);
    commit_copies();
  }
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // the slices of this step are there, those of the last one are free
    if (step + kStages - 1 < steps) begin_copy((step + kStages - 1) % kStages);
    commit_copies();
    unsigned char* const of_dy = stages + step % kStages * 2 * kSliceBytes;
    unsigned char* const of_x = of_dy + kSliceBytes;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      std::uint32_t a[kRowTiles][4], b[kColumnTiles / 2][4];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        load_matrices_transposed(
            a[i], chunk_at(of_dy, k + lane / 16 * 8 + lane % 8,
                           (warp_row + i * 16) / kChunk + lane / 8 % 2));
      }
#pragma unroll
      for (int j = 0; j < kColumnTiles / 2; ++j) {
        load_matrices_transposed(
            b[j], chunk_at(of_x, k + lane / 8 % 2 * 8 + lane % 8,
                           (warp_column + j * 16) / kChunk + lane / 16));
      }
      tile_sums.add(a, b);
    }
  }
  wait_for_copies<0>();
  __syncthreads();
  auto* const result = reinterpret_cast<float*>(stages);
  tile_sums.store(result, kResultPitch, warp_row, warp_column, lane);
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile; i += kThreads) {
    const int to_row = i / kTile, to_column = i % kTile;
    if (first_row + to_row >= g.out_channels || first_column + to_column >= g.columns()) continue;
    const std::int64_t of_part = (std::int64_t{part} * g.groups + group) * g.out_channels +
                                 first_row + to_row;
    parts[of_part * g.columns() + first_column + to_column] =
        result[to_row * kResultPitch + to_column];
  }
}

template <class T>
class TensorWeightGradient final : public Execution {
 public:
  TensorWeightGradient(const ConvProblem& problem, const Device& device)
      : problem_(problem),
        geometry_(patch_geometry(problem)),
        tiles_(divide_up(geometry_.out_channels, kTile) * divide_up(geometry_.columns(), kTile) *
               geometry_.groups),
        // Tensor cores truncate as they add: a long sum would drift.
        parts_(geometry_.terms(), divide_up(2 * device.multiprocessors, tiles_), 512,
               kLongestPart, kDepth) {}

  static constexpr std::int64_t kLongestPart = 4096;

  std::size_t workspace_bytes() const noexcept override {
    return static_cast<std::size_t>(parts_.count * problem_.weight_size()) * sizeof(float);
  }

  void run(const ConvArguments& arguments, const void*, void* workspace) const noexcept override {
    launch(multiply<T>, static_cast<unsigned>(tiles_ * parts_.count), kThreads, kSharedBytes,
           geometry_, typed<const T>(arguments.y), typed<const T>(arguments.x),
           static_cast<int>(parts_.pixels), static_cast<float*>(workspace));
    enqueue_add_parts<T>(geometry_, parts_.count, workspace, arguments.weight);
  }

 private:
  ConvProblem problem_;
  PatchGeometry geometry_;
  std::int64_t tiles_;
  Parts parts_;
};

}  // namespace

std::unique_ptr<const Execution> make_tensor_weight_gradient(const ConvProblem& problem,
                                                             const Machine& machine) {
  if (problem.dtype == DType::float16) {
    return std::make_unique<TensorWeightGradient<__half>>(problem, *machine.device);
  }
  return std::make_unique<TensorWeightGradient<__nv_bfloat16>>(problem, *machine.device);
}

}  // namespace convolith::cuda
