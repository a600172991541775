#include <algorithm>
#include <cmath>

#include "arithmetic.hpp"
#include "runtime/threads.hpp"
#include "training/kernels.hpp"
#include "training/training.hpp"

namespace convolith {
namespace {

/// Calls body(begin, end) for parts of [0, count) in whole cache lines.
template <class Body>
void for_parts(std::int64_t count, int threads, const Body& body) {
  constexpr std::int64_t kGrain = 256, kTogether = 64;
  parallel_ranges(threads, divide_up(count, kGrain), kTogether, [&](const Range& grains, int) {
    body(grains.begin * kGrain, std::min(count, grains.end * kGrain));
  });
}

template <class T>
void activate_typed(const ActivationSpec& spec, std::int64_t count, const void* x,
                    const void* residual, void* y, int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const bool past_caches = results_past_caches<T>(count, residual != nullptr ? 3 : 2);
  for_parts(count, threads, [&](std::int64_t begin, std::int64_t end) {
    ActivationPass<T> pass{
        spec.activation, static_cast<T>(spec.slope), end - begin, static_cast<const T*>(x) + begin,
        nullptr,         static_cast<T*>(y) + begin, past_caches};
    if (residual != nullptr) pass.residual = static_cast<const T*>(residual) + begin;
    kernels.activation(pass);
  });
}

template <class T>
void activate_backward_typed(const ActivationSpec& spec, bool from_output, std::int64_t count,
                             const void* dy, const void* at, void* dx, int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const bool past_caches = results_past_caches<T>(count, 3);
  for_parts(count, threads, [&](std::int64_t begin, std::int64_t end) {
    kernels.activation_gradient({spec.activation, static_cast<T>(spec.slope), from_output,
                                 end - begin, static_cast<const T*>(dy) + begin,
                                 static_cast<const T*>(at) + begin, static_cast<T*>(dx) + begin,
                                 past_caches});
  });
}

/// Calls body(parameter, begin, end) for parts of all parameters, which threads share as if they
/// were one.
template <class Body>
void for_parts_of_all(const std::vector<Learned>& all, int threads, const Body& body) {
  std::int64_t elements = 0;
  for (const Learned& learned : all) elements += learned.count;
  constexpr std::int64_t kPart = 64 * 1024;
  parallel_ranges(threads_for(elements, threads), elements, kPart, [&](Range range, int) {
    for (const Learned& learned : all) {
      const std::int64_t begin = std::clamp<std::int64_t>(range.begin, 0, learned.count);
      const std::int64_t end = std::clamp<std::int64_t>(range.end, 0, learned.count);
      if (begin < end) body(learned, begin, end);
      range = {range.begin - learned.count, range.end - learned.count};
    }
  });
}

template <class T>
void sgd_part(const SgdStep& step, const Learned& learned, std::int64_t begin, std::int64_t end) {
  SgdPass<T> pass{end - begin,
                  static_cast<T*>(learned.parameter) + begin,
                  static_cast<const T*>(learned.gradient) + begin,
                  nullptr,
                  static_cast<T>(step.rate),
                  static_cast<T>(step.momentum),
                  static_cast<T>(step.decay),
                  step.nesterov};
  if (step.momentum > 0) pass.velocity = static_cast<T*>(learned.kept[0]) + begin;
  training_kernels<T>().sgd(pass);
}

template <class T>
void adam_part(const AdamStep& step, const Learned& learned, std::int64_t begin,
               std::int64_t end) {
  const auto power = static_cast<double>(step.step);
  const double rate = step.rate / (1 - std::pow(step.beta1, power));
  const double root_correction = 1 / std::sqrt(1 - std::pow(step.beta2, power));
  training_kernels<T>().adam({end - begin, static_cast<T*>(learned.parameter) + begin,
                              static_cast<const T*>(learned.gradient) + begin,
                              static_cast<T*>(learned.kept[0]) + begin,
                              static_cast<T*>(learned.kept[1]) + begin, static_cast<T>(step.beta1),
                              static_cast<T>(step.beta2), static_cast<T>(rate),
                              static_cast<T>(root_correction), static_cast<T>(step.epsilon),
                              static_cast<T>(step.decoupled ? 0 : step.decay),
                              static_cast<T>(step.decoupled ? 1 - step.rate * step.decay : 1)});
}

}  // namespace

bool differentiable_from_output(const ActivationSpec& spec) noexcept {
  switch (spec.activation) {
    case Activation::silu:
    case Activation::hardswish: return false;
    case Activation::leaky_relu: return spec.slope >= 0;
    default: return true;
  }
}

int threads_for(std::int64_t elements, int threads) noexcept {
  constexpr std::int64_t kOfThread = 32768;
  return static_cast<int>(std::min<std::int64_t>(threads, 1 + elements / kOfThread));
}

void activate(DType dtype, const ActivationSpec& spec, std::int64_t count, const void* x,
              const void* residual, void* y, int threads) {
  const auto run = dtype == DType::float32 ? activate_typed<float> : activate_typed<double>;
  run(spec, count, x, residual, y, threads_for(count, threads));
}

void activate_backward(DType dtype, const ActivationSpec& spec, bool from_output,
                       std::int64_t count, const void* dy, const void* at, void* dx, int threads) {
  const auto run =
      dtype == DType::float32 ? activate_backward_typed<float> : activate_backward_typed<double>;
  run(spec, from_output, count, dy, at, dx, threads_for(count, threads));
}

void sgd_step(const SgdStep& step, const std::vector<Learned>& all, int threads) {
  for_parts_of_all(all, threads, [&](const Learned& learned, std::int64_t begin, std::int64_t end) {
    const auto run = learned.dtype == DType::float32 ? sgd_part<float> : sgd_part<double>;
    run(step, learned, begin, end);
  });
}

void adam_step(const AdamStep& step, const std::vector<Learned>& all, int threads) {
  for_parts_of_all(all, threads, [&](const Learned& learned, std::int64_t begin, std::int64_t end) {
    const auto run = learned.dtype == DType::float32 ? adam_part<float> : adam_part<double>;
    run(step, learned, begin, end);
  });
}

}  // namespace convolith
