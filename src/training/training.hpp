#pragma once

// Operations of a training step besides convolution and pooling. Every result is the same bits for
// any number of threads: work is cut and sums are ordered by the problem.

#include <cstdint>
#include <vector>

#include "convolith/tensor.hpp"
#include "convolith/types.hpp"

namespace convolith {

struct ActivationSpec {
  Activation activation = Activation::none;
  double slope = 0.01;  ///< of leaky_relu
};

/// Whether the derivative follows from the result.
bool differentiable_from_output(const ActivationSpec& spec) noexcept;

/// Threads for work of that many elements read or written: fewer than `threads` where a fork and
/// a join would cost more than they save.
int threads_for(std::int64_t elements, int threads) noexcept;

// ---- activations: all arrays are contiguous and hold `count` elements ------------------------

void activate(DType dtype, const ActivationSpec& spec, std::int64_t count, const void* x,
              const void* residual, void* y, int threads);
void activate_backward(DType dtype, const ActivationSpec& spec, bool from_output,
                       std::int64_t count, const void* dy, const void* at, void* dx, int threads);

// ---- batch normalization ---------------------------------------------------------------------

struct BatchNorm {
  DType dtype = DType::float32;
  Layout layout = Layout::channels_first;
  std::int64_t batch = 1, channels = 1, pixels = 1;
  bool training = false;
  ActivationSpec activation{};
};

/// y = activation((x - mean) * (inv_std * weight) + bias + residual). Arrays of channels are
/// contiguous, of the problem's dtype; weight, bias, residual and running statistics may be null.
struct BatchNormArguments {
  TensorView x{}, residual{}, y{};
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* running_mean = nullptr;  ///< training: updated; else read
  void* running_var = nullptr;
  void* mean = nullptr;          ///< written: of the batch, or the running one
  void* inv_std = nullptr;
  double momentum = 0.1, eps = 1e-5;
};
void batch_norm(const BatchNorm& problem, const BatchNormArguments& arguments, int threads);

struct BatchNormGradients {
  TensorView dy{}, x{}, y{}, dx{}, dresidual{};  ///< dresidual: may be null
  const void* weight = nullptr;
  const void* bias = nullptr;  ///< read where y is null and there is an activation
  const void* mean = nullptr;
  const void* inv_std = nullptr;
  void* dweight = nullptr;
  void* dbias = nullptr;
};
void batch_norm_backward(const BatchNorm& problem, const BatchNormGradients& arguments,
                         int threads);

// ---- softmax and cross-entropy: contiguous arrays [outer, count, inner] ----------------------

struct Distributions {
  DType dtype = DType::float32;
  std::int64_t outer = 1, count = 1, inner = 1;
};

void softmax(const Distributions& shape, bool logarithm, const void* x, void* y, int threads);
void softmax_backward(const Distributions& shape, bool logarithm, const void* dy, const void* y,
                      void* dx, int threads);

enum class Reduction : std::uint8_t { none, mean, sum };

struct CrossEntropy {
  Distributions shape{};
  Reduction reduction = Reduction::mean;
  double smoothing = 0;
  std::int64_t ignored = -100;
  const std::int64_t* target = nullptr;  ///< [outer, inner], of classes or `ignored`
  const void* weight = nullptr;          ///< of each class; null: 1
};
/// Writes [outer, inner] losses, or their one reduction.
void cross_entropy(const CrossEntropy& problem, const void* x, void* loss, int threads);
/// dy is of the shape of the loss.
void cross_entropy_backward(const CrossEntropy& problem, const void* dy, const void* x, void* dx,
                            int threads);

// ---- optimizers: contiguous arrays, changed in place -----------------------------------------

/// A parameter with its gradient, and what is kept for it.
struct Learned {
  DType dtype;
  std::int64_t count;
  void* parameter;
  const void* gradient;
  void* kept[2];  ///< velocity, where there is momentum; mean and square
};

struct SgdStep {
  double rate, momentum, decay;
  bool nesterov;
};
void sgd_step(const SgdStep& step, const std::vector<Learned>& all, int threads);

struct AdamStep {
  double rate, beta1, beta2, epsilon, decay;
  bool decoupled;  ///< decay shrinks the parameter instead of adding to the gradient
  std::int64_t step;  ///< from 1
};
void adam_step(const AdamStep& step, const std::vector<Learned>& all, int threads);

}  // namespace convolith
