#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolith/algorithm.hpp"
#include "convolith/problem.hpp"

namespace convolith {

struct PlanOptions {
  std::string algorithm = "auto";
  Numerics numerics = Numerics::fast;
  bool packs_once = true;                        ///< false: weights are packed in every run
  int threads = 0;                               ///< 0: the library's current setting
  std::string isa{};                             ///< empty: the ISA in use
  std::optional<std::size_t> workspace_limit{};  ///< honoured by choosing another algorithm
};

/// How one algorithm stands to a problem.
struct Candidate {
  const Algorithm* algorithm;
  Support support;
  std::size_t workspace_bytes = 0;  ///< the last four: where supported
  std::size_t packed_bytes = 0;
  double cost_seconds = 0;
  Tolerance tolerance{};
};

/// Every algorithm of the registry on `problem`, with reasons where one cannot serve.
std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options);

/// What "auto" takes on `machine`, which need not be this one; Unsupported if there is nothing.
const Algorithm& choose(const ConvProblem& problem, Numerics numerics, const Machine& machine);

/// Problem, algorithm, ISA, threads, workspace size and, once packed, weights. Immutable; copies
/// share what they hold.
class Plan {
 public:
  /// Chooses among the candidates. Throws Unsupported with every algorithm's reason.
  Plan(const ConvProblem& problem, const PlanOptions& options);

  /// The same plan with the weights packed inside. `weight` is contiguous.
  Plan with_weights(const void* weight) const;

  /// Runs with workspace from the calling thread's arena; std::bad_alloc where it cannot be had.
  void run(const ConvArguments& arguments) const;

  const ConvProblem& problem() const noexcept { return problem_; }
  const Algorithm& algorithm() const noexcept { return *algorithm_; }
  const char* isa() const noexcept { return isa_; }
  int threads() const noexcept { return threads_; }
  bool packed() const noexcept { return packed_ != nullptr; }

  /// Whether a run is so short that the calling thread does it alone.
  bool brief() const noexcept { return brief_; }
  std::size_t workspace_bytes() const noexcept { return execution_->workspace_bytes(); }
  std::size_t packed_bytes() const noexcept { return execution_->packed_bytes(); }

  /// Which algorithms were considered or refused, why, and the predicted cost.
  std::string explain() const;

 private:
  ConvProblem problem_;
  PlanOptions options_;
  int threads_;
  bool brief_;
  const char* isa_ = nullptr;
  const Algorithm* algorithm_ = nullptr;
  std::shared_ptr<const Execution> execution_;
  std::shared_ptr<const void> packed_;
};

/// How many operations make a problem worth a second thread; returns what it was. For tests.
double set_brief_operations(double operations) noexcept;

}  // namespace convolith
