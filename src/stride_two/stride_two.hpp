#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Whether a backward-input has kernels of its own: of two axes, stride 2, a small square kernel,
/// and groups of few channels, as many out as in.
bool is_stride_two(const ConvProblem& problem, const Machine& machine) noexcept;

std::unique_ptr<const Execution> make_stride_two(const ConvProblem& problem, const Machine& machine,
                                                 int threads);

}  // namespace convolith
