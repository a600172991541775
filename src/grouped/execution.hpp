#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Forward or backward-input in one layout.
std::unique_ptr<const Execution> make_grouped_channels_last(const ConvProblem& problem,
                                                            const Machine& machine, int threads);

std::unique_ptr<const Execution> make_grouped_channels_first(const ConvProblem& problem,
                                                             const Machine& machine, int threads);

}  // namespace convolith
