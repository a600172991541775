#pragma once

#include <cstdint>

#include "convolith/problem.hpp"
#include "convolith/tensor.hpp"

namespace convolith {

/// sums[c] = sum of maps[n, c, p] over samples and pixels, in an order that does not depend on the
/// number of threads and without a chain of more than 512 additions. std::bad_alloc is possible.
void sum_over_batch_and_pixels(DType dtype, Layout layout, const TensorView& maps,
                               std::int64_t batch, std::int64_t channels, std::int64_t pixels,
                               void* sums, int threads);

}  // namespace convolith
