#include "cuda/pooling.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "cuda/kernels/numbers.cuh"
#include "cuda/kernels/ptx.cuh"
#include "cuda/launch.hpp"

namespace convolith::cuda {
namespace {

constexpr int kThreads = 256;

/// The window of one output in one channel of one sample.
template <class T>
struct PoolWindow {
  Span spans[kSpatialAxes];
  std::int64_t height, width;  ///< of the input plane
  const T* plane;
  std::int64_t pixel_stride;

  __device__ std::int64_t count() const {
    return spans[0].count * spans[1].count * spans[2].count;
  }
  /// The pixel of the i-th element, in row-major order.
  __device__ std::int64_t pixel(std::int64_t i) const {
    const std::int64_t w = i % spans[2].count;
    const std::int64_t h = i / spans[2].count % spans[1].count;
    const std::int64_t d = i / spans[2].count / spans[1].count;
    return ((spans[0].first + d * spans[0].step) * height + spans[1].first + h * spans[1].step) *
               width + spans[2].first + w * spans[2].step;
  }
  __device__ Wide<T> at(std::int64_t pixel) const { return widen(plane[pixel * pixel_stride]); }
};

template <class T>
__device__ PoolWindow<T> window_of(const PoolRecord& p, std::int64_t output, const T* plane,
                                   std::int64_t pixel_stride) {
  PoolWindow<T> window{{}, p.windows[1].input, p.windows[2].input, plane, pixel_stride};
  for (int axis = kSpatialAxes; axis-- > 0;) {
    const Window& w = p.windows[axis];
    window.spans[axis] = pool_span(w, p.adaptive != 0, output % w.output);
    output /= w.output;
  }
  return window;
}

template <class Number>
__device__ bool is_nan(Number value) {
  return value != value;
}

/// The element that max pooling chooses, -1 in an empty window: the last NaN, else the first of the
/// greatest.
template <class T>
__device__ std::int64_t choose(const PoolWindow<T>& window) {
  std::int64_t chosen = -1;
  Wide<T> best = 0;
  const std::int64_t count = window.count();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t pixel = window.pixel(i);
    const Wide<T> value = window.at(pixel);
    if (chosen < 0 || value > best || is_nan(value)) {
      best = value;
      chosen = pixel;
    }
    // Nothing is greater than a NaN, so that only another one follows it.
  }
  return chosen;
}

template <class T>
__device__ Wide<T> divisor_of(const PoolRecord& p, const PoolWindow<T>& window) {
  if (p.divisor != 0) return static_cast<Wide<T>>(p.divisor);
  if (p.adaptive || !p.count_include_pad) return static_cast<Wide<T>>(window.count());
  return static_cast<Wide<T>>(window.spans[0].padded * window.spans[1].padded *
                              window.spans[2].padded);
}

/// The greatest |x|, NaN if there is one, and the sum of (|x| / greatest)^p.
struct Norm {
  double greatest = 0, sum = 0;

  template <class T>
  __device__ Norm(const PoolWindow<T>& window, double p) {
    const std::int64_t count = window.count();
    for (std::int64_t i = 0; i < count; ++i) {
      const double magnitude = fabs(static_cast<double>(window.at(window.pixel(i))));
      if (!(magnitude <= greatest) && !is_nan(greatest)) greatest = magnitude;
    }
    if (!usable()) return;
    ChainedSum<double> powers;
    for (std::int64_t i = 0; i < count; ++i) {
      const double magnitude = fabs(static_cast<double>(window.at(window.pixel(i))));
      powers.add(pow(magnitude / greatest, p));
    }
    sum = powers.value();
  }
  __device__ bool usable() const { return greatest > 0 && greatest < INFINITY; }
};

/// Of an element of the arrays that a thread serves.
struct Place {
  std::int64_t sample, channel, pixel;
};

__device__ Place place_of(const PoolRecord& p, std::int64_t index, std::int64_t pixels) {
  if (p.layout == static_cast<int>(Layout::channels_last)) {
    return {index / p.channels / pixels, index % p.channels, index / p.channels % pixels};
  }
  return {index / pixels / p.channels, index / pixels % p.channels, index % pixels};
}

template <class T>
__device__ T* plane_of(const Maps<T>& maps, const Place& at) {
  return maps.data + at.sample * maps.sample_stride + at.channel * maps.channel_stride;
}

template <class T>
__device__ Wide<T> pooled(const PoolRecord& p, const PoolWindow<T>& window, std::int64_t* index) {
  switch (static_cast<PoolOp>(p.op)) {
    case PoolOp::max: {
      const std::int64_t chosen = choose(window);
      *index = chosen < 0 ? 0 : chosen;
      return chosen < 0 ? -INFINITY : window.at(chosen);
    }
    case PoolOp::average:
    case PoolOp::sum: {
      ChainedSum<Wide<T>> sum;
      const std::int64_t count = window.count();
      for (std::int64_t i = 0; i < count; ++i) sum.add(window.at(window.pixel(i)));
      if (static_cast<PoolOp>(p.op) == PoolOp::sum) return sum.value();
      return sum.value() / divisor_of(p, window);
    }
    default: {
      const Norm norm(window, p.norm_type);
      if (!norm.usable() || !(p.norm_type < INFINITY)) return static_cast<Wide<T>>(norm.greatest);
      return static_cast<Wide<T>>(norm.greatest * pow(norm.sum, 1 / p.norm_type));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(const __grid_constant__ PoolRecord p, const __grid_constant__ Maps<const T> x,
                const __grid_constant__ Maps<T> y,
                const __grid_constant__ Maps<std::int64_t> indices) {
  const std::int64_t pixels = p.windows[0].output * p.windows[1].output * p.windows[2].output;
  const std::int64_t total = p.batch * p.channels * pixels;
  for (std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; i < total;
       i += gridDim.x * std::int64_t{kThreads}) {
    const Place at = place_of(p, i, pixels);
    const PoolWindow<T> window = window_of(p, at.pixel, plane_of(x, at), x.pixel_stride);
    std::int64_t index = 0;
    plane_of(y, at)[at.pixel * y.pixel_stride] = narrow<T>(pooled(p, window, &index));
    if (indices.data != nullptr) plane_of(indices, at)[at.pixel * indices.pixel_stride] = index;
  }
}

/// What an input gets of the gradient of one output whose window holds it.
template <class T>
__device__ double share(const PoolRecord& p, const PoolWindow<T>& window, std::int64_t pixel,
                        double dy) {
  switch (static_cast<PoolOp>(p.op)) {
    case PoolOp::max: return choose(window) == pixel ? dy : 0;
    case PoolOp::average: return dy / static_cast<double>(divisor_of(p, window));
    case PoolOp::sum: return dy;
    default: {
      const Norm norm(window, p.norm_type);
      const double value = static_cast<double>(window.at(pixel));
      const double sign = value > 0 ? 1.0 : value < 0 ? -1.0 : value;
      if (value == 0) return dy * 0;
      if (!(p.norm_type < INFINITY)) {
        // The first of the greatest, or the last NaN.
        std::int64_t chosen = -1;
        const std::int64_t count = window.count();
        for (std::int64_t i = 0; i < count; ++i) {
          const std::int64_t at = window.pixel(i);
          const double magnitude = fabs(static_cast<double>(window.at(at)));
          const bool found = is_nan(norm.greatest) ? is_nan(magnitude)
                                                   : magnitude == norm.greatest && chosen < 0;
          if (found) chosen = at;
        }
        return chosen == pixel ? dy * sign : 0;
      }
      // (|x| / y)^(p - 1) with y = greatest * sum^(1/p)
      const double sum = norm.usable() ? norm.sum : 1;
      return dy * sign * pow(fabs(value) / norm.greatest, p.norm_type - 1) *
             pow(sum, (1 - p.norm_type) / p.norm_type);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_backward_kernel(const __grid_constant__ PoolRecord p,
                         const __grid_constant__ Maps<const T> dy,
                         const __grid_constant__ Maps<const T> x,
                         const __grid_constant__ Maps<const std::int64_t> indices,
                         const __grid_constant__ Maps<T> dx) {
  const std::int64_t pixels = p.windows[0].input * p.windows[1].input * p.windows[2].input;
  const std::int64_t total = p.batch * p.channels * pixels;
  const bool adaptive = p.adaptive != 0;
  for (std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; i < total;
       i += gridDim.x * std::int64_t{kThreads}) {
    const Place at = place_of(p, i, pixels);
    const std::int64_t inputs[] = {at.pixel / p.windows[2].input / p.windows[1].input,
                                   at.pixel / p.windows[2].input % p.windows[1].input,
                                   at.pixel % p.windows[2].input};
    ChainedSum<Wide<T>> sum;
    for (std::int64_t a = 0; a < reader_count(p.windows[0], adaptive, inputs[0]); ++a) {
      const std::int64_t d = reader(p.windows[0], adaptive, inputs[0], a);
      if (d < 0) continue;
      for (std::int64_t b = 0; b < reader_count(p.windows[1], adaptive, inputs[1]); ++b) {
        const std::int64_t h = reader(p.windows[1], adaptive, inputs[1], b);
        if (h < 0) continue;
        for (std::int64_t c = 0; c < reader_count(p.windows[2], adaptive, inputs[2]); ++c) {
          const std::int64_t w = reader(p.windows[2], adaptive, inputs[2], c);
          if (w < 0) continue;
          const std::int64_t o = (d * p.windows[1].output + h) * p.windows[2].output + w;
          const Wide<T> slope = widen(plane_of(dy, at)[o * dy.pixel_stride]);
          if (indices.data != nullptr) {
            if (plane_of(indices, at)[o * indices.pixel_stride] == at.pixel) sum.add(slope);
            continue;
          }
          const PoolWindow<T> window = window_of(p, o, plane_of(x, at), x.pixel_stride);
          const double part = share(p, window, at.pixel, static_cast<double>(slope));
          sum.add(static_cast<Wide<T>>(part));
        }
      }
    }
    plane_of(dx, at)[at.pixel * dx.pixel_stride] = narrow<T>(sum.value());
  }
}

/// A block for 32 channels that touch, or for one channel whose pixels do.
template <class T, bool kChannelsTouch>
__global__ void __launch_bounds__(kThreads)
    channel_sums_kernel(const __grid_constant__ Maps<const T> maps, std::int64_t batch,
                        std::int64_t channels, std::int64_t pixels, T* sums) {
  constexpr int kAcross = kChannelsTouch ? 32 : 1, kDown = kThreads / kAcross;
  auto* const partial = dynamic_shared<Wide<T>>();
  const int across = static_cast<int>(threadIdx.x) % kAcross;
  const int down = static_cast<int>(threadIdx.x) / kAcross;
  for (std::int64_t first = blockIdx.x * std::int64_t{kAcross}; first < channels;
       first += gridDim.x * std::int64_t{kAcross}) {
    const std::int64_t channel = first + across;
    ChainedSum<Wide<T>> sum;
    for (std::int64_t term = down; channel < channels && term < batch * pixels; term += kDown) {
      sum.add(widen(maps.data[term / pixels * maps.sample_stride +
                              term % pixels * maps.pixel_stride + channel * maps.channel_stride]));
    }
    partial[threadIdx.x] = sum.value();
    __syncthreads();
    for (int half = kDown / 2; half > 0; half /= 2) {
      if (down < half) partial[threadIdx.x] += partial[threadIdx.x + half * kAcross];
      __syncthreads();
    }
    if (down == 0 && channel < channels) sums[channel] = narrow<T>(partial[across]);
    __syncthreads();
  }
}

unsigned blocks(std::int64_t count, int each) {
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(divide_up(count, each), 1, std::int64_t{1} << 30));
}

}  // namespace

void enqueue_pool(const PoolRecord& p, const TensorView& x, const TensorView& y,
                  const TensorView& indices) {
  const std::int64_t outputs =
      p.batch * p.channels * p.windows[0].output * p.windows[1].output * p.windows[2].output;
  if (outputs == 0) return;
  with_type(static_cast<DType>(p.dtype), [&](auto zero) {
    using T = decltype(zero);
    launch(pool_kernel<T>, blocks(outputs, kThreads), kThreads, 0, p, typed<const T>(x),
           typed<T>(y), typed<std::int64_t>(indices));
  });
}

void enqueue_pool_backward(const PoolRecord& p, const TensorView& dy, const TensorView& x,
                           const TensorView& indices, const TensorView& dx) {
  const std::int64_t inputs =
      p.batch * p.channels * p.windows[0].input * p.windows[1].input * p.windows[2].input;
  if (inputs == 0) return;
  with_type(static_cast<DType>(p.dtype), [&](auto zero) {
    using T = decltype(zero);
    launch(pool_backward_kernel<T>, blocks(inputs, kThreads), kThreads, 0, p,
           typed<const T>(dy), typed<const T>(x), typed<const std::int64_t>(indices),
           typed<T>(dx));
  });
}

void enqueue_channel_sums(DType dtype, Layout layout, const TensorView& maps, std::int64_t batch,
                          std::int64_t channels, std::int64_t pixels, void* sums) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const bool touch = layout == Layout::channels_last;
    launch(touch ? channel_sums_kernel<T, true> : channel_sums_kernel<T, false>,
           blocks(channels, touch ? 32 : 1), kThreads, kThreads * sizeof(Wide<T>),
           typed<const T>(maps), batch, channels, pixels, static_cast<T*>(sums));
  });
}

}  // namespace convolith::cuda
