#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Backward-weight with output pixels as lanes, for so few channels of both maps that vectors of
/// channels would mostly be empty.
std::unique_ptr<const Execution> make_pixel_gradient(const ConvProblem& problem,
                                                     const Machine& machine, int threads);

/// Whether it can.
bool takes_pixel_gradient(const ConvProblem& problem) noexcept;

/// Of a pixel and tap, in multiply-adds of vectors.
double pixel_gradient_cycles(const ConvProblem& problem, int lanes);

}  // namespace convolith
