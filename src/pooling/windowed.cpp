#include "pooling/windowed.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

#include "pooling/geometry.hpp"
#include "pooling/maps.hpp"
#include "runtime/scratch.hpp"

namespace convolith {
namespace {

/// Sum of nonnegative numbers in blocks of 256, of 256 blocks, and so on.
class BlockedSum {
 public:
  void add(double value) noexcept {
    constexpr std::int64_t kBlock = 256;
    level_[0] += value;
    ++count_;
    std::int64_t whole = kBlock;
    for (int i = 1; i < kLevels && count_ % whole == 0; ++i, whole *= kBlock) {
      level_[i] += level_[i - 1];
      level_[i - 1] = 0;
    }
  }
  /// Never less than before the last addition.
  double value() const noexcept {
    double sum = level_[0];
    for (int i = 1; i < kLevels; ++i) sum += level_[i];
    return sum;
  }

 private:
  static constexpr int kLevels = 6;
  double level_[kLevels] = {};
  std::int64_t count_ = 0;
};

/// The window of one output in one channel.
template <class T>
struct ChannelWindow {
  const PoolPass<T>& pass;
  const T* x;  ///< pixel 0 of the channel
  std::int64_t depth, height, width;

  /// Calls visit(pixel, element) for each element, in row-major order, until it returns false.
  template <class Visit>
  void until(const Visit& visit) const {
    for (std::int64_t d = 0; d < pass.depth.taps[depth]; ++d) {
      const std::int64_t z = pass.depth.first[depth] + d * pass.depth.step;
      for (std::int64_t h = 0; h < pass.height.taps[height]; ++h) {
        const std::int64_t row = z * pass.height.input + pass.height.first[height] +
                                 h * pass.height.step;
        std::int64_t pixel = row * pass.width.input + pass.width.first[width];
        for (std::int64_t w = 0; w < pass.width.taps[width]; ++w, pixel += pass.width.step) {
          if (!visit(pixel, static_cast<double>(x[pixel * pass.x_pixel_stride]))) return;
        }
      }
    }
  }

  template <class Visit>
  void each(const Visit& visit) const {
    until([&](std::int64_t pixel, double element) {
      visit(pixel, element);
      return true;
    });
  }
};

/// Calls body(window, sample, channel, output pixel) for every output.
template <class T, class Body>
void for_each_window(const PoolProblem& problem, const Maps<T>& x, int threads,
                     const Body& body) {
  const PassTables<T> tables(PoolWindows(problem), false);
  PoolPass<T> pass = tables.pass;
  pass.x_pixel_stride = x.pixel_stride;
  const std::int64_t columns = pass.width.output;
  const std::int64_t rows = pass.depth.output * pass.height.output;
  const bool channels_touch = problem.layout == Layout::channels_last;
  const MapGrid grid{problem.batch, problem.channels, channels_touch ? problem.channels : 1, rows};
  const int team =
      worthwhile_threads(threads, problem.batch * problem.channels * rows * columns *
                                      pass.depth.most_taps * pass.height.most_taps *
                                      pass.width.most_taps);
  grid.run(team, [&](std::int64_t n, std::int64_t first, std::int64_t channels,
                     std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t o = 0; o < columns; ++o) {
        for (std::int64_t c = first; c < first + channels; ++c) {
          const ChannelWindow<T> window{pass, x.sample(n, c), row / pass.height.output,
                                        row % pass.height.output, o};
          body(window, n, c, row * columns + o);
        }
      }
    }
  });
}

/// Calls body(window, dy of its output, add) for every output; add(pixel, value) adds to dx.
template <class T, class Body>
void for_each_gradient(const PoolProblem& problem, const Maps<T>& dy, const Maps<T>& x,
                       const Maps<T>& dx, int threads, const Body& body) {
  PoolWindows windows(problem);
  const bool long_chains = windows.most_readers() > GradientPlane<T>::kChain;
  const PassTables<T> tables(std::move(windows), false);
  PoolPass<T> pass = tables.pass;
  pass.x_pixel_stride = x.pixel_stride;
  const std::int64_t columns = pass.width.output;
  const std::int64_t rows = pass.depth.output * pass.height.output;
  const std::int64_t pixels = problem.input_pixels();
  const int team = worthwhile_threads(threads, problem.batch * problem.channels * pixels);
  const MapGrid grid = gradient_grid(problem, team);
  const std::int64_t partial_size = long_chains ? pixels * grid.block : 0;
  const Scratch scratch(static_cast<std::size_t>(partial_size * team) * sizeof(T));
  grid.run(team, [&](std::int64_t n, std::int64_t first, std::int64_t channels, std::int64_t,
                     std::int64_t, int thread) {
    T* const partial = static_cast<T*>(scratch.data()) + partial_size * thread;
    GradientPlane<T> gradient(dx.sample(n, first), dx.pixel_stride, channels, pixels,
                              long_chains ? partial : nullptr);
    gradient.zero_until(pixels);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t o = 0; o < columns; ++o) {
        for (std::int64_t c = 0; c < channels; ++c) {
          const ChannelWindow<T> window{pass, x.sample(n, first + c), row / pass.height.output,
                                        row % pass.height.output, o};
          const T slope = dy.sample(n, first + c)[(row * columns + o) * dy.pixel_stride];
          body(window, static_cast<double>(slope), [&](std::int64_t pixel, double value) {
            gradient.add(pixel, c, static_cast<T>(value));
          });
        }
        gradient.next_output();
      }
    }
    gradient.fold();
  });
}

// ---- lp ------------------------------------------------------------------------------------

/// The greatest |x| of a window; NaN if there is one.
template <class T>
double greatest_magnitude(const ChannelWindow<T>& window) {
  double top = 0;
  window.each([&](std::int64_t, double element) {
    const double magnitude = std::abs(element);
    if (!(magnitude <= top) && !std::isnan(top)) top = magnitude;
  });
  return top;
}

double power(double base, double exponent) {
  return exponent == 2 ? base * base : exponent == 1 ? base : std::pow(base, exponent);
}

/// sum (|x| / top)^p, between 1 and the number of elements
template <class T>
double scaled_power_sum(const ChannelWindow<T>& window, double top, double p) {
  BlockedSum sum;
  window.each([&](std::int64_t, double element) { sum.add(power(std::abs(element) / top, p)); });
  return sum.value();
}

double sign(double value) { return value > 0 ? 1.0 : value < 0 ? -1.0 : value; }

// ---- stochastic ----------------------------------------------------------------------------

/// The probabilities of a window's elements, up to a factor: max(element, 0) / top. Where all are
/// 0 the elements weigh the same; where some are infinite, these alone count.
struct ElementWeights {
  double top = 0;
  std::int64_t last_nan = -1;

  template <class T>
  explicit ElementWeights(const ChannelWindow<T>& window) {
    window.each([&](std::int64_t pixel, double element) {
      if (element > top) top = element;
      if (std::isnan(element)) last_nan = pixel;
    });
  }
  double of(double element) const noexcept {
    if (top == 0) return 1;
    if (std::isinf(top)) return element == top ? 1 : 0;
    return element > 0 ? element / top : 0;
  }
};

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

}  // namespace

template <class T>
void lp_forward(const PoolProblem& problem, const Maps<T>& x, const Maps<T>& y, int threads) {
  const double p = problem.norm_type;
  for_each_window(problem, x, threads,
                  [&](const ChannelWindow<T>& window, std::int64_t n, std::int64_t c,
                      std::int64_t pixel) {
                    double norm = greatest_magnitude(window);
                    if (norm > 0 && std::isfinite(norm) && std::isfinite(p)) {
                      const double sum = scaled_power_sum(window, norm, p);
                      norm *= p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / p);
                    }
                    y.sample(n, c)[pixel * y.pixel_stride] = static_cast<T>(norm);
                  });
}

template <class T>
void lp_backward(const PoolProblem& problem, const Maps<T>& dy, const Maps<T>& x,
                 const Maps<T>& dx, int threads) {
  const double p = problem.norm_type;
  for_each_gradient(
      problem, dy, x, dx, threads,
      [p](const ChannelWindow<T>& window, double slope, const auto& add) {
        const double top = greatest_magnitude(window);
        if (std::isinf(p)) {
          // The first of the greatest, or the last NaN.
          std::int64_t chosen = 0;
          double value = 0;
          window.until([&](std::int64_t pixel, double element) {
            const bool found = std::isnan(top) ? std::isnan(element) : std::abs(element) == top;
            if (found) {
              chosen = pixel;
              value = element;
            }
            return std::isnan(top) || !found;
          });
          add(chosen, slope * sign(value));
          return;
        }
        // (|x| / y)^(p - 1) with y = top * sum^(1/p)
        const double sum = std::isinf(top) ? 1 : scaled_power_sum(window, top, p);
        const double factor = std::pow(sum, (1 - p) / p);
        window.each([&](std::int64_t pixel, double element) {
          if (element == 0) {
            add(pixel, slope * 0);
          } else {
            add(pixel, slope * sign(element) * power(std::abs(element) / top, p - 1) * factor);
          }
        });
      });
}

template <class T>
void stochastic_draw(const PoolProblem& problem, const Maps<T>& x, const Maps<double>& uniforms,
                     const Maps<T>& y, const Maps<std::int64_t>& indices, int threads) {
  for_each_window(
      problem, x, threads,
      [&](const ChannelWindow<T>& window, std::int64_t n, std::int64_t c, std::int64_t pixel) {
        const ElementWeights weights(window);
        std::int64_t chosen = weights.last_nan;
        if (chosen < 0) {
          BlockedSum total;
          window.each([&](std::int64_t, double element) { total.add(weights.of(element)); });
          const double bound = uniforms.sample(n, c)[pixel * uniforms.pixel_stride] * total.value();
          BlockedSum cumulative;
          window.until([&](std::int64_t at, double element) {
            chosen = at;
            cumulative.add(weights.of(element));
            return !(cumulative.value() > bound);
          });
        }
        y.sample(n, c)[pixel * y.pixel_stride] = window.x[chosen * window.pass.x_pixel_stride];
        if (indices.data != nullptr) {
          indices.sample(n, c)[pixel * indices.pixel_stride] = chosen;
        }
      });
}

template <class T>
void stochastic_mean(const PoolProblem& problem, const Maps<T>& x, const Maps<T>& y, int threads) {
  for_each_window(
      problem, x, threads,
      [&](const ChannelWindow<T>& window, std::int64_t n, std::int64_t c, std::int64_t pixel) {
        const ElementWeights weights(window);
        double mean = kNaN;
        if (weights.last_nan < 0) {
          // sum w a / sum w, where a = top * w unless all weigh the same
          const bool by_value = weights.top > 0 && std::isfinite(weights.top);
          BlockedSum moment;
          BlockedSum total;
          window.each([&](std::int64_t, double element) {
            const double weight = weights.of(element);
            if (weight > 0) moment.add(weight * (by_value ? weight : element));
            total.add(weight);
          });
          mean = moment.value() / total.value() * (by_value ? weights.top : 1);
        }
        y.sample(n, c)[pixel * y.pixel_stride] = static_cast<T>(mean);
      });
}

template <class T>
void stochastic_mean_backward(const PoolProblem& problem, const Maps<T>& dy, const Maps<T>& x,
                              const Maps<T>& dx, int threads) {
  for_each_gradient(
      problem, dy, x, dx, threads,
      [](const ChannelWindow<T>& window, double slope, const auto& add) {
        const ElementWeights weights(window);
        // Over the positive elements r = a / top: (2 r - sum r^2 / sum r) / sum r
        BlockedSum moment;
        BlockedSum total;
        window.each([&](std::int64_t, double element) {
          const double ratio = weights.top == 0 ? 1 : element > 0 ? element / weights.top : 0;
          moment.add(ratio * ratio);
          total.add(ratio);
        });
        const bool any_nan = weights.last_nan >= 0;
        const double sum = any_nan ? kNaN : total.value();
        const double mean = moment.value() / sum;
        window.each([&](std::int64_t pixel, double element) {
          if (weights.top == 0 || any_nan) {
            add(pixel, slope / sum);
          } else if (element > 0) {
            add(pixel, slope * (2 * (element / weights.top) - mean) / sum);
          } else {
            add(pixel, slope * 0);
          }
        });
      });
}

#define CONVOLITH_INSTANTIATE(T)                                                                  \
  template void lp_forward(const PoolProblem&, const Maps<T>&, const Maps<T>&, int);              \
  template void lp_backward(const PoolProblem&, const Maps<T>&, const Maps<T>&, const Maps<T>&,   \
                            int);                                                                 \
  template void stochastic_draw(const PoolProblem&, const Maps<T>&, const Maps<double>&,          \
                                const Maps<T>&, const Maps<std::int64_t>&, int);                  \
  template void stochastic_mean(const PoolProblem&, const Maps<T>&, const Maps<T>&, int);         \
  template void stochastic_mean_backward(const PoolProblem&, const Maps<T>&, const Maps<T>&,      \
                                         const Maps<T>&, int);
CONVOLITH_INSTANTIATE(float)
CONVOLITH_INSTANTIATE(double)
#undef CONVOLITH_INSTANTIATE

}  // namespace convolith
