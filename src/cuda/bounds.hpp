#pragma once

#include "tolerance.hpp"

namespace convolith::cuda {

/// Of a sum that is accumulated in float32, or in float64 for float64, in chains as
/// summation_bound() has them, and then rounded to the dtype: once for the sum and once for each
/// operation of the epilogue, which is done before it is rounded.
inline double accumulation_bound(const ConvProblem& problem) noexcept {
  const bool wide = problem.dtype == DType::float64;
  const double sum =
      summation_bound(wide ? DType::float64 : DType::float32, reduction_terms(problem));
  const bool narrowed = problem.dtype == DType::float16 || problem.dtype == DType::bfloat16;
  return narrowed ? sum + (1 + sum) * unit_roundoff(problem.dtype) : sum;
}

}  // namespace convolith::cuda
