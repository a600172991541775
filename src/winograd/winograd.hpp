#pragma once

#include "convolith/algorithm.hpp"

namespace convolith {

/// Convolution by F(m, 3), or F(m, 5): tiles of m x m outputs, or m outputs of a row or column.
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

}  // namespace convolith
