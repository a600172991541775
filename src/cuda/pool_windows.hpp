#pragma once

// The windows of a pooling: index arithmetic for the host and the device.

#include <cstdint>

#include "convolith/pooling.hpp"

namespace convolith::cuda {

/// A pooling, as the library's callers describe it: a PoolProblem's fields in a fixed layout.
struct PoolRecord {
  std::int32_t op, dtype, layout, adaptive, count_include_pad, reserved;
  std::int64_t batch, channels;
  std::int64_t divisor;  ///< 0: none given
  double norm_type;
  Window windows[kSpatialAxes];
};

/// The inputs of one output on one axis: first, first + step, ...
struct Span {
  std::int64_t first, step, count;
  std::int64_t padded;  ///< extent of the window clipped to the padded input
};

constexpr std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
  return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

constexpr Span pool_span(const Window& w, bool adaptive, std::int64_t o) {
  if (adaptive) {
    const std::int64_t first = o * w.input / w.output;
    const std::int64_t count = ceil_divide((o + 1) * w.input, w.output) - first;
    return {first, 1, count, count};
  }
  const std::int64_t start = o * w.stride - w.before;
  const std::int64_t begin = start < 0 ? ceil_divide(-start, w.dilation) : 0;
  const std::int64_t fitting = ceil_divide(w.input - start, w.dilation);
  const std::int64_t end = fitting < w.kernel ? fitting : w.kernel;
  const std::int64_t reach =
      start + w.kernel < w.input + w.after ? start + w.kernel : w.input + w.after;
  return {start + begin * w.dilation, w.dilation, end > begin ? end - begin : 0, reach - start};
}

/// The outputs whose windows may hold input i are numbered; some of the numbers have none, -1.
constexpr std::int64_t reader_count(const Window& w, bool adaptive, std::int64_t i) {
  if (!adaptive) return w.kernel;
  return ceil_divide((i + 1) * w.output, w.input) - i * w.output / w.input;
}

constexpr std::int64_t reader(const Window& w, bool adaptive, std::int64_t i, std::int64_t j) {
  if (adaptive) return i * w.output / w.input + j;
  // From the last tap on: outputs ascend.
  const std::int64_t distance = i + w.before - (w.kernel - 1 - j) * w.dilation;
  if (distance < 0 || distance % w.stride != 0) return -1;
  const std::int64_t o = distance / w.stride;
  return o < w.output ? o : -1;
}

}  // namespace convolith::cuda
