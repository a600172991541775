#pragma once

// The kernels of implicit GEMM for the gradient of weights.

#include <cstdint>

namespace convolith {

/// Neighbouring pixels of two operands whose products are summed: where they begin, in elements.
struct PixelRun {
  std::int64_t rows, columns;
  std::int64_t count;
};

/// sum[l, r, c] (+)= sum over runs, pixels p of rows[p, l, r] * columns[p, c]
template <class T>
struct WeightGemmTile {
  const PixelRun* runs;
  std::int64_t run_count;
  const T* rows;  ///< neighbours for neighbouring r
  std::int64_t rows_pixel_stride, rows_line_stride;
  const T* columns;  ///< neighbours for neighbouring c
  std::int64_t columns_pixel_stride;
  T* sum;
  std::int64_t sum_row_stride;  ///< those of a line follow those of the last
  /// Two vectors and tile_rows rows at most, or one and twice as many. Lines: 1, or with one vector
  /// any of kWeightGemmLines, as long as all their rows are no more.
  int row_count, vectors, lines;
  bool accumulate;
  const T* prefetch;  ///< what is wanted later, one piece for each pixel
  std::int64_t prefetch_stride;
};

constexpr int kWeightGemmLines[] = {3, 5, 7};

/// sums[t, k], a vector each, += sum over rows r, vectors of columns i of x[r, i + t] * y[k, r, i]
template <class T>
struct PixelGradientTile {
  const T* x;
  std::int64_t x_row_stride;
  const T* y;
  std::int64_t y_row_stride, y_channel_stride;
  std::int64_t rows, columns;
  int taps, channels;  ///< pixel_taps and pixel_channels(taps) at most
  T* sums;
  std::int64_t sums_tap_stride;
};

template <class T>
struct WeightGemmKernels {
  void (*tile)(const WeightGemmTile<T>& tile);

  /// panels[i][p * pixel_stride + c] = source[p * source_stride + first(i) + c] for `count` panels
  /// panel_stride apart, among which the channels are shared as evenly as can be.
  void (*pack_rows)(std::int64_t pixels, std::int64_t channels, const T* source,
                    std::int64_t source_stride, std::int64_t count, T* panels,
                    std::int64_t panel_stride, std::int64_t pixel_stride);

  int pixel_taps;
  int (*pixel_channels)(int taps);
  void (*pixel_tile)(const PixelGradientTile<T>& tile);
};

}  // namespace convolith
