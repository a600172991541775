#include "winograd/winograd.hpp"

#include "kernels/cook_toom.hpp"
#include "tolerance.hpp"
#include "winograd/execution.hpp"

namespace convolith {

Support Winograd::supports(const ConvProblem& problem) const {
  std::string reason;
  if (WinogradGeometry::make(problem, outputs_, &reason)) return {};
  return Support::no(reason);
}

double Winograd::cost(const ConvProblem& problem, const Machine& machine) const {
  const auto geometry = *WinogradGeometry::make(problem, outputs_, nullptr);
  const bool wide = problem.dtype == DType::float64;
  return 2.0 * static_cast<double>(problem.batch * problem.groups * geometry.tiles() *
                                   geometry.frequencies() * geometry.reduced *
                                   geometry.reduced_taps * geometry.produced) /
             machine.flops_per_second[wide] + 1e-5;
}

Tolerance Winograd::tolerance(const ConvProblem& problem) const {
  return {summation_bound(problem.dtype, reduction_terms(problem))};
}

std::unique_ptr<const Execution> Winograd::prepare(const ConvProblem& problem,
                                                   const Machine& machine, int threads) const {
  return make_winograd(problem, *WinogradGeometry::make(problem, outputs_, nullptr), machine,
                       threads);
}

}  // namespace convolith
