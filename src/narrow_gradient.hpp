#pragma once

#include <memory>
#include <string>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Backward-weight in groups of 1, 2, 4 or 8 channels, as many in as out: a vector of channels of y
/// is multiplied by the channels of x in the same groups, tap by tap.
std::unique_ptr<const Execution> make_narrow_gradient(const ConvProblem& problem,
                                                      const Machine& machine, int threads);

/// Why not, or nothing.
std::string narrow_gradient_refusal(const ConvProblem& problem);

double narrow_gradient_cost(const ConvProblem& problem, const Machine& machine);

}  // namespace convolith
