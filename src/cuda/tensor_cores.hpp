#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith::cuda {

/// Implicit GEMM on tensor cores, forward and backward-input in phases. float32 is rounded to tf32.
std::unique_ptr<const Execution> make_tensor_gemm(const ConvProblem& problem);

/// The gradient of weights, of float16 and bfloat16 alone: transposed reads have 16 bits.
std::unique_ptr<const Execution> make_tensor_weight_gradient(const ConvProblem& problem,
                                                             const Machine& machine);

/// Why they cannot serve, or yes.
Support tensor_gemm_supports(const ConvProblem& problem);
double tensor_gemm_cost(const ConvProblem& problem, const Machine& machine);

}  // namespace convolith::cuda
