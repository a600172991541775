#pragma once

#include <cstdint>
#include <vector>

#include "convolith/pooling.hpp"
#include "pooling/geometry.hpp"

namespace convolith {

/// The gradient kernel's view of a pooling, and what it points to. Arrays are left to the caller.
template <class T>
class GradientTables {
 public:
  /// `sums`: of all elements of a window, not of a chosen one.
  GradientTables(const PoolProblem& problem, const PoolWindows& windows, bool sums);
  GradientTables(const GradientTables&) = delete;
  GradientTables& operator=(const GradientTables&) = delete;

  PoolGradient<T> gradient{};

 private:
  std::vector<std::int64_t> first_[kSpatialAxes], count_[kSpatialAxes], step_[kSpatialAxes];
  std::vector<std::int64_t> offsets_, begins_;
};

/// Writes dx by the gradient kernel; `chosen` is empty for sums. Returns the number of choices
/// that were met.
template <class T>
std::int64_t run_gradient(const PoolProblem& problem, const PoolGradient<T>& gradient,
                          const Maps<T>& dy, const Maps<PoolIndex<T>>& chosen, const Maps<T>& dx,
                          const PoolingKernels<T>& kernels, int threads);

/// Whether few enough outputs read an input that its gradient is gathered; and that gradient, for
/// indices as a forward pass gave them. InvalidArgument for others.
bool gathers_choices(const PoolProblem& problem);
void gather_chosen(const PoolProblem& problem, const TensorView& dy, const TensorView& indices,
                   const TensorView& dx, int threads);

}  // namespace convolith
