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
  std::int64_t indices_pixel_stride, indices_channel_stride;
  /// Sums are divided by the product of the axes' divisors, one for each output. All or none.
  const T* depth_divisor;
  const T* height_divisor;
  const T* width_divisor;
};

/// Kernels on the output rows [begin, end) of a pass, numbered depth * height.output + height.
template <class T>
struct PoolingKernels {
  void (*max)(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end);
  void (*sum)(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end);
};

}  // namespace convolith
