#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Whether a problem in channels_first, depthwise or in groups of few channels, can be done by
/// column sums and gains by it: with a square kernel of odd extent, not too large, of stride 1, and
/// rows of outputs that are as long as those of the source.
bool sums_columns(const ConvProblem& problem, const Machine& machine);

/// Forward, or backward-input.
std::unique_ptr<const Execution> make_column_sums(const ConvProblem& problem,
                                                  const Machine& machine, int threads);

}  // namespace convolith
