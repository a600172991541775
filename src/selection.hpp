#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "convolith/plan.hpp"

namespace convolith {

/// What a choice is among: the algorithms of a processor or device, and what they would run on.
struct Field {
  std::span<const Algorithm* const> algorithms;
  Machine machine;
  int threads;              ///< of the executions that are prepared
  const char* cost_of;      ///< what predicted times are for, as explain() says it
};

struct Choice {
  const Algorithm* algorithm;
  std::unique_ptr<const Execution> execution;
};

/// Every algorithm of the field on `problem`, with reasons where one cannot serve.
std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options,
                                  const Field& field);

/// The cheapest one that serves; Unsupported if there is nothing. Prepares none.
const Algorithm& choose(const ConvProblem& problem, const PlanOptions& options,
                        const Field& field);

/// The same, prepared, of those within the limit of workspace. Throws Unsupported with every
/// algorithm's reason.
Choice choose_prepared(const ConvProblem& problem, const PlanOptions& options, const Field& field);

/// One line for each algorithm: whether it was chosen or refused, why, and the predicted cost.
std::string explain_choice(const ConvProblem& problem, const PlanOptions& options,
                           const Field& field, const Algorithm& chosen);

}  // namespace convolith
