#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/threads.hpp"
#include "training/kernels.hpp"
#include "training/training.hpp"

namespace convolith {
namespace {

/// Calls body(offset of the first element, first distribution, distributions, stride).
template <class Body>
void for_distributions(const Distributions& shape, int threads, const Body& body) {
  if (shape.inner == 1) {
    parallel_for(threads, shape.outer, [&](std::int64_t i, int) {
      body(i * shape.count, i, std::int64_t{1}, std::int64_t{1});
    });
    return;
  }
  constexpr std::int64_t kBlock = 64;  // distributions: some cache lines of every class
  const std::int64_t blocks = (shape.inner + kBlock - 1) / kBlock;
  parallel_for(threads, shape.outer * blocks, [&](std::int64_t index, int) {
    const std::int64_t outer = index / blocks;
    const std::int64_t first = index % blocks * kBlock;
    body(outer * shape.count * shape.inner + first, outer * shape.inner + first,
         std::min(kBlock, shape.inner - first), shape.inner);
  });
}

int threads_of(const Distributions& shape, int threads) {
  return threads_for(4 * shape.outer * shape.count * shape.inner, threads);
}

template <class T>
void softmax_typed(const Distributions& shape, bool logarithm, const void* x, void* y,
                   int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  for_distributions(shape, threads_of(shape, threads),
                    [&](std::int64_t offset, std::int64_t, std::int64_t stacked,
                        std::int64_t stride) {
                      kernels.softmax({logarithm, stacked, shape.count, stride,
                                       static_cast<const T*>(x) + offset, nullptr,
                                       static_cast<T*>(y) + offset});
                    });
}

template <class T>
void softmax_backward_typed(const Distributions& shape, bool logarithm, const void* dy,
                            const void* y, void* dx, int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  for_distributions(shape, threads_of(shape, threads),
                    [&](std::int64_t offset, std::int64_t, std::int64_t stacked,
                        std::int64_t stride) {
                      kernels.softmax_gradient({logarithm, stacked, shape.count, stride,
                                                static_cast<const T*>(y) + offset,
                                                static_cast<const T*>(dy) + offset,
                                                static_cast<T*>(dx) + offset});
                    });
}

/// Sum of f(0) ... f(count - 1), by halves.
template <class Function>
double sum_by_halves(std::int64_t begin, std::int64_t end, const Function& f) {
  constexpr std::int64_t kBlock = 256;
  if (end - begin > kBlock) {
    const std::int64_t middle = begin + (end - begin) / 2;
    return sum_by_halves(begin, middle, f) + sum_by_halves(middle, end, f);
  }
  double sum = 0;
  for (std::int64_t i = begin; i < end; ++i) sum += f(i);
  return sum;
}

/// What losses are divided by: the weights of the targets, or their number.
template <class T>
double divisor(const CrossEntropy& problem) {
  if (problem.reduction != Reduction::mean) return 1;
  const auto* weight = static_cast<const T*>(problem.weight);
  return sum_by_halves(0, problem.shape.outer * problem.shape.inner, [&](std::int64_t i) {
    const std::int64_t target = problem.target[i];
    if (target == problem.ignored) return 0.0;
    return weight == nullptr ? 1.0 : static_cast<double>(weight[target]);
  });
}

template <class T>
CrossEntropyPass<T> pass_of(const CrossEntropy& problem) {
  CrossEntropyPass<T> pass{};
  pass.count = problem.shape.count;
  pass.weight = static_cast<const T*>(problem.weight);
  pass.weight_sum = static_cast<T>(
      pass.weight == nullptr
          ? static_cast<double>(pass.count)
          : sum_by_halves(0, pass.count,
                          [&](std::int64_t j) { return static_cast<double>(pass.weight[j]); }));
  pass.smoothing = static_cast<T>(problem.smoothing);
  pass.ignored = problem.ignored;
  return pass;
}

template <class T>
void cross_entropy_typed(const CrossEntropy& problem, const void* x, void* loss, int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const Distributions& shape = problem.shape;
  const std::int64_t distributions = shape.outer * shape.inner;
  std::vector<T> kept;
  T* each = static_cast<T*>(loss);
  if (problem.reduction != Reduction::none) {
    kept.resize(static_cast<std::size_t>(distributions));
    each = kept.data();
  }
  const CrossEntropyPass<T> whole = pass_of<T>(problem);
  for_distributions(shape, threads_of(shape, threads),
                    [&](std::int64_t offset, std::int64_t first, std::int64_t stacked,
                        std::int64_t stride) {
                      CrossEntropyPass<T> pass = whole;
                      pass.stacked = stacked;
                      pass.stride = stride;
                      pass.x = static_cast<const T*>(x) + offset;
                      pass.target = problem.target + first;
                      pass.loss = each + first;
                      kernels.cross_entropy(pass);
                    });
  if (problem.reduction == Reduction::none) return;
  const double sum = sum_by_halves(0, distributions, [&](std::int64_t i) {
    return static_cast<double>(each[i]);
  });
  *static_cast<T*>(loss) = static_cast<T>(sum / divisor<T>(problem));
}

template <class T>
void cross_entropy_backward_typed(const CrossEntropy& problem, const void* dy, const void* x,
                                  void* dx, int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const CrossEntropyPass<T> whole = pass_of<T>(problem);
  const bool one_scale = problem.reduction != Reduction::none;
  const auto* scales = static_cast<const T*>(dy);
  const T one = one_scale ? static_cast<T>(scales[0] / divisor<T>(problem)) : T(0);
  for_distributions(problem.shape, threads_of(problem.shape, threads),
                    [&](std::int64_t offset, std::int64_t first, std::int64_t stacked,
                        std::int64_t stride) {
                      CrossEntropyPass<T> pass = whole;
                      pass.stacked = stacked;
                      pass.stride = stride;
                      pass.x = static_cast<const T*>(x) + offset;
                      pass.target = problem.target + first;
                      pass.dx = static_cast<T*>(dx) + offset;
                      pass.one_scale = one_scale;
                      pass.scale = one_scale ? &one : scales + first;
                      kernels.cross_entropy(pass);
                    });
}

}  // namespace

void softmax(const Distributions& shape, bool logarithm, const void* x, void* y, int threads) {
  const auto run = shape.dtype == DType::float32 ? softmax_typed<float> : softmax_typed<double>;
  run(shape, logarithm, x, y, threads);
}

void softmax_backward(const Distributions& shape, bool logarithm, const void* dy, const void* y,
                      void* dx, int threads) {
  const auto run =
      shape.dtype == DType::float32 ? softmax_backward_typed<float> : softmax_backward_typed<double>;
  run(shape, logarithm, dy, y, dx, threads);
}

void cross_entropy(const CrossEntropy& problem, const void* x, void* loss, int threads) {
  const auto run = problem.shape.dtype == DType::float32 ? cross_entropy_typed<float>
                                                         : cross_entropy_typed<double>;
  run(problem, x, loss, threads);
}

void cross_entropy_backward(const CrossEntropy& problem, const void* dy, const void* x, void* dx,
                            int threads) {
  const auto run = problem.shape.dtype == DType::float32 ? cross_entropy_backward_typed<float>
                                                         : cross_entropy_backward_typed<double>;
  run(problem, dy, x, dx, threads);
}

}  // namespace convolith
