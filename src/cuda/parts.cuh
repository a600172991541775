#pragma once

// Gradients of weights whose sum over pixels is cut into parts.

#include <algorithm>

#include "arithmetic.hpp"
#include "cuda/kernels/numbers.cuh"
#include "cuda/launch.hpp"
#include "cuda/patches.hpp"

namespace convolith::cuda {

/// Pixels of a part, and how many parts there are.
struct Parts {
  std::int64_t pixels, count;

  /// `wanted` parts, but none shorter than `shortest` or longer than `longest` pixels, and the
  /// length a multiple of `unit`.
  Parts(std::int64_t terms, std::int64_t wanted, std::int64_t shortest, std::int64_t longest,
        std::int64_t unit) {
    terms = std::max<std::int64_t>(terms, 1);
    const std::int64_t most = divide_up(terms, shortest), least = divide_up(terms, longest);
    pixels = round_up(divide_up(terms, std::max(std::min(wanted, most), least)), unit);
    count = divide_up(terms, pixels);
  }
};

/// weight (out, in / groups, taps) = sum of the parts, which are (out, taps, in / groups)
template <class T>
__global__ void add_parts(const __grid_constant__ PatchGeometry g, int part_count,
                          const Wide<T>* parts, T* weight) {
  const std::int64_t total = std::int64_t{g.groups} * g.out_channels * g.columns();
  const int taps = g.columns() / g.in_channels;
  for (std::int64_t index = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{blockDim.x}) {
    ChainedSum<Wide<T>> sum;
    for (int part = 0; part < part_count; ++part) sum.add(parts[part * total + index]);
    const std::int64_t channel = index % g.in_channels;
    const std::int64_t tap = index / g.in_channels % taps;
    const std::int64_t row = index / g.columns();
    weight[(row * g.in_channels + channel) * taps + tap] = narrow<T>(sum.value());
  }
}

template <class T>
void enqueue_add_parts(const PatchGeometry& g, std::int64_t count, const void* parts,
                       void* weight) noexcept {
  constexpr int kThreads = 256;
  const std::int64_t total = std::int64_t{g.groups} * g.out_channels * g.columns();
  const auto blocks = std::min<std::int64_t>(divide_up(total, kThreads), 1 << 20);
  launch(add_parts<T>, static_cast<unsigned>(blocks), kThreads, 0, g, static_cast<int>(count),
         static_cast<const Wide<T>*>(parts), static_cast<T*>(weight));
}

}  // namespace convolith::cuda
