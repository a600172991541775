#pragma once

#include <memory>

#include "convolith/algorithm.hpp"

namespace convolith {

/// Typed<T>(problem, rest...) for the problem's dtype.
template <template <class> class Typed, class... Rest>
std::unique_ptr<const Execution> make_typed(const ConvProblem& problem, const Rest&... rest) {
  if (problem.dtype == DType::float32) return std::make_unique<Typed<float>>(problem, rest...);
  return std::make_unique<Typed<double>>(problem, rest...);
}

}  // namespace convolith
