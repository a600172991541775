#pragma once

#include <memory>

#include "fft/tiling.hpp"

namespace convolith {

/// A convolution by transforms, of the problem that the dimensions were taken from.
std::unique_ptr<const Execution> prepare_fft(const ConvProblem& problem,
                                             const FftDimensions& dimensions,
                                             const FftTiling& tiling, const Machine& machine,
                                             int threads);

}  // namespace convolith
