#pragma once

// Weights (out, in / groups, taps) as [group][tap][reduced][produced], so that what is produced
// lies side by side; rows are filled up with zeros to whole quads.

#include <algorithm>

#include "arithmetic.hpp"
#include "cuda/kernels/numbers.cuh"
#include "cuda/launch.hpp"
#include "phases.hpp"

namespace convolith::cuda {

constexpr int packed_pitch(int produced) { return (produced + 3) / 4 * 4; }

struct PackShape {
  std::int64_t groups, taps, reduced, produced, pitch;
  std::int64_t reduced_stride, produced_stride;  ///< in the weights

  explicit PackShape(const ConvProblem& p)
      : groups(p.groups),
        taps(p.taps()),
        reduced(is_adjoint(p) ? p.out_channels_per_group() : p.in_channels_per_group()),
        produced(is_adjoint(p) ? p.in_channels_per_group() : p.out_channels_per_group()),
        pitch(packed_pitch(static_cast<int>(produced))),
        reduced_stride(is_adjoint(p) ? produced * taps : taps),
        produced_stride(is_adjoint(p) ? taps : reduced * taps) {}

  std::int64_t elements() const { return groups * taps * reduced * pitch; }
};

inline std::int64_t packed_elements(const ConvProblem& problem) {
  return PackShape(problem).elements();
}

template <class T>
__global__ void pack_kernel(const PackShape shape, const T* weight, T* packed) {
  const std::int64_t total = shape.groups * shape.taps * shape.reduced * shape.pitch;
  for (std::int64_t index = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; index < total;
       index += gridDim.x * std::int64_t{blockDim.x}) {
    const std::int64_t produced = index % shape.pitch;
    const std::int64_t reduced = index / shape.pitch % shape.reduced;
    const std::int64_t tap = index / shape.pitch / shape.reduced % shape.taps;
    const std::int64_t group = index / shape.pitch / shape.reduced / shape.taps;
    packed[index] =
        produced < shape.produced
            ? weight[group * shape.reduced * shape.produced * shape.taps +
                     produced * shape.produced_stride + reduced * shape.reduced_stride + tap]
            : T{};
  }
}

template <class T>
void pack_weights(const ConvProblem& problem, const T* weight, T* packed) noexcept {
  const PackShape shape(problem);
  constexpr int kThreads = 256;
  const auto blocks = std::min<std::int64_t>(divide_up(shape.elements(), kThreads), 1 << 20);
  launch(pack_kernel<T>, static_cast<unsigned>(blocks), kThreads, 0, shape, weight, packed);
}

}  // namespace convolith::cuda
