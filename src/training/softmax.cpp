#include <algorithm>
#include <cmath>
#include <vector>

#include "arithmetic.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"
#include "training/kernels.hpp"
#include "training/training.hpp"

namespace convolith {
namespace {

/// The distributions of a call in blocks that kernels take. Where classes lie apart, a block's are
/// copied together first: far apart they would push one another out of the cache's few ways.
template <class T>
class Blocks {
 public:
  Blocks(const Distributions& shape, int arrays, int threads)
      : shape_(shape),
        threads_(threads),
        width_(std::clamp<std::int64_t>(kElements / shape.count / kLine * kLine, 2 * kLine,
                                        32 * kLine)),
        copied_(shape.inner > width_),
        thread_elements_(copied_ ? arrays * width_ * shape.count : 0),
        workspace_(static_cast<std::size_t>(thread_elements_ * threads) * sizeof(T)) {}

  /// A block: where it begins in the whole, and the stride and length of its rows of a class each.
  struct Block {
    std::int64_t offset, first, distributions, stride;
    T* copies;  ///< null where arrays are used as they are
  };

  template <class Body>
  void run(const Body& body) const noexcept {
    if (shape_.inner == 1) {
      parallel(threads_, [&](int thread, int team) {
        const Range range = Range::share(shape_.outer, thread, team);
        if (range.begin == range.end) return;
        body(Block{range.begin * shape_.count, range.begin, range.end - range.begin, 1, nullptr});
      });
      return;
    }
    const std::int64_t width = copied_ ? width_ : shape_.inner;
    const std::int64_t blocks = divide_up(shape_.inner, width);
    parallel_for(threads_, shape_.outer * blocks, [&](std::int64_t index, int thread) {
      const std::int64_t outer = index / blocks;
      const std::int64_t begin = index % blocks * width;
      T* copies = static_cast<T*>(workspace_.data());
      body(Block{outer * shape_.count * shape_.inner + begin, outer * shape_.inner + begin,
                 std::min(width, shape_.inner - begin), width,
                 copied_ ? copies + thread * thread_elements_ : nullptr});
    });
  }

  /// The block in `array`, or its copy number `place`.
  const T* read(const Block& block, const void* array, int place) const noexcept {
    const T* from = static_cast<const T*>(array) + block.offset;
    if (block.copies == nullptr) return from;
    T* copy = block.copies + place * width_ * shape_.count;
    for (std::int64_t j = 0; j < shape_.count; ++j) {
      std::copy_n(from + j * shape_.inner, block.distributions, copy + j * width_);
    }
    return copy;
  }
  T* write(const Block& block, void* array, int place) const noexcept {
    if (block.copies != nullptr) return block.copies + place * width_ * shape_.count;
    return static_cast<T*>(array) + block.offset;
  }
  void finish(const Block& block, void* array, int place) const noexcept {
    if (block.copies == nullptr) return;
    T* to = static_cast<T*>(array) + block.offset;
    const T* copy = block.copies + place * width_ * shape_.count;
    for (std::int64_t j = 0; j < shape_.count; ++j) {
      std::copy_n(copy + j * width_, block.distributions, to + j * shape_.inner);
    }
  }

 private:
  static constexpr std::int64_t kElements = 8192;  // of a copy: it stays in the first cache
  static constexpr std::int64_t kLine = 16;

  const Distributions& shape_;
  int threads_;
  std::int64_t width_;
  bool copied_;
  std::int64_t thread_elements_;
  Scratch workspace_;
};

int threads_of(const Distributions& shape, int threads) {
  return threads_for(4 * shape.outer * shape.count * shape.inner, threads);
}

template <class T>
void softmax_typed(const Distributions& shape, bool logarithm, const void* x, void* y,
                   int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const Blocks<T> blocks(shape, 1, threads_of(shape, threads));
  blocks.run([&](const auto& block) {
    kernels.softmax({logarithm, block.distributions, shape.count, block.stride,
                     blocks.read(block, x, 0), nullptr, blocks.write(block, y, 0)});
    blocks.finish(block, y, 0);
  });
}

template <class T>
void softmax_backward_typed(const Distributions& shape, bool logarithm, const void* dy,
                            const void* y, void* dx, int threads) {
  const TrainingKernels<T>& kernels = training_kernels<T>();
  const Blocks<T> blocks(shape, 2, threads_of(shape, threads));
  blocks.run([&](const auto& block) {
    kernels.softmax_gradient({logarithm, block.distributions, shape.count, block.stride,
                              blocks.read(block, y, 0), blocks.read(block, dy, 1),
                              blocks.write(block, dx, 1)});
    blocks.finish(block, dx, 1);
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
  const Blocks<T> blocks(shape, 1, threads_of(shape, threads));
  blocks.run([&](const auto& block) {
    CrossEntropyPass<T> pass = whole;
    pass.stacked = block.distributions;
    pass.stride = block.stride;
    pass.x = blocks.read(block, x, 0);
    pass.target = problem.target + block.first;
    pass.loss = each + block.first;
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
  const Blocks<T> blocks(problem.shape, 2, threads_of(problem.shape, threads));
  blocks.run([&](const auto& block) {
    CrossEntropyPass<T> pass = whole;
    pass.stacked = block.distributions;
    pass.stride = block.stride;
    pass.x = blocks.read(block, x, 0);
    pass.target = problem.target + block.first;
    pass.dx = blocks.write(block, dx, 1);
    pass.one_scale = one_scale;
    pass.scale = one_scale ? &one : scales + block.first;
    kernels.cross_entropy(pass);
    blocks.finish(block, dx, 1);
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
