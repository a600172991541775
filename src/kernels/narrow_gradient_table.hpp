#pragma once

// The kernels for the gradient of weights in groups so narrow that a vector holds several.

#include <cstdint>

namespace convolith {

/// Neighbouring pixels of the output's gradient, and of the source under one tap: where they begin.
struct NarrowRun {
  std::int64_t x, y;
  std::int64_t count;
};

/// gradient[row, column, c][lane] += sum over runs, pixels p of x[p + row, column][lane's group, c]
/// * y[p][lane], for a vector of channels of the output; x at the first one's group.
template <class T>
struct NarrowGradient {
  const NarrowRun* runs;
  std::int64_t run_count;
  const T* x;
  const T* y;
  std::int64_t x_pixel_stride, y_pixel_stride;       ///< between neighbouring outputs
  std::int64_t row_stride, column_stride;            ///< between taps, of x
  T* gradient;
  std::int64_t gradient_row_stride, gradient_column_stride, gradient_channel_stride;
  int rows, columns;  ///< taps: rows * columns * channels <= most_sums
  int lanes;          ///< of a vector that are used
};

template <class T>
struct NarrowGradientKernels {
  int most_rows, most_columns;
  int most_sums;         ///< of all taps and channels of a call
  int most_rolled_sums;  ///< best no more where neighbouring outputs share columns of x

  /// For groups of 1, 2, 4 and 8 channels, of x and of y.
  void (*channels[4])(const NarrowGradient<T>& gradient);
};

}  // namespace convolith
