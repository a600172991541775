#pragma once

// A matrix product on tensor cores by mma.sync (sm_80 and later): a block makes a tile of 128x128 or
// 128x64, 8 warps share it. Slices of 128 bytes a row come by asynchronous copies, kStages of them in
// flight; their chunks of 16 bytes are permuted by row, so that the reading of a column of chunks
// meets no bank twice.

#include <cstddef>

#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/ptx.cuh"
#include "cuda/kernels/warp_tile.cuh"

namespace convolith::cuda {

template <class T, int kTileColumns>
struct TensorGemm {
  static constexpr int kThreads = 256, kWarps = 8;
  static constexpr int kRows = 128, kColumns = kTileColumns;
  static constexpr int kChunkBytes = 16, kChunk = kChunkBytes / sizeof(T);  ///< elements
  static constexpr int kChunks = 8, kDepth = kChunks * kChunk;
  static constexpr int kStages = 3;
  static constexpr int kRowBytes = kChunks * kChunkBytes;
  static constexpr int kStageBytes = (kRows + kColumns) * kRowBytes;
  // Warps stand 2 by 4; each has 64 rows, in tiles of 16, and kColumns / 4 columns, in tiles of 8.
  static constexpr int kWarpRows = 64, kWarpColumns = kColumns / 4;
  static constexpr int kRowTiles = kWarpRows / 16, kColumnTiles = kWarpColumns / 8;
  static constexpr int kResultPitch = kColumns + 4;  ///< of the sums in shared memory, floats

  static constexpr std::size_t shared_bytes() {
    constexpr std::size_t kPipeline = kStages * kStageBytes;
    constexpr std::size_t kResult = kRows * kResultPitch * sizeof(float);
    return kPipeline > kResult ? kPipeline : kResult;
  }

  /// Where chunk `chunk` of row `row` of an operand's slice lies.
  __device__ static unsigned char* chunk_at(unsigned char* slice, int row, int chunk) {
    return slice + row * kRowBytes + (chunk ^ (row % kChunks)) * kChunkBytes;
  }

  /// load(left, right) begins to copy the next slices. Afterwards the sums stand in shared memory:
  /// [row][kResultPitch].
  template <class Load>
  __device__ static const float* run(Load& load, int steps) {
    auto* const stages = dynamic_shared<unsigned char>();
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int first_row = warp / 4 * kWarpRows, first_column = warp % 4 * kWarpColumns;
    WarpTile<T, kRowTiles, kColumnTiles> tile_sums;

    for (int step = 0; step < kStages - 1; ++step) {
      if (step < steps) begin_copy(load, stages, step);
      commit_copies();
    }
    for (int step = 0; step < steps; ++step) {
      wait_for_copies<kStages - 2>();
      __syncthreads();  // the slices of this step are there, those of the last one are free
      if (step + kStages - 1 < steps) begin_copy(load, stages, step + kStages - 1);
      commit_copies();
      unsigned char* const left = stages + step % kStages * kStageBytes;
      unsigned char* const right = left + kRows * kRowBytes;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; chunk += 2) {
        std::uint32_t a[kRowTiles][4], b[kColumnTiles / 2][4];
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          load_matrices(a[i], chunk_at(left, first_row + i * 16 + lane % 16, chunk + lane / 16));
          round(a[i]);
        }
#pragma unroll
        for (int j = 0; j < kColumnTiles / 2; ++j) {
          load_matrices(b[j], chunk_at(right, first_column + j * 16 + lane / 16 * 8 + lane % 8,
                                       chunk + lane / 8 % 2));
        }
        tile_sums.add(a, b);
      }
    }
    wait_for_copies<0>();
    __syncthreads();
    auto* const result = reinterpret_cast<float*>(stages);
    tile_sums.store(result, kResultPitch, first_row, first_column, lane);
    __syncthreads();
    return result;
  }

 private:
  template <class Load>
  __device__ static void begin_copy(Load& load, unsigned char* stages, int step) {
    unsigned char* const left = stages + step % kStages * kStageBytes;
    load(left, left + kRows * kRowBytes);
  }

  __device__ static void round(std::uint32_t (&values)[4]) {
    if constexpr (sizeof(T) == 4) {
      for (std::uint32_t& value : values) value = round_to_tf32(value);
    }
  }
};

}  // namespace convolith::cuda
