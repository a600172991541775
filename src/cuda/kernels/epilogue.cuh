#pragma once

// activation(sum + bias + residual), as every kernel applies it to what it stores.

#include <cmath>

#include "convolith/algorithm.hpp"
#include "convolith/tensor.hpp"
#include "cuda/kernels/numbers.cuh"

namespace convolith::cuda {

template <class Number>
__host__ __device__ __forceinline__ Number activate(Number v, Activation activation,
                                                    Number slope) {
  const auto clamp6 = [](Number at) { return at < 0 ? Number(0) : at > 6 ? Number(6) : at; };
  switch (activation) {
    case Activation::none: return v;
    case Activation::relu: return v < 0 ? Number(0) : v;  // NaN stays
    case Activation::relu6: return clamp6(v);
    case Activation::leaky_relu: return v < 0 ? v * slope : v;
    case Activation::tanh: return tanh(v);
    case Activation::sigmoid: return 1 / (1 + exp(-v));
    case Activation::silu: return v / (1 + exp(-v));
    case Activation::hardswish: return v * clamp6(v + 3) / 6;
  }
  return v;
}

/// The epilogue of a problem, bound to the arrays of one call.
template <class T>
struct BoundEpilogue {
  const T* bias;
  Maps<const T> residual;
  Activation activation;
  Wide<T> slope;

  BoundEpilogue(const ConvProblem& problem, const ConvArguments& arguments)
      : bias(problem.epilogue.bias ? static_cast<const T*>(arguments.bias) : nullptr),
        residual(problem.epilogue.residual ? typed<const T>(arguments.residual)
                                           : Maps<const T>{}),
        activation(problem.epilogue.activation),
        slope(static_cast<Wide<T>>(problem.epilogue.slope)) {}

  __device__ __forceinline__ T operator()(Wide<T> sum, std::int64_t sample, std::int64_t channel,
                                          std::int64_t pixel) const {
    if (bias != nullptr) sum += widen(bias[channel]);
    if (residual.data != nullptr) {
      sum += widen(residual.data[sample * residual.sample_stride +
                                 channel * residual.channel_stride +
                                 pixel * residual.pixel_stride]);
    }
    return narrow<T>(activate(sum, activation, slope));
  }
};

}  // namespace convolith::cuda
