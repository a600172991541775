#pragma once

// Activations over long rows, and their derivatives.

#include "kernels/elementwise.inl.hpp"
#include "kernels/training_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <Activation kValue>
struct ActivationConstant {
  static constexpr Activation value = kValue;
};

/// Calls body(ActivationConstant<a>{}) for a = activation.
template <class Body>
CONVOLITH_INLINE void with_activation(Activation activation, const Body& body) {
  switch (activation) {
    case Activation::none: return body(ActivationConstant<Activation::none>{});
    case Activation::relu: return body(ActivationConstant<Activation::relu>{});
    case Activation::relu6: return body(ActivationConstant<Activation::relu6>{});
    case Activation::leaky_relu: return body(ActivationConstant<Activation::leaky_relu>{});
    case Activation::tanh: return body(ActivationConstant<Activation::tanh>{});
    case Activation::sigmoid: return body(ActivationConstant<Activation::sigmoid>{});
    case Activation::silu: return body(ActivationConstant<Activation::silu>{});
    case Activation::hardswish: return body(ActivationConstant<Activation::hardswish>{});
  }
}

/// Calls body(i, lanes) for every vector of [0, count), where lanes is kLanes but for the last.
template <class T, class Body>
CONVOLITH_INLINE void for_vectors(std::int64_t count, const Body& body) {
  std::int64_t i = 0;
  CONVOLITH_UNROLL(4)
  for (; i + kLanes<T> <= count; i += kLanes<T>) body(i, kLanes<T>);
  if (i < count) body(i, static_cast<int>(count - i));
}

/// Rows that a pass writes once and in order: past the caches, if it asks for that and they consist
/// of whole vectors but for their ends.
template <class T>
class WrittenRows {
 public:
  CONVOLITH_INLINE WrittenRows(const T* first, std::int64_t row_stride, bool past_caches)
      : past_caches_(past_caches && rows_aligned(first, row_stride, kVectorBytes)) {}
  CONVOLITH_INLINE void write(T* at, Vec<T> v, int lanes) const {
    if (past_caches_ && lanes == kLanes<T>) {
      stream(at, v);
    } else {
      store_upto<T>(at, v, lanes);
    }
  }
  CONVOLITH_INLINE void finish() const {
    if (past_caches_) drain_streams();
  }

 private:
  bool past_caches_;
};

/// dy times the derivative, of which `y` is the activation's result. Where the derivative is 0 so
/// is the product, whatever dy.
template <class T, Activation kActivation>
CONVOLITH_INLINE Vec<T> gradient_at_output(Vec<T> dy, Vec<T> y, Vec<T> slope) {
  keep(dy);  // a load masked by the comparison would wait for y, and is not prefetched
  const Vec<T> none = zero<T>();
  const Vec<T> one = broadcast<T>(T(1));
  switch (kActivation) {
    case Activation::relu: return y <= none ? none : dy;
    case Activation::relu6:
      return y <= none ? none : y >= broadcast<T>(T(6)) ? none : dy;
    case Activation::leaky_relu: return y > none ? dy : fused_product<T>(dy, slope);
    case Activation::tanh: return fused_product<T>(dy, one - y * y);
    case Activation::sigmoid: return fused_product<T>(dy, y * (one - y));
    default: return dy;
  }
}

/// The same, of which `x` is what the activation was given.
template <class T, Activation kActivation>
CONVOLITH_INLINE Vec<T> gradient_at_input(Vec<T> dy, Vec<T> x, Vec<T> slope) {
  const Vec<T> one = broadcast<T>(T(1));
  switch (kActivation) {
    case Activation::tanh: {
      // 1 - tanh^2 = 4 e^-2|x| / (1 + e^-2|x|)^2, without cancellation
      const Vec<T> e = exponential<T>(scaled_exponent<T>(absolute<T>(x), T(-2)));
      const Vec<T> root = broadcast<T>(T(2)) / (one + e);
      return fused_product<T>(dy, e * root * root);
    }
    case Activation::sigmoid: {
      const Vec<T> e = exponential<T>(scaled_exponent<T>(absolute<T>(x), T(-1)));
      const Vec<T> root = one / (one + e);
      return fused_product<T>(dy, e * root * root);
    }
    case Activation::silu: {
      const Vec<T> e = exponential<T>(scaled_exponent<T>(absolute<T>(x), T(-1)));
      const Vec<T> root = one / (one + e);
      const Vec<T> logistic_of_x = x < zero<T>() ? e * root : root;
      return fused_product<T>(dy, logistic_of_x + x * (e * root * root));
    }
    case Activation::hardswish: {
      const Vec<T> three = broadcast<T>(T(3));
      const Vec<T> slope_at_x = x * broadcast<T>(T(1) / T(3)) + broadcast<T>(T(0.5));
      const Vec<T> inner = fused_product<T>(dy, slope_at_x);
      const Vec<T> upper = x >= three ? dy : inner;
      return x <= zero<T>() - three ? zero<T>() : upper;
    }
    default: return gradient_at_output<T, kActivation>(dy, x, slope);
  }
}

template <class T>
void activation_pass(const ActivationPass<T>& pass) {
  const Vec<T> slope = broadcast(pass.slope);
  with_activation(pass.activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    const T* x = pass.x;
    const T* residual = pass.residual;
    T* y = pass.y;
    const WrittenRows<T> rows(y, 0, pass.past_caches);
    if (residual == nullptr) {
      for_vectors<T>(pass.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
        rows.write(y + i, activate<T, kActivation>(load_upto(x + i, lanes), slope), lanes);
      });
    } else {
      for_vectors<T>(pass.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
        const Vec<T> sum = load_upto(x + i, lanes) + load_upto(residual + i, lanes);
        rows.write(y + i, activate<T, kActivation>(sum, slope), lanes);
      });
    }
    rows.finish();
  });
}

template <class T>
void activation_gradient(const ActivationGradient<T>& pass) {
  const Vec<T> slope = broadcast(pass.slope);
  with_activation(pass.activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    const T* dy = pass.dy;
    const T* at = pass.at;
    T* dx = pass.dx;
    const WrittenRows<T> rows(dx, 0, pass.past_caches);
    if (pass.from_output) {
      for_vectors<T>(pass.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
        const Vec<T> g = gradient_at_output<T, kActivation>(load_upto(dy + i, lanes),
                                                            load_upto(at + i, lanes), slope);
        rows.write(dx + i, g, lanes);
      });
    } else {
      for_vectors<T>(pass.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
        const Vec<T> g = gradient_at_input<T, kActivation>(load_upto(dy + i, lanes),
                                                           load_upto(at + i, lanes), slope);
        rows.write(dx + i, g, lanes);
      });
    }
    rows.finish();
  });
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
