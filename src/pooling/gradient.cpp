#include "pooling/gradient.hpp"

#include <algorithm>
#include <atomic>

#include "pooling/maps.hpp"

namespace convolith {
namespace {

/// The outputs that read each input: every step[i]-th from first[i] on.
void list_readers(const AxisWindows& axis, std::vector<std::int64_t>& first,
                  std::vector<std::int64_t>& count, std::vector<std::int64_t>& step) {
  const auto inputs = static_cast<std::size_t>(axis.input);
  first.assign(inputs, 0);
  count.assign(inputs, 0);
  step.assign(inputs, 1);
  std::vector<std::int64_t> last(inputs, 0);
  for (std::int64_t o = 0; o < axis.output(); ++o) {
    for (std::int64_t t = 0; t < axis.taps[o]; ++t) {
      const std::int64_t i = axis.first[o] + t * axis.step;
      if (count[i] == 0) {
        first[i] = o;
      } else {
        step[i] = o - last[i];
      }
      last[i] = o;
      ++count[i];
    }
  }
}

/// Whether inputs have one reader at most, the first output the first, and so on without a gap.
bool are_in_turn(const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& count) {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < count.size(); ++i) {
    if (count[i] == 0) continue;
    if (count[i] > 1 || first[i] < last || first[i] > last + 1) return false;
    last = first[i];
  }
  return true;
}

}  // namespace

template <class T>
GradientTables<T>::GradientTables(const PoolProblem& problem, const PoolWindows& windows,
                                  bool sums) {
  PoolReaders* const readers[kSpatialAxes] = {&gradient.depth, &gradient.height, &gradient.width};
  bool one_for_all = sums && windows.output_pixels() == 1;
  for (const AxisWindows& axis : windows.axes) {
    one_for_all = one_for_all && axis.taps[0] == axis.input;
  }
  for (int i = 0; i < kSpatialAxes; ++i) {
    const AxisWindows& axis = windows.axes[i];
    list_readers(axis, first_[i], count_[i], step_[i]);
    *readers[i] = {axis.input, axis.output(), first_[i].data(), count_[i].data(), step_[i].data()};
  }
  gradient.divisor = T(1);
  gradient.in_turn = true;
  for (int i = 0; i < kSpatialAxes; ++i) gradient.in_turn &= are_in_turn(first_[i], count_[i]);
  if (one_for_all) {
    gradient.spread = true;
    gradient.depth.input = gradient.height.input = 1;
    gradient.width.input = windows.input_pixels();
    return;
  }
  if (problem.adaptive) return;
  // Input q * stride + r is tap t of output q + (r + before - t * dilation) / stride.
  const Window& window = problem.windows[kSpatialAxes - 1];
  gradient.stride = std::min(window.stride, window.input);
  for (std::int64_t r = 0; r < gradient.stride; ++r) {
    begins_.push_back(static_cast<std::int64_t>(offsets_.size()));
    for (std::int64_t t = window.kernel; t-- > 0;) {
      const std::int64_t distance = r + window.before - t * window.dilation;
      if (distance % window.stride == 0) offsets_.push_back(distance / window.stride);
    }
  }
  begins_.push_back(static_cast<std::int64_t>(offsets_.size()));
  gradient.offsets = offsets_.data();
  gradient.begins = begins_.data();
}

template <class T>
std::int64_t run_gradient(const PoolProblem& problem, const PoolGradient<T>& gradient,
                          const Maps<T>& dy, const Maps<PoolIndex<T>>& chosen, const Maps<T>& dx,
                          const PoolingKernels<T>& kernels, int threads) {
  PoolGradient<T> whole = gradient;
  whole.lanes_are_channels = problem.layout == Layout::channels_last &&
                             (problem.channels > 1 || dy.pixel_stride != 1 || dx.pixel_stride != 1);
  whole.dy_pixel_stride = dy.pixel_stride;
  whole.dy_channel_stride = dy.channel_stride;
  whole.chosen_pixel_stride = chosen.pixel_stride;
  whole.chosen_channel_stride = chosen.channel_stride;
  whole.dx_pixel_stride = dx.pixel_stride;
  whole.dx_channel_stride = dx.channel_stride;
  const std::int64_t rows = whole.depth.input * whole.height.input;
  const int team = worthwhile_threads(
      threads, problem.batch * problem.channels * problem.input_pixels());
  std::atomic<std::int64_t> met{0};
  for_map_rows(problem.batch, problem.channels, rows, whole.lanes_are_channels, team,
               [&](std::int64_t n, std::int64_t c, std::int64_t channels, std::int64_t begin,
                   std::int64_t end) {
    PoolGradient<T> map = whole;
    map.channels = channels;
    map.dy = dy.sample(n, c);
    map.chosen = chosen.data != nullptr ? chosen.sample(n, c) : nullptr;
    map.dx = dx.sample(n, c);
    met.fetch_add(kernels.gradient(map, begin, end), std::memory_order_relaxed);
  });
  return met.load();
}

#define CONVOLITH_INSTANTIATE(T)                                                                \
  template class GradientTables<T>;                                                             \
  template std::int64_t run_gradient(const PoolProblem&, const PoolGradient<T>&, const Maps<T>&, \
                                     const Maps<PoolIndex<T>>&, const Maps<T>&,                 \
                                     const PoolingKernels<T>&, int);
CONVOLITH_INSTANTIATE(float)
CONVOLITH_INSTANTIATE(double)
#undef CONVOLITH_INSTANTIATE

}  // namespace convolith
