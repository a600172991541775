#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Forward, or backward-input without a channel multiplier, in one layout.
std::unique_ptr<const Execution> make_depthwise_channels_last(const ConvProblem& problem,
                                                              const Machine& machine, int threads);

std::unique_ptr<const Execution> make_depthwise_channels_first(const ConvProblem& problem,
                                                               const Machine& machine, int threads);

/// Whether channels_first costs less by way of channels_last, and that.
bool is_worth_transposing(const ConvProblem& problem, const Machine& machine) noexcept;
std::unique_ptr<const Execution> make_depthwise_transposed(const ConvProblem& problem,
                                                           const Machine& machine, int threads);

}  // namespace convolith
