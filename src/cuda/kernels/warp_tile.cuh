#pragma once

// The sums of one warp, in tiles of 16 rows and 8 columns as mma.sync leaves them.

#include <cstdint>

#include "cuda/kernels/ptx.cuh"

namespace convolith::cuda {

template <class T, int kRowTiles, int kColumnTiles>
struct WarpTile {
  float sums[kRowTiles][kColumnTiles][4] = {};

  /// Adds a product; a tile of b's columns is half of what load_matrices brings.
  __device__ __forceinline__ void add(const std::uint32_t (&a)[kRowTiles][4],
                                      const std::uint32_t (&b)[kColumnTiles / 2][4]) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        multiply_matrices<T>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    }
  }

  /// To result[row * pitch + column], from the warp's first row and column on.
  __device__ __forceinline__ void store(float* result, int pitch, int first_row, int first_column,
                                        int lane) const {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row + i * 16 + half * 8 + lane / 4;
          const int column = first_column + j * 8 + lane % 4 * 2;
          *reinterpret_cast<float2*>(result + row * pitch + column) =
              make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
        }
      }
    }
  }
};

}  // namespace convolith::cuda
