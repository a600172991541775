// Implicit GEMM on tensor cores for float16 and bfloat16, with sums in float32.

#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/tensor_cores.hpp"
#include "tolerance.hpp"

namespace convolith::cuda {
namespace {

class TensorGemmAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "tensor_gemm"; }
  const char* summary() const noexcept override {
    return "a matrix product of gathered pixels on tensor cores";
  }
  Support supports(const ConvProblem& problem) const override {
    if (problem.dtype != DType::float16 && problem.dtype != DType::bfloat16) {
      return Support::no("dtype is neither float16 nor bfloat16");
    }
    return tensor_gemm_supports(problem);
  }
  double cost(const ConvProblem& problem, const Machine& machine) const override {
    return tensor_gemm_cost(problem, machine);
  }
  double packing_cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) return 0;
    return machine.device->launch_seconds +
           4.0 * static_cast<double>(problem.weight_size()) / machine.bytes_per_second;
  }
  /// Tensor cores add up in float32, but truncate: each addition may err by 2 u.
  Tolerance tolerance(const ConvProblem& problem) const override {
    // Gradients of weights are added up in parts of 4096 terms, and these by threads.
    const double all = static_cast<double>(reduction_terms(problem));
    const double terms = problem.direction == Direction::backward_weight
                             ? std::min(all, 4096.0 + all / 4096.0)
                             : all;
    const double sum = 2 * (terms + 16) * unit_roundoff(DType::float32);
    return {sum + (1 + sum) * unit_roundoff(problem.dtype), 0};
  }
  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int) const override {
    if (problem.direction == Direction::backward_weight) {
      return make_tensor_weight_gradient(problem, machine);
    }
    return make_tensor_gemm(problem);
  }
};

}  // namespace

const Algorithm& tensor_gemm_algorithm() {
  static const TensorGemmAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith::cuda
