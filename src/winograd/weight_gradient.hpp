#pragma once

#include <memory>
#include <string>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Backward-weight by F(r, m): the r x r taps of a kernel from tiles of m x m gradients of outputs,
/// summed over the tiles before the last transform. The phases of a dilation have tiles of their
/// own; every tap of the depth has sums of its own.

/// The number of F(m, r) in kWinogradSizes; -1, and the reason, where it cannot serve.
int winograd_weight_gradient_size(const ConvProblem& problem, int outputs, std::string* reason);

/// How many tiles are summed.
std::int64_t winograd_weight_gradient_tiles(const ConvProblem& problem, int size);

double winograd_weight_gradient_cost(const ConvProblem& problem, int outputs,
                                     const Machine& machine);

std::unique_ptr<const Execution> make_winograd_weight_gradient(const ConvProblem& problem,
                                                               int outputs,
                                                               const Machine& machine,
                                                               int threads);

}  // namespace convolith
