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

/// Whether channels of a depthwise problem in channels_last are too few for a vector, and column
/// sums serve; and those, for maps whose pixels have no other channels between them. The others are
/// left to `otherwise`.
bool sums_columns_in_turn(const ConvProblem& problem, const Machine& machine);
std::unique_ptr<const Execution> make_column_sums_in_turn(
    const ConvProblem& problem, const Machine& machine, int threads,
    std::shared_ptr<const Execution> otherwise);

}  // namespace convolith
