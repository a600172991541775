#include "convolith/pooling.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <type_traits>
#include <utility>

#include "pooling/geometry.hpp"
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

/// Runs a kernel over every map. `pass` holds the windows.
template <class T>
void run_pass(const PoolProblem& problem, PoolPass<T> pass, Kernel<T> kernel, const Maps<T>& x,
              const Maps<T>& y, const Maps<std::int64_t>& indices, int threads) {
  pass.lanes_are_channels = lanes_are_channels(problem, x);
  pass.x_pixel_stride = x.pixel_stride;
  pass.x_channel_stride = x.channel_stride;
  pass.y_pixel_stride = y.pixel_stride;
  pass.y_channel_stride = y.channel_stride;
  pass.indices_pixel_stride = indices.pixel_stride;
  pass.indices_channel_stride = indices.channel_stride;
  const std::int64_t rows = pass.depth.output * pass.height.output;
  const std::int64_t taps = pass.depth.most_taps * pass.height.most_taps * pass.width.most_taps;
  const int team = worthwhile_threads(
      threads, problem.batch * problem.channels * rows * pass.width.output * taps);
  const std::int64_t wanted = 4 * team / (problem.batch * rows) + 1;
  const std::int64_t block = pass.lanes_are_channels
                                 ? channel_block(problem.channels, wanted)
                                 : (problem.channels - 1) / wanted + 1;
  const MapGrid grid{problem.batch, problem.channels, block, rows};
  grid.run(team, [&](std::int64_t n, std::int64_t c, std::int64_t channels, std::int64_t begin,
                     std::int64_t end, int) {
    PoolPass<T> map = pass;
    map.channels = channels;
    map.x = x.sample(n, c);
    map.y = y.sample(n, c);
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
  windows.merge();
  PoolWindows readers = windows.transposed();
  const Kernel<T> sum = pooling_kernels<T>(options.isa).sum;
  const Maps<T> target = typed<T>(dx);
  Maps<T> source = typed<T>(dy);
  bool divide = problem.op == PoolOp::average;
  const bool uniform =
      std::all_of(std::begin(windows.axes), std::end(windows.axes), uniform_divisor);
  if (divide && uniform) {
    for (int i = 0; i < kSpatialAxes; ++i) {
      readers.axes[i].divisor.assign(readers.axes[i].output(), windows.axes[i].divisor.front());
    }
  }
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

template <class T>
void max_backward(const PoolProblem& problem, const TensorView& dy_view, const TensorView& x_view,
                  const TensorView& dx_view, const PoolOptions& options) {
  PoolWindows windows(problem);
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
