#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "convolith/problem.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

inline double unit_roundoff(DType dtype) noexcept {
  switch (dtype) {
    case DType::float32: return 0x1p-24;
    case DType::float64: return 0x1p-53;
    case DType::float16: return 0x1p-11;
    case DType::bfloat16: return 0x1p-8;
  }
  return 0;
}

/// n roundings of a sum err by about sqrt(n) u of what is summed, and by more than kDeviations times
/// that with a probability of 2 exp(-kDeviations^2 / 2) (Higham & Mary, SIAM J. Sci. Comput. 41:5,
/// 2019).
inline double probable_bound(DType dtype, double roundings) noexcept {
  constexpr double kDeviations = 6;
  return kDeviations * std::sqrt(roundings) * unit_roundoff(dtype);
}

/// Componentwise bound of a sum of `terms` products in which kernels fold registers into memory
/// after kMaxChain terms at the latest and, borders apart, kMaxChain / 4 at the earliest:
/// |error| <= depth * u * sum |products|, to first order in the unit roundoff u (Higham, Accuracy
/// and Stability of Numerical Algorithms, section 4.2).
inline double summation_bound(DType dtype, std::int64_t terms) noexcept {
  const auto in_registers = static_cast<double>(std::min<std::int64_t>(terms, kMaxChain));
  const double folds = static_cast<double>(terms) / (kMaxChain / 4.0);
  constexpr double kEpilogueAndParts = 16;
  return (in_registers + folds + kEpilogueAndParts) * unit_roundoff(dtype);
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
