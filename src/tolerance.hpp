#pragma once

#include <algorithm>
#include <cstdint>

#include "convolith/problem.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// Componentwise bound of a sum of `terms` products in which kernels fold registers into memory
/// after kMaxChain terms at the latest and, borders apart, kMaxChain / 4 at the earliest:
/// |error| <= depth * u * sum |products|, to first order in the unit roundoff u (Higham, Accuracy
/// and Stability of Numerical Algorithms, section 4.2).
inline double summation_bound(DType dtype, std::int64_t terms) noexcept {
  const double unit_roundoff = dtype == DType::float32 ? 0x1p-24 : 0x1p-53;
  const auto in_registers = static_cast<double>(std::min<std::int64_t>(terms, kMaxChain));
  const double folds = static_cast<double>(terms) / (kMaxChain / 4.0);
  constexpr double kEpilogueAndParts = 16;
  return (in_registers + folds + kEpilogueAndParts) * unit_roundoff;
}

/// Products that are summed into one element of what the direction computes.
inline std::int64_t reduction_terms(const ConvProblem& problem) noexcept {
  switch (problem.direction) {
    case Direction::forward: return problem.in_channels_per_group() * problem.taps();
    case Direction::backward_input: return problem.out_channels_per_group() * problem.taps();
    case Direction::backward_weight: return problem.batch * problem.output_pixels();
  }
  return 0;
}

}  // namespace convolith
