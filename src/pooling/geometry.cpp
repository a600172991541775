#include "pooling/geometry.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "arithmetic.hpp"

namespace convolith {
namespace {

/// Cuts the outputs start, start + period, ... into runs of equal taps and distance.
void append_runs(const AxisWindows& axis, std::int64_t start, std::int64_t period,
                 std::vector<PoolRun>& runs) {
  const std::int64_t output = axis.output();
  for (std::int64_t o = start; o < output;) {
    PoolRun run{o, period, axis.first[o], 0, axis.taps[o], 1, false};
    std::int64_t next = o + period;
    if (next < output && axis.taps[next] == run.taps) {
      run.input_step = axis.first[next] - run.input;
      while (next < output && axis.taps[next] == run.taps &&
             axis.first[next] - run.input == run.count * run.input_step) {
        ++run.count;
        next += period;
      }
    }
    runs.push_back(run);
    o = next;
  }
}

}  // namespace

AxisWindows AxisWindows::sliding(const Window& window) {
  AxisWindows axis;
  axis.input = window.input;
  axis.step = window.dilation;
  axis.advance = window.stride;
  axis.first.resize(window.output);
  axis.taps.resize(window.output);
  axis.divisor.resize(window.output);
  std::int64_t most = 0;
  for (std::int64_t o = 0; o < window.output; ++o) {
    // 0 <= start + t * dilation < input
    const std::int64_t start = o * window.stride - window.before;
    const std::int64_t begin = std::max<std::int64_t>(0, divide_up(-start, window.dilation));
    const std::int64_t end =
        std::min(window.kernel, divide_up(window.input - start, window.dilation));
    axis.taps[o] = std::max<std::int64_t>(0, end - begin);
    axis.first[o] = axis.taps[o] > 0 ? start + begin * window.dilation : 0;
    // The window clipped to the padded input.
    axis.divisor[o] = static_cast<double>(
        std::min(start + window.kernel, window.input + window.after) - start);
    most = std::max(most, axis.taps[o]);
  }
  if (most <= 1) axis.step = 1;
  if (window.dilation == 1 && window.stride <= 2 && window.kernel <= window.input) {
    axis.padded_runs = {{0, 1, -window.before, window.stride, window.kernel, window.output, true}};
  }
  return axis;
}

AxisWindows AxisWindows::adaptive(std::int64_t input, std::int64_t output) {
  AxisWindows axis;
  axis.input = input;
  const std::int64_t common = std::gcd(input, output);
  axis.period = output / common;
  axis.advance = input / common;
  axis.first.resize(output);
  axis.taps.resize(output);
  for (std::int64_t o = 0; o < output; ++o) {
    axis.first[o] = o * input / output;
    axis.taps[o] = divide_up((o + 1) * input, output) - axis.first[o];
  }
  axis.divisor.assign(axis.taps.begin(), axis.taps.end());
  return axis;
}

AxisWindows AxisWindows::transposed() const {
  AxisWindows axis;
  axis.input = output();
  axis.period = advance;
  axis.advance = period;
  axis.first.resize(input);
  axis.taps.resize(input);
  axis.divisor.assign(input, 1);
  // Both ends of the windows grow with the output.
  std::int64_t low = 0;
  std::int64_t high = 0;
  for (std::int64_t i = 0; i < input; ++i) {
    while (low < output() && first[low] + taps[low] <= i) ++low;
    while (high < output() && first[high] <= i) ++high;
    axis.taps[i] = std::max<std::int64_t>(0, high - low);
    axis.first[i] = axis.taps[i] > 0 ? low : 0;
  }
  if (!padded_runs.empty()) {
    // Inputs i = phase + j * stride are read by the outputs o with
    // 0 <= i - start - o * stride < kernel.
    const PoolRun& run = padded_runs.front();
    const std::int64_t stride = run.input_step;
    for (std::int64_t phase = 0; phase < std::min(stride, input); ++phase) {
      const std::int64_t from = divide_up(phase - run.input - run.taps + 1, stride);
      const std::int64_t end = divide_up(phase - run.input + 1, stride);
      axis.padded_runs.push_back(
          {phase, stride, from, 1, end - from, divide_up(input - phase, stride), true});
    }
  }
  return axis;
}

std::int64_t AxisWindows::most_readers() const noexcept {
  std::int64_t most = 0;
  std::int64_t low = 0;
  for (std::int64_t o = 0; o < output(); ++o) {
    while (low < o && first[low] + (taps[low] - 1) * step < first[o]) ++low;
    most = std::max(most, o - low + 1);
  }
  return most;
}

std::vector<PoolRun> AxisWindows::runs() const {
  std::vector<PoolRun> in_order;
  append_runs(*this, 0, 1, in_order);
  if (!padded_runs.empty() && padded_runs.size() < in_order.size()) return padded_runs;
  if (period == 1 || period >= output()) return in_order;
  std::vector<PoolRun> by_phase;
  for (std::int64_t phase = 0; phase < period; ++phase) append_runs(*this, phase, period, by_phase);
  return by_phase.size() < in_order.size() ? by_phase : in_order;
}

PoolWindows::PoolWindows(const PoolProblem& problem) {
  for (int i = 0; i < kSpatialAxes; ++i) {
    const Window& window = problem.windows[i];
    axes[i] = problem.adaptive ? AxisWindows::adaptive(window.input, window.output)
                               : AxisWindows::sliding(window);
    if (!problem.count_include_pad) {
      axes[i].divisor.assign(axes[i].taps.begin(), axes[i].taps.end());
    }
    if (problem.divisor_override) {
      const bool last = i == kSpatialAxes - 1;
      axes[i].divisor.assign(axes[i].output(),
                             last ? static_cast<double>(*problem.divisor_override) : 1.0);
    }
  }
}

PoolWindows PoolWindows::transposed() const {
  PoolWindows result;
  for (int i = 0; i < kSpatialAxes; ++i) result.axes[i] = axes[i].transposed();
  return result;
}

std::int64_t PoolWindows::most_readers() const {
  return axes[0].most_readers() * axes[1].most_readers() * axes[2].most_readers();
}

void PoolWindows::merge() {
  const AxisWindows trivial;
  for (int merged = 0; merged < kSpatialAxes - 1; ++merged) {
    AxisWindows& outer = axes[1];
    AxisWindows& inner = axes[2];
    const bool whole = inner.output() == 1 && inner.taps[0] == inner.input && inner.step == 1;
    if (!whole || outer.step != 1) return;
    for (std::int64_t o = 0; o < outer.output(); ++o) {
      outer.first[o] *= inner.input;
      outer.taps[o] *= inner.input;
      outer.divisor[o] *= inner.divisor[0];
    }
    outer.input *= inner.input;
    outer.advance *= inner.input;
    if (inner.input > 1) outer.padded_runs.clear();
    inner = std::move(outer);
    outer = std::exchange(axes[0], trivial);
  }
}

std::int64_t PoolWindows::input_pixels() const noexcept {
  return axes[0].input * axes[1].input * axes[2].input;
}

template <class T>
PassTables<T>::PassTables(PoolWindows windows, bool divide) : windows_(std::move(windows)) {
  PoolAxis* targets[kSpatialAxes] = {&pass.depth, &pass.height, &pass.width};
  for (int i = 0; i < kSpatialAxes; ++i) {
    const AxisWindows& axis = windows_.axes[i];
    *targets[i] = {axis.input,       axis.output(),    axis.step, axis.first.data(),
                   axis.taps.data(), *std::max_element(axis.taps.begin(), axis.taps.end())};
    if (divide) divisors_[i].assign(axis.divisor.begin(), axis.divisor.end());
  }
  runs_ = windows_.axes[kSpatialAxes - 1].runs();
  pass.runs = runs_.data();
  pass.run_count = static_cast<std::int64_t>(runs_.size());
  if (divide) {
    pass.depth_divisor = divisors_[0].data();
    pass.height_divisor = divisors_[1].data();
    pass.width_divisor = divisors_[2].data();
  }
}

template class PassTables<float>;
template class PassTables<double>;

}  // namespace convolith
