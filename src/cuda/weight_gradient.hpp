#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith::cuda {

/// The gradient of weights as a matrix product of dy, transposed, and the patches of x, which are
/// gathered as it goes. Pixels are cut into parts that are added up in order.
std::unique_ptr<const Execution> make_weight_gradient(const ConvProblem& problem,
                                                      const Machine& machine);

}  // namespace convolith::cuda
