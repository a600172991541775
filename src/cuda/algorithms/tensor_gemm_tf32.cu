// Implicit GEMM on tensor cores for float32, whose operands are rounded to tf32: 11 bits of the
// significand are left. That is beyond the accuracy of float32, so nobody gets it unasked.

#include "cuda/device.hpp"
#include "cuda/tensor_cores.hpp"
#include "tolerance.hpp"

namespace convolith::cuda {
namespace {

class TensorGemmTf32Algorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "tensor_gemm_tf32"; }
  const char* summary() const noexcept override {
    return "a matrix product on tensor cores of operands rounded to tf32";
  }
  bool automatic() const noexcept override { return false; }
  Support supports(const ConvProblem& problem) const override {
    if (problem.dtype != DType::float32) return Support::no("dtype is not float32");
    return tensor_gemm_supports(problem);
  }
  double cost(const ConvProblem& problem, const Machine& machine) const override {
    return tensor_gemm_cost(problem, machine);
  }
  double packing_cost(const ConvProblem& problem, const Machine& machine) const override {
    return machine.device->launch_seconds +
           8.0 * static_cast<double>(problem.weight_size()) / machine.bytes_per_second;
  }
  /// Two operands rounded to 11 bits, and additions that may err by 2 u.
  Tolerance tolerance(const ConvProblem& problem) const override {
    const double terms = static_cast<double>(reduction_terms(problem));
    return {2.01 * 0x1p-11 + 2 * (terms + 16) * unit_roundoff(DType::float32), 0};
  }
  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine&,
                                           int) const override {
    return make_tensor_gemm(problem);
  }
};

}  // namespace

const Algorithm& tensor_gemm_tf32_algorithm() {
  static const TensorGemmTf32Algorithm algorithm;
  return algorithm;
}

}  // namespace convolith::cuda
