#pragma once

// The part of the table that training needs besides convolutions: activations, normalization,
// softmax, optimizers.

#include <cstdint>

#include "convolith/types.hpp"

namespace convolith {

/// y[i] = activation(x[i] + residual[i]), for i < count
template <class T>
struct ActivationPass {
  Activation activation;
  T slope;
  std::int64_t count;
  const T* x;
  const T* residual;  ///< null: none
  T* y;
  bool past_caches;  ///< y is written so
};

/// dx[i] = dy[i] * activation'(at[i]), for i < count
template <class T>
struct ActivationGradient {
  Activation activation;
  T slope;
  bool from_output;  ///< `at` is what the activation gave, not what it was given
  std::int64_t count;
  const T* dy;
  const T* at;
  T* dx;
  bool past_caches;  ///< dx is written so
};

/// Rows of touching elements, row_stride apart. In `planes` every element is of one channel, whose
/// coefficients are the only ones; in `rows` element i of a row is of channel i.
template <class T>
struct NormRows {
  std::int64_t rows, count;
  std::int64_t x_stride, residual_stride, y_stride;
  const T* x;
  const T* residual;  ///< null: none
  T* y;
  const T* mean;
  const T* scale;
  const T* bias;
  Activation activation;
  T slope;
  bool past_caches;  ///< y is written so
};

/// The gradient of the same; g is dy times the activation's derivative.
template <class T>
struct NormGradientRows {
  std::int64_t rows, count;
  std::int64_t x_stride, y_stride, dy_stride, dx_stride, dresidual_stride;
  const T* dy;
  const T* x;
  const T* y;    ///< null: no activation, or its argument is (x - mean) * scale + bias
  T* dx;
  T* dresidual;  ///< g; null: not written
  const T* mean;
  const T* bias;
  const T* scale;   ///< dx = scale * g + slope_of_x * (x - mean) + offset
  const T* slope_of_x;
  const T* offset;
  Activation activation;
  T slope;
  bool past_caches;  ///< dx and dresidual are written so
};

/// Count, mean and sum of squared distances from the mean, of each channel.
struct Moments {
  double count;
  double* mean;
  double* squares;
};

/// A stack of softmaxes over `count` elements, `stride` apart: element j of softmax i is at
/// i + j * stride; with stride 1 at i * count + j.
template <class T>
struct SoftmaxPass {
  bool logarithm;
  std::int64_t stacked, count, stride;
  const T* x;  ///< backward: y
  const T* dy;
  T* y;        ///< backward: dx
};

/// Cross-entropy of a stack of distributions that lie as in SoftmaxPass:
///   loss = w (log sum exp x - x[target]) + sum over j of smooth_j (log sum exp x - x_j),
/// where w = (1 - smoothing) weight[target], smooth_j = smoothing / count * weight_j; 0 where
/// ignored. Backward: dx = scale * its gradient.
template <class T>
struct CrossEntropyPass {
  std::int64_t stacked, count, stride;
  const T* x;
  const std::int64_t* target;  ///< stacked of them
  const T* weight;             ///< of each class; null: 1
  T weight_sum;
  T smoothing;
  std::int64_t ignored;
  T* loss;         ///< forward, of each; null: backward
  T* dx;
  const T* scale;  ///< one for each, or
  bool one_scale;  ///< one for all
};

template <class T>
struct SgdPass {
  std::int64_t count;
  T* parameter;
  const T* gradient;
  T* velocity;  ///< null: no momentum
  T rate, momentum, decay;
  bool nesterov;
};

template <class T>
struct AdamPass {
  std::int64_t count;
  T* parameter;
  const T* gradient;
  T* mean;
  T* square;
  T beta1, beta2;
  T rate;             ///< divided by 1 - beta1^step
  T root_correction;  ///< 1 / sqrt(1 - beta2^step)
  T epsilon;
  T decay;            ///< added to the gradient, times the parameter
  T shrink;           ///< the parameter is multiplied by it first
};

template <class T>
struct TrainingKernels {
  void (*activation)(const ActivationPass<T>& pass);
  void (*activation_gradient)(const ActivationGradient<T>& pass);

  /// The moments of the elements of one channel, and of touching channels; `spare` holds
  /// 2 * channels elements.
  void (*moments_of_planes)(std::int64_t rows, std::int64_t count, const T* x,
                            std::int64_t row_stride, Moments& moments);
  void (*moments_of_rows)(std::int64_t rows, std::int64_t channels, const T* x,
                          std::int64_t row_stride, T* spare, Moments& moments);
  void (*merge_moments)(std::int64_t channels, Moments& into, const Moments& from);

  void (*normalize_planes)(const NormRows<T>& rows);
  void (*normalize_rows)(const NormRows<T>& rows);

  /// sums[c] = sum of g, products[c] = sum of g (x - mean); `spare` as above.
  void (*gradient_sums_of_planes)(const NormGradientRows<T>& rows, double* sums, double* products);
  void (*gradient_sums_of_rows)(const NormGradientRows<T>& rows, T* spare, double* sums,
                                double* products);
  void (*gradient_of_planes)(const NormGradientRows<T>& rows);
  void (*gradient_of_rows)(const NormGradientRows<T>& rows);

  void (*softmax)(const SoftmaxPass<T>& pass);
  void (*softmax_gradient)(const SoftmaxPass<T>& pass);
  void (*cross_entropy)(const CrossEntropyPass<T>& pass);

  void (*sgd)(const SgdPass<T>& pass);
  void (*adam)(const AdamPass<T>& pass);
};

}  // namespace convolith
