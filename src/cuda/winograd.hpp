#pragma once

#include "convolith/algorithm.hpp"

namespace convolith::cuda {

/// Convolution by F(m x m, 3 x 3) on CUDA devices: transforms apart from the products.
class Winograd final : public Algorithm {
 public:
  Winograd(const char* name, const char* summary, int outputs)
      : name_(name), summary_(summary), outputs_(outputs) {}

  const char* name() const noexcept override { return name_; }
  const char* summary() const noexcept override { return summary_; }
  bool strict() const noexcept override { return false; }
  Support supports(const ConvProblem& problem) const override;
  double cost(const ConvProblem& problem, const Machine& machine) const override;
  double packing_cost(const ConvProblem& problem, const Machine& machine) const override;
  Tolerance tolerance(const ConvProblem& problem) const override;
  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override;

 private:
  const char* name_;
  const char* summary_;
  int outputs_;  ///< m
};

}  // namespace convolith::cuda
