#pragma once

#include <memory>
#include <string>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Backward-weight by F(r, m): the r x r taps of a kernel from tiles of m x m gradients of outputs,
/// summed over the tiles before the last transform.

/// The number of F(m, r) in kWinogradSizes; -1, and the reason, where it cannot serve.
int winograd_weight_gradient_size(const ConvProblem& problem, int outputs, std::string* reason);

double winograd_weight_gradient_cost(const ConvProblem& problem, int outputs,
                                     const Machine& machine);

std::unique_ptr<const Execution> make_winograd_weight_gradient(const ConvProblem& problem,
                                                               int outputs,
                                                               const Machine& machine,
                                                               int threads);

}  // namespace convolith
