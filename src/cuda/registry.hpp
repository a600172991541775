#pragma once

#include <span>

#include "convolith/algorithm.hpp"

namespace convolith::cuda {

/// All algorithms of CUDA devices, in the order of cuda/algorithms.def.
std::span<const Algorithm* const> algorithms() noexcept;

}  // namespace convolith::cuda
