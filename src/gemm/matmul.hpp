#pragma once

#include <cstdint>
#include <vector>

#include "convolith/types.hpp"

namespace convolith {

/// A strided matrix; strides count elements.
struct MatmulFactor {
  const void* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t row_stride = 0, column_stride = 0;
};

/// An axis over which products are stacked; stride 0 repeats a factor.
struct StackAxis {
  std::int64_t extent, a_stride, b_stride;
};

/// C = activation(A B + bias) for every index of the stack; C is contiguous.
struct MatmulProblem {
  DType dtype = DType::float32;
  MatmulFactor a{}, b{};
  std::vector<StackAxis> stack{};
  const void* bias = nullptr;  ///< of each column; null: none
  Activation activation = Activation::none;
  double slope = 0.01;
  void* c = nullptr;

  double flops() const noexcept;
};

/// The same bits for any number of threads.
void matmul(const MatmulProblem& problem, int threads);

}  // namespace convolith
