#include "convolith/pooling.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "convolith/error.hpp"
#include "pooling/geometry.hpp"
#include "pooling/gradient.hpp"
#include "pooling/maps.hpp"
#include "pooling/windowed.hpp"
#include "runtime/cpu.hpp"
#include "runtime/scratch.hpp"

namespace convolith {
namespace {

const KernelTable& table_of(std::string_view isa) {
  return isa.empty() ? isa_in_use() : find_isa(isa);
}

template <class T>
const PoolingKernels<T>& pooling_kernels(std::string_view isa) {
  if constexpr (std::is_same_v<T, float>) {
    return *table_of(isa).float32.pooling;
  } else {
    return *table_of(isa).float64.pooling;
  }
}

/// Lanes are channels, unless there is but one or channels lie apart.
template <class T>
bool lanes_are_channels(const PoolProblem& problem, const Maps<T>& x) {
  return problem.layout == Layout::channels_last && (problem.channels > 1 || x.pixel_stride != 1);
}

template <class T>
using Kernel = void (*)(const PoolPass<T>&, std::int64_t, std::int64_t);

/// Runs a kernel over every map. `pass` holds the windows. Indices are written to one of two
/// forms, if any.
template <class T>
void run_pass(const PoolProblem& problem, PoolPass<T> pass, Kernel<T> kernel, const Maps<T>& x,
              const Maps<T>& y, const Maps<std::int64_t>& indices, int threads,
              const Maps<PoolIndex<T>>& chosen = {}) {
  pass.lanes_are_channels = lanes_are_channels(problem, x);
  pass.x_pixel_stride = x.pixel_stride;
  pass.x_channel_stride = x.channel_stride;
  pass.y_pixel_stride = y.pixel_stride;
  pass.y_channel_stride = y.channel_stride;
  pass.indices_pixel_stride = indices.data != nullptr ? indices.pixel_stride : chosen.pixel_stride;
  pass.indices_channel_stride =
      indices.data != nullptr ? indices.channel_stride : chosen.channel_stride;
  const std::int64_t rows = pass.depth.output * pass.height.output;
  const std::int64_t taps = pass.depth.most_taps * pass.height.most_taps * pass.width.most_taps;
  const int team = worthwhile_threads(
      threads, problem.batch * problem.channels * rows * pass.width.output * taps);
  for_map_rows(problem.batch, problem.channels, rows, pass.lanes_are_channels, team,
               [&](std::int64_t n, std::int64_t c, std::int64_t channels, std::int64_t begin,
                   std::int64_t end) {
    PoolPass<T> map = pass;
    map.channels = channels;
    map.x = x.sample(n, c);
    map.y = y.data != nullptr ? y.sample(n, c) : nullptr;
    map.chosen = chosen.data != nullptr ? chosen.sample(n, c) : nullptr;
    map.indices = indices.data != nullptr ? indices.sample(n, c) : nullptr;
    kernel(map, begin, end);
  });
}

template <class T>
void forward(const PoolProblem& problem, const Maps<T>& x, const Maps<T>& y,
             const Maps<std::int64_t>& indices, const PoolOptions& options) {
  PoolWindows windows(problem);
  windows.merge();
  const PassTables<T> tables(std::move(windows), problem.op == PoolOp::average);
  const PoolingKernels<T>& kernels = pooling_kernels<T>(options.isa);
  run_pass<T>(problem, tables.pass, problem.op == PoolOp::max ? kernels.max : kernels.sum, x, y,
              indices, options.threads);
}

/// Most outputs that a gradient gathers for an input in one chain; chosen ones are few of those.
constexpr std::int64_t kMostGathered = 256;
constexpr std::int64_t kMostGatheredChoices = 32;

// ---- gradient of sums ----------------------------------------------------------------------

/// Whether all windows of an axis have the same divisor.
bool uniform_divisor(const AxisWindows& axis) {
  return std::all_of(axis.divisor.begin(), axis.divisor.end(),
                     [&](double divisor) { return divisor == axis.divisor.front(); });
}

/// The windows that cover one output each, with that output's divisor.
PoolWindows output_windows(const PoolWindows& windows) {
  PoolWindows result = windows;
  for (AxisWindows& axis : result.axes) {
    axis.input = axis.output();
    axis.step = axis.period = axis.advance = 1;
    axis.padded_runs.clear();
    for (std::int64_t o = 0; o < axis.output(); ++o) {
      axis.first[o] = o;
      axis.taps[o] = 1;
    }
  }
  return result;
}

/// dx[i] = sum of dy[o] / divisor[o] over the outputs o whose windows hold i: pooling of dy.
template <class T>
void sum_backward(const PoolProblem& problem, const TensorView& dy, const TensorView& dx,
                  const PoolOptions& options) {
  PoolWindows windows(problem);
  const bool gathers = windows.most_readers() <= kMostGathered;
  if (!gathers) windows.merge();
  const PoolingKernels<T>& kernels = pooling_kernels<T>(options.isa);
  const Kernel<T> sum = kernels.sum;
  const Maps<T> target = typed<T>(dx);
  Maps<T> source = typed<T>(dy);
  bool divide = problem.op == PoolOp::average;
  const bool uniform =
      std::all_of(std::begin(windows.axes), std::end(windows.axes), uniform_divisor);
  std::int64_t share_size = 0;
  if (divide && !uniform) {
    share_size = problem.batch * problem.channels * problem.output_pixels();
  }
  const Scratch scratch(static_cast<std::size_t>(share_size) * sizeof(T));
  if (divide && !uniform) {
    const std::int64_t pixels = problem.output_pixels();
    Maps<T> share{static_cast<T*>(scratch.data()), problem.channels * pixels, 1, 1};
    if (lanes_are_channels(problem, source)) {
      share.pixel_stride = problem.channels;
    } else {
      share.channel_stride = pixels;
    }
    const PassTables<T> tables(output_windows(windows), true);
    run_pass<T>(problem, tables.pass, sum, source, share, {}, options.threads);
    source = share;
    divide = false;
  }
  if (gathers) {
    GradientTables<T> tables(problem, windows, true);
    if (divide) {
      for (const AxisWindows& axis : windows.axes) {
        tables.gradient.divisor *= static_cast<T>(axis.divisor.front());
      }
    }
    run_gradient<T>(problem, tables.gradient, source, {}, target, kernels, options.threads);
    return;
  }
  PoolWindows readers = windows.transposed();
  if (divide) {
    for (int i = 0; i < kSpatialAxes; ++i) {
      readers.axes[i].divisor.assign(readers.axes[i].output(), windows.axes[i].divisor.front());
    }
  }
  const PassTables<T> tables(std::move(readers), divide);
  run_pass<T>(problem, tables.pass, sum, source, target, {}, options.threads);
}

// ---- gradient of a choice ------------------------------------------------------------------

/// The same windows, of one output row alone.
template <class T>
PoolPass<T> only_row(PoolPass<T> pass, std::int64_t row) {
  const std::int64_t d = row / pass.height.output;
  const std::int64_t h = row % pass.height.output;
  pass.depth.first += d;
  pass.depth.taps += d;
  pass.height.first += h;
  pass.height.taps += h;
  pass.depth.output = pass.height.output = 1;
  return pass;
}

/// The pixel before which the windows of a pass of one row end.
template <class T>
std::int64_t reach(const PoolPass<T>& row) {
  const auto end = [](const PoolAxis& axis) {
    return axis.first[0] + (axis.taps[0] - 1) * axis.step + 1;
  };
  if (row.depth.input > 1) return end(row.depth) * row.height.input * row.width.input;
  return end(row.height) * row.width.input;
}

/// Outputs of a plane whose windows hold an element.
std::int64_t filled_windows(const PoolWindows& windows) {
  std::int64_t filled = 1;
  for (const AxisWindows& axis : windows.axes) {
    filled *= std::count_if(axis.taps.begin(), axis.taps.end(),
                            [](std::int64_t taps) { return taps > 0; });
  }
  return filled;
}

/// InvalidArgument for the first index that is no element of its output's window.
[[noreturn]] void refuse_indices(const PoolProblem& problem, const PoolWindows& windows,
                                 const Maps<std::int64_t>& indices) {
  const auto holds = [](const AxisWindows& axis, std::int64_t o, std::int64_t i) {
    const std::int64_t distance = i - axis.first[o];
    return distance >= 0 && distance % axis.step == 0 && distance / axis.step < axis.taps[o];
  };
  const auto& [depth, height, width] = windows.axes;
  const std::int64_t pixels = windows.input_pixels();
  for (std::int64_t n = 0; n < problem.batch; ++n) {
    for (std::int64_t c = 0; c < problem.channels; ++c) {
      for (std::int64_t o = 0; o < windows.output_pixels(); ++o) {
        const std::int64_t column = o % width.output();
        const std::int64_t row = o / width.output() % height.output();
        const std::int64_t plane = o / width.output() / height.output();
        if (width.taps[column] * height.taps[row] * depth.taps[plane] == 0) continue;
        const std::int64_t index = indices.sample(n, c)[o * indices.pixel_stride];
        if (index >= 0 && index < pixels && holds(width, column, index % width.input) &&
            holds(height, row, index / width.input % height.input) &&
            holds(depth, plane, index / width.input / height.input)) {
          continue;
        }
        throw InvalidArgument("indices holds " + std::to_string(index) + " (sample " +
                              std::to_string(n) + ", channel " + std::to_string(c) +
                              ", element " + std::to_string(o) +
                              "), which is no pixel of that element's window; pixels are 0 to " +
                              std::to_string(pixels - 1));
      }
    }
  }
  throw InvalidArgument("indices are not those of this pooling");
}

/// Choices of whole samples, as vectors count them; from indices where those are given.
template <class T>
bool list_choices(const PoolProblem& problem, const PoolPass<T>& pass, const Maps<T>& x,
                  const Maps<std::int64_t>& indices, const Maps<PoolIndex<T>>& chosen,
                  const PoolingKernels<T>& kernels, int threads) {
  if (indices.data == nullptr) {
    run_pass<T>(problem, pass, kernels.max, x, {}, {}, threads, chosen);
    return true;
  }
  const bool channels_last = problem.layout == Layout::channels_last;
  const std::int64_t outputs = problem.output_pixels();
  const std::int64_t rows = channels_last ? outputs : problem.channels;
  const std::int64_t count = channels_last ? problem.channels : outputs;
  const std::int64_t from = channels_last ? indices.pixel_stride : indices.channel_stride;
  const std::int64_t to = channels_last ? chosen.pixel_stride : chosen.channel_stride;
  const bool touch = from == count && to == count;
  const std::int64_t pixels = problem.input_pixels();
  const int team = worthwhile_threads(threads, problem.batch * rows * count);
  const auto pieces = static_cast<int>(std::min<std::int64_t>(team, rows));
  std::vector<std::int8_t> outside(static_cast<std::size_t>(team), 0);
  parallel_for(team, problem.batch * pieces, [&](std::int64_t i, int thread) {
    const Range some = Range::share(rows, static_cast<int>(i % pieces), pieces);
    const std::int64_t together = touch ? some.end - some.begin : 1;
    for (std::int64_t row = some.begin; row < some.end; row += together) {
      if (!kernels.narrow(together * count, indices.sample(i / pieces, 0) + row * from, pixels,
                          chosen.sample(i / pieces, 0) + row * to)) {
        outside[static_cast<std::size_t>(thread)] = 1;
      }
    }
  });
  return std::find(outside.begin(), outside.end(), 1) == outside.end();
}

/// The gradient of a choice, gathered: from x, or from the indices of a forward pass.
template <class T>
void gather_choices(const PoolProblem& problem, const PoolWindows& windows, const TensorView& dy,
                    const TensorView& x, const TensorView& indices, const TensorView& dx,
                    const PoolOptions& options) {
  constexpr std::int64_t kBytes = 8 << 20;  // of choices at a time: they stay in cache
  const PoolingKernels<T>& kernels = pooling_kernels<T>(options.isa);
  const GradientTables<T> gradient(problem, windows, false);
  PoolWindows merged = windows;
  merged.merge();
  const PassTables<T> tables(std::move(merged), false);
  const std::int64_t outputs = problem.output_pixels();
  const std::int64_t sample = problem.channels * outputs;
  const std::int64_t samples = std::clamp<std::int64_t>(
      kBytes / (sample * static_cast<std::int64_t>(sizeof(T))), 1, problem.batch);
  const Scratch scratch(static_cast<std::size_t>(samples * sample) * sizeof(PoolIndex<T>));
  Maps<PoolIndex<T>> chosen{static_cast<PoolIndex<T>*>(scratch.data()), sample, outputs, 1};
  if (problem.layout == Layout::channels_last) {
    chosen.channel_stride = 1;
    chosen.pixel_stride = problem.channels;
  }
  const std::int64_t filled = filled_windows(windows);
  const auto from_sample = [](auto maps, std::int64_t n) {
    if (maps.data != nullptr) maps.data += n * maps.sample_stride;
    return maps;
  };
  for (std::int64_t n = 0; n < problem.batch; n += samples) {
    PoolProblem part = problem;
    part.batch = std::min(samples, problem.batch - n);
    const auto at = from_sample(typed<std::int64_t>(indices), n);
    const bool inside = list_choices(part, tables.pass, from_sample(typed<T>(x), n), at,
                                     chosen, kernels, options.threads);
    const std::int64_t met =
        run_gradient<T>(part, gradient.gradient, from_sample(typed<T>(dy), n), chosen,
                        from_sample(typed<T>(dx), n), kernels, options.threads);
    if (at.data != nullptr && (!inside || met != part.batch * problem.channels * filled)) {
      refuse_indices(problem, windows, typed<std::int64_t>(indices));
    }
  }
}

template <class T>
void max_backward(const PoolProblem& problem, const TensorView& dy_view, const TensorView& x_view,
                  const TensorView& dx_view, const PoolOptions& options) {
  PoolWindows windows(problem);
  if (windows.most_readers() <= kMostGatheredChoices) {
    gather_choices<T>(problem, windows, dy_view, x_view, {}, dx_view, options);
    return;
  }
  windows.merge();
  const bool long_chains = windows.most_readers() > GradientPlane<T>::kChain;
  const std::int64_t pixels = problem.input_pixels();
  const PassTables<T> tables(std::move(windows), false);
  const Maps<T> x = typed<T>(x_view);
  const Maps<T> dy = typed<T>(dy_view);
  const Maps<T> dx = typed<T>(dx_view);

  PoolPass<T> pass = tables.pass;
  pass.lanes_are_channels = lanes_are_channels(problem, x);
  pass.x_pixel_stride = x.pixel_stride;
  const int team = 
      worthwhile_threads(options.threads, problem.batch * problem.channels * pixels);
  const MapGrid grid = gradient_grid(problem, team);
  const std::int64_t columns = pass.width.output;
  const std::int64_t output_rows = pass.depth.output * pass.height.output;
  const std::int64_t row_size = columns * grid.block;
  const std::int64_t partial_size = long_chains ? pixels * grid.block : 0;
  const Scratch row_scratch(static_cast<std::size_t>(row_size * team) * sizeof(std::int64_t));
  const Scratch partial_scratch(static_cast<std::size_t>(partial_size * team) * sizeof(T));

  const Kernel<T> kernel = pooling_kernels<T>(options.isa).max;
  grid.run(team, [&](std::int64_t n, std::int64_t c, std::int64_t channels, std::int64_t,
                     std::int64_t, int thread) {
    std::int64_t* const indices =
        static_cast<std::int64_t*>(row_scratch.data()) + row_size * thread;
    T* const partial = static_cast<T*>(partial_scratch.data()) + partial_size * thread;
    GradientPlane<T> gradient(dx.sample(n, c), dx.pixel_stride, channels, pixels,
                              long_chains ? partial : nullptr);
    PoolPass<T> map = pass;
    map.channels = channels;
    map.x = x.sample(n, c);
    map.indices = indices;
    map.indices_pixel_stride = channels;
    for (std::int64_t row = 0; row < output_rows; ++row) {
      const PoolPass<T> one = only_row(map, row);
      if (one.depth.taps[0] == 0 || one.height.taps[0] == 0) continue;
      kernel(one, 0, 1);
      gradient.zero_until(reach(one));
      const T* source = dy.sample(n, c) + row * columns * dy.pixel_stride;
      for (std::int64_t o = 0; o < columns; ++o, source += dy.pixel_stride) {
        if (one.width.taps[o] == 0) continue;
        for (std::int64_t k = 0; k < channels; ++k) {
          gradient.add(indices[o * channels + k], k, source[k]);
        }
        gradient.next_output();
      }
    }
    gradient.fold();
    gradient.zero_until(pixels);
  });
}

template <class T>
void backward(const PoolProblem& problem, const TensorView& dy, const TensorView& x,
              const TensorView& dx, const PoolOptions& options) {
  switch (problem.op) {
    case PoolOp::max:
      max_backward<T>(problem, dy, x, dx, options);
      break;
    case PoolOp::average:
    case PoolOp::sum:
      sum_backward<T>(problem, dy, dx, options);
      break;
    case PoolOp::lp:
      lp_backward(problem, typed<T>(dy), typed<T>(x), typed<T>(dx), options.threads);
      break;
    case PoolOp::stochastic:
      stochastic_mean_backward(problem, typed<T>(dy), typed<T>(x), typed<T>(dx), options.threads);
      break;
  }
}

template <class T>
void forward_any(const PoolProblem& problem, const PoolArguments& arguments,
                 const PoolOptions& options) {
  const Maps<T> x = typed<T>(arguments.x);
  const Maps<T> y = typed<T>(arguments.y);
  const Maps<std::int64_t> indices = typed<std::int64_t>(arguments.indices);
  if (problem.op == PoolOp::lp) {
    lp_forward(problem, x, y, options.threads);
  } else if (problem.op != PoolOp::stochastic) {
    forward(problem, x, y, indices, options);
  } else if (arguments.uniforms.data == nullptr) {
    stochastic_mean(problem, x, y, options.threads);
  } else {
    stochastic_draw(problem, x, typed<double>(arguments.uniforms), y, indices,
                    options.threads);
  }
}

}  // namespace

bool gathers_choices(const PoolProblem& problem) {
  return PoolWindows(problem).most_readers() <= kMostGatheredChoices;
}

void gather_chosen(const PoolProblem& problem, const TensorView& dy, const TensorView& indices,
                   const TensorView& dx, int threads) {
  const auto run = problem.dtype == DType::float32 ? gather_choices<float> : gather_choices<double>;
  run(problem, PoolWindows(problem), dy, {}, indices, dx, {threads, {}});
}

void pool(const PoolProblem& problem, const PoolArguments& arguments,
          const PoolOptions& options) {
  if (problem.batch == 0) return;
  if (problem.dtype == DType::float32) {
    forward_any<float>(problem, arguments, options);
  } else {
    forward_any<double>(problem, arguments, options);
  }
}

void pool_backward(const PoolProblem& problem, const TensorView& dy, const TensorView& x,
                   const TensorView& dx, const PoolOptions& options) {
  if (problem.batch == 0) return;
  if (problem.dtype == DType::float32) {
    backward<float>(problem, dy, x, dx, options);
  } else {
    backward<double>(problem, dy, x, dx, options);
  }
}

}  // namespace convolith
