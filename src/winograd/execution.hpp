#pragma once

#include <memory>

#include "winograd/geometry.hpp"

namespace convolith {

std::unique_ptr<const Execution> make_winograd(const ConvProblem& problem,
                                               const WinogradGeometry& geometry,
                                               const Machine& machine, int threads);

}  // namespace convolith
