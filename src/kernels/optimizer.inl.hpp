#pragma once

// Steps of gradient descent, in place.

#include "kernels/activation.inl.hpp"
#include "kernels/training_table.hpp"
#include "simd/math.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
void sgd(const SgdPass<T>& pass) {
  const Vec<T> rate = broadcast(pass.rate);
  const Vec<T> momentum = broadcast(pass.momentum);
  const Vec<T> decay = broadcast(pass.decay);
  for_vectors<T>(pass.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
    const Vec<T> parameter = load_upto(pass.parameter + i, lanes);
    const Vec<T> gradient =
        multiply_add(parameter, decay, load_upto(pass.gradient + i, lanes));
    Vec<T> step = gradient;
    if (pass.velocity != nullptr) {
      const Vec<T> velocity =
          multiply_add(momentum, load_upto(pass.velocity + i, lanes), gradient);
      store_upto<T>(pass.velocity + i, velocity, lanes);
      step = pass.nesterov ? multiply_add(momentum, velocity, gradient) : velocity;
    }
    store_upto<T>(pass.parameter + i, parameter - rate * step, lanes);
  });
}

template <class T>
void adam(const AdamPass<T>& pass) {
  const Vec<T> beta1 = broadcast(pass.beta1);
  const Vec<T> beta2 = broadcast(pass.beta2);
  const Vec<T> rest1 = broadcast(T(1) - pass.beta1);
  const Vec<T> rest2 = broadcast(T(1) - pass.beta2);
  const Vec<T> rate = broadcast(pass.rate);
  const Vec<T> root_correction = broadcast(pass.root_correction);
  const Vec<T> epsilon = broadcast(pass.epsilon);
  const Vec<T> decay = broadcast(pass.decay);
  const Vec<T> shrink = broadcast(pass.shrink);
  for_vectors<T>(pass.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
    const Vec<T> parameter = load_upto(pass.parameter + i, lanes);
    const Vec<T> gradient =
        multiply_add(parameter, decay, load_upto(pass.gradient + i, lanes));
    const Vec<T> mean = beta1 * load_upto(pass.mean + i, lanes) + rest1 * gradient;
    const Vec<T> square = beta2 * load_upto(pass.square + i, lanes) + rest2 * gradient * gradient;
    store_upto<T>(pass.mean + i, mean, lanes);
    store_upto<T>(pass.square + i, square, lanes);
    const Vec<T> root = multiply_add(square_root<T>(square), root_correction, epsilon);
    store_upto<T>(pass.parameter + i, parameter * shrink - rate * mean / root, lanes);
  });
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
