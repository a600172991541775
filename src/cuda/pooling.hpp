#pragma once

#include "convolith/tensor.hpp"
#include "cuda/pool_windows.hpp"

namespace convolith::cuda {

/// Enqueue a pooling of x, or its gradient, on the current stream. Rules for NaN and ties are those
/// of convolith::pool. `indices` are int64, written forward where they have data; backward, where
/// they have data, dy goes there. Stochastic pooling is not among the ops.
void enqueue_pool(const PoolRecord& problem, const TensorView& x, const TensorView& y,
                  const TensorView& indices);
void enqueue_pool_backward(const PoolRecord& problem, const TensorView& dy, const TensorView& x,
                           const TensorView& indices, const TensorView& dx);

/// sums[c] = sum of maps over batch and pixels.
void enqueue_channel_sums(DType dtype, Layout layout, const TensorView& maps, std::int64_t batch,
                          std::int64_t channels, std::int64_t pixels, void* sums);

}  // namespace convolith::cuda
