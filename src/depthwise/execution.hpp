#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Forward, or backward-input without a channel multiplier, in one layout.
std::unique_ptr<const Execution> make_depthwise_channels_last(const ConvProblem& problem,
                                                              const Machine& machine, int threads);

std::unique_ptr<const Execution> make_depthwise_channels_first(const ConvProblem& problem,
                                                               const Machine& machine, int threads);

}  // namespace convolith
