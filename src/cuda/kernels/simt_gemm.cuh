#pragma once

// A matrix product by ordinary threads: a block makes a tile of 128 rows, a thread 8 rows of it.
// Operands come through loaders, which keep the next slice in registers while a slice is computed.

#include <cstddef>

#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/ptx.cuh"

namespace convolith::cuda {

/// kRowsAcross: neighbouring threads have neighbouring rows, not columns; it suits results whose
/// rows touch.
template <class Number, int kTileColumns, bool kRowsAcross>
struct SimtGemm {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 128, kColumns = kTileColumns, kDepth = 16;
  static constexpr int kRowPitch = kRows + 4, kColumnPitch = kColumns + 4;  ///< fewer conflicts
  static constexpr int kQuad = 4;
  static constexpr int kRowQuads = 2, kColumnQuads = kColumns / 64;
  static constexpr int kValues = kRowQuads * kColumnQuads * kQuad * kQuad;
  static constexpr int kChainSteps = 512 / kDepth;
  static constexpr int kSlice = kDepth * (kRowPitch + kColumnPitch);

  static constexpr int kResultPitch = kColumns + 1;  ///< no conflicts along rows or columns

  static constexpr std::size_t shared_bytes(int steps) {
    constexpr std::size_t kResult = kRows * kResultPitch;
    const std::size_t working = 2 * kSlice + (steps > kChainSteps ? kThreads * kValues : 0);
    return sizeof(Number) * (working > kResult ? working : kResult);
  }

  /// The sum over the steps' slices, left * right, in shared memory: [row][kResultPitch].
  template <class Left, class Right>
  __device__ static const Number* run(Left& left, Right& right, int steps) {
    auto* const slices = dynamic_shared<Number>();
    Number* const totals = slices + 2 * kSlice;  // of this thread: [value][thread]
    const int across = threadIdx.x % 16, down = threadIdx.x / 16;
    const int row = kQuad * (kRowsAcross ? across : down);
    const int column = kQuad * (kRowsAcross ? down : across);
    Number sums[kRowQuads * kQuad][kColumnQuads * kQuad] = {};
    bool folded = false;

    if (steps > 0) {
      left.load();
      right.load();
      left.store(slices);
      right.store(slices + kDepth * kRowPitch);
    }
    __syncthreads();
    for (int step = 0; step < steps; ++step) {
      const Number* const slice = slices + step % 2 * kSlice;
      const bool more = step + 1 < steps;
      if (more) {
        left.load();
        right.load();
      }
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        Number a[kRowQuads * kQuad], b[kColumnQuads * kQuad];
#pragma unroll
        for (int q = 0; q < kRowQuads; ++q) {
          read_quad(slice + k * kRowPitch + q * (kRows / kRowQuads) + row, a + q * kQuad);
        }
#pragma unroll
        for (int q = 0; q < kColumnQuads; ++q) {
          read_quad(slice + kDepth * kRowPitch + k * kColumnPitch +
                        q * (kColumns / kColumnQuads) + column,
                    b + q * kQuad);
        }
#pragma unroll
        for (int i = 0; i < kRowQuads * kQuad; ++i) {
#pragma unroll
          for (int j = 0; j < kColumnQuads * kQuad; ++j) sums[i][j] += a[i] * b[j];
        }
      }
      if (more) {
        Number* const next = slices + (step + 1) % 2 * kSlice;
        left.store(next);
        right.store(next + kDepth * kRowPitch);
        if ((step + 1) % kChainSteps == 0) {
          fold(sums, totals, folded);
          folded = true;
        }
      }
      __syncthreads();
    }
    if (folded) {
      fold(sums, totals, true);
#pragma unroll
      for (int i = 0; i < kRowQuads * kQuad; ++i) {
#pragma unroll
        for (int j = 0; j < kColumnQuads * kQuad; ++j) sums[i][j] = total_of(totals, i, j);
      }
      __syncthreads();  // the result takes the place of the totals
    }
#pragma unroll
    for (int i = 0; i < kRowQuads * kQuad; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnQuads * kQuad; ++j) {
        const int to_row = i / kQuad * (kRows / kRowQuads) + row + i % kQuad;
        const int to_column = j / kQuad * (kColumns / kColumnQuads) + column + j % kQuad;
        slices[to_row * kResultPitch + to_column] = sums[i][j];
      }
    }
    __syncthreads();
    return slices;
  }

  /// Calls visit(row, column) for the thread's part of a tile's elements; neighbouring threads have
  /// neighbouring ones.
  template <class Visit>
  __device__ static void for_each_element(const Visit& visit) {
    constexpr int kAcross = kRowsAcross ? kRows : kColumns;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += kThreads) {
      visit(kRowsAcross ? i % kAcross : i / kAcross, kRowsAcross ? i / kAcross : i % kAcross);
    }
  }

 private:
  __device__ static void read_quad(const Number* from, Number* to) {
    struct alignas(16) Pair {
      Number values[16 / sizeof(Number)];
    };
    constexpr int kEach = 16 / sizeof(Number);
#pragma unroll
    for (int i = 0; i < kQuad; i += kEach) {
      const Pair pair = *reinterpret_cast<const Pair*>(from + i);
#pragma unroll
      for (int j = 0; j < kEach; ++j) to[i + j] = pair.values[j];
    }
  }

  __device__ static Number& total_of(Number* totals, int i, int j) {
    return totals[(i * kColumnQuads * kQuad + j) * kThreads + threadIdx.x];
  }

  /// Keeps chains of additions short.
  template <class Sums>
  __device__ static void fold(Sums& sums, Number* totals, bool folded) {
#pragma unroll
    for (int i = 0; i < kRowQuads * kQuad; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnQuads * kQuad; ++j) {
        Number& total = total_of(totals, i, j);
        total = folded ? total + sums[i][j] : sums[i][j];
        sums[i][j] = 0;
      }
    }
  }
};

/// Four neighbouring elements, loaded at once where they are aligned.
template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T values[4];
};

}  // namespace convolith::cuda
