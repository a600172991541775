#pragma once

#include <cstdint>

#include "convolith/pooling.hpp"
#include "convolith/tensor.hpp"

namespace convolith {

// Poolings that are plain loops over windows, in float64 for both dtypes.

/// y = (sum |x|^p)^(1/p), scaled by the window's greatest |x| against overflow and underflow.
template <class T>
void lp_forward(const PoolProblem& problem, const Maps<T>& x, const Maps<T>& y, int threads);

/// dx += dy * sign(x) * (|x| / y)^(p - 1); for p = inf at the element that max pooling of |x|
/// chooses.
template <class T>
void lp_backward(const PoolProblem& problem, const Maps<T>& dy, const Maps<T>& x,
                 const Maps<T>& dx, int threads);

/// Draws the first element whose cumulative weight exceeds uniform * total; `indices` may be null.
template <class T>
void stochastic_draw(const PoolProblem& problem, const Maps<T>& x, const Maps<double>& uniforms,
                     const Maps<T>& y, const Maps<std::int64_t>& indices, int threads);

/// The mean weighted by the elements' probabilities, and its gradient.
template <class T>
void stochastic_mean(const PoolProblem& problem, const Maps<T>& x, const Maps<T>& y, int threads);
template <class T>
void stochastic_mean_backward(const PoolProblem& problem, const Maps<T>& dy, const Maps<T>& x,
                              const Maps<T>& dx, int threads);

}  // namespace convolith
