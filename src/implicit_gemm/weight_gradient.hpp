#pragma once

#include <memory>
#include <string>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Backward-weight as a product that sums over pixels. Maps are packed a block of pixels at a time,
/// one panel of source channels for all taps.
std::unique_ptr<const Execution> make_weight_gradient(const ConvProblem& problem,
                                                      const Machine& machine, int threads);

/// Why not, or nothing.
std::string weight_gradient_refusal(const ConvProblem& problem);

double weight_gradient_cost(const ConvProblem& problem, const Machine& machine);

}  // namespace convolith
