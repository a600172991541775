#pragma once

// The pooling kernels' part of the table.

#include <cstdint>

namespace convolith {

/// Outputs whose windows are alike and equally far apart: for j in [0, count), output
/// `output + j * output_step` reads the inputs `input + j * input_step + t * step`, t in [0, taps).
/// Inputs that do not exist, which only a padded run may name, are left out.
struct PoolRun {
  std::int64_t output, output_step;
  std::int64_t input, input_step;
  std::int64_t taps;
  std::int64_t count;
  bool padded;  ///< the input step is then 1 or 2, and the step between taps 1
};

/// One axis of a pooling. Windows are clipped to the input: output o reads the inputs
/// first[o] + t * step for t in [0, taps[o]), which may be none.
struct PoolAxis {
  std::int64_t input, output;  ///< extents
  std::int64_t step;
  const std::int64_t* first;
  const std::int64_t* taps;
  std::int64_t most_taps;
};

/// Integers of the width of T, which count pixels in vectors. Larger planes wrap around, which the
/// comparisons that they are for do not mind.
template <class T>
struct PoolIndexOf;
template <>
struct PoolIndexOf<float> {
  using Type = std::int32_t;
};
template <>
struct PoolIndexOf<double> {
  using Type = std::int64_t;
};
template <class T>
using PoolIndex = typename PoolIndexOf<T>::Type;

/// Pooling of several channels of a sample.
template <class T>
struct PoolPass {
  PoolAxis depth, height, width;
  const PoolRun* runs;  ///< of the width: every output is in one of them
  std::int64_t run_count;
  /// Lanes are channels, which touch in all arrays; otherwise outputs along the width, and the
  /// pixels of x touch.
  bool lanes_are_channels;
  std::int64_t channels;
  const T* x;
  std::int64_t x_pixel_stride, x_channel_stride;
  T* y;                     ///< null: not written
  std::int64_t y_pixel_stride, y_channel_stride;
  std::int64_t* indices;    ///< null: not written
  PoolIndex<T>* chosen;     ///< the same, where `indices` is null
  std::int64_t indices_pixel_stride, indices_channel_stride;
  /// Sums are divided by the product of the axes' divisors, one for each output. All or none.
  const T* depth_divisor;
  const T* height_divisor;
  const T* width_divisor;
};

/// The outputs that read each input of an axis: input i is read by first[i] + n * step[i], n in
/// [0, count[i]).
struct PoolReaders {
  std::int64_t input, output;  ///< extents
  const std::int64_t* first;
  const std::int64_t* count;
  const std::int64_t* step;
};

/// Gradient of pooling, of several channels of a sample: dx[i] is the sum of dy over the outputs
/// that read i and, where they choose, chose it; over the divisor.
template <class T>
struct PoolGradient {
  PoolReaders depth, height, width;
  /// Input column q * stride + r is read by the outputs q + offsets[n], n in [begins[r],
  /// begins[r + 1]). Null where windows do not slide.
  const std::int64_t* offsets;
  const std::int64_t* begins;
  std::int64_t stride;
  bool spread;              ///< one output reads all inputs, which then are one row
  bool in_turn;             ///< an input has one reader at most, the next the same or the next
  bool lanes_are_channels;  ///< as of PoolPass
  std::int64_t channels;
  const T* dy;
  std::int64_t dy_pixel_stride, dy_channel_stride;
  const PoolIndex<T>* chosen;  ///< pixel that each output chose; null: outputs are sums
  std::int64_t chosen_pixel_stride, chosen_channel_stride;
  T* dx;
  std::int64_t dx_pixel_stride, dx_channel_stride;
  T divisor;
};

/// Kernels on the output rows [begin, end) of a pass, numbered depth * height.output + height.
template <class T>
struct PoolingKernels {
  void (*max)(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end);
  void (*sum)(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end);

  /// On the input rows [begin, end), numbered alike. Returns how many outputs chose a pixel there.
  std::int64_t (*gradient)(const PoolGradient<T>& gradient, std::int64_t begin, std::int64_t end);

  /// chosen[i] = indices[i]; returns whether all lie in [0, pixels).
  bool (*narrow)(std::int64_t count, const std::int64_t* indices, std::int64_t pixels,
                 PoolIndex<T>* chosen);
};

}  // namespace convolith
