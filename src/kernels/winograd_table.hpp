#pragma once

// The Winograd kernels of an ISA unit. A form is F(m, r) nested for two axes (square) or of one
// axis alone (line, one row); n = m + r - 1. Frequency (i, j) of a square has number i * n + j.

#include <cstdint>

namespace convolith {

/// transformed[f][tile][channel] = (B^T x B)[f] for tiles that lie evenly apart.
template <class T>
struct WinogradInput {
  const T* source;
  std::int64_t row_stride, column_stride;  ///< between the pixels of a tile
  const T* const* pixels;                  ///< unless null: of the one tile's pixels, row by row
  std::int64_t tiles;
  std::int64_t source_tile_stride;
  std::int64_t channels;                   ///< neighbours in memory
  T* transformed;                          ///< filled up with zeros to whole vectors of channels
  std::int64_t frequency_stride, tile_stride;
};

/// transformed[f][channel][lane] = (G w G^T)[f], lanes being channels of the output.
template <class T>
struct WinogradWeight {
  const T* taps;  ///< [channel][tap][lane]
  std::int64_t row_stride, column_stride, channel_stride;
  std::int64_t channels;
  int lanes;  ///< whole vectors
  T* transformed;
  std::int64_t frequency_stride;
};

/// products[tile][column] (+)= sum over terms of tiles[tile][term] * weight[term][column].
template <class T>
struct WinogradProduct {
  int rows, columns;  ///< any number of tiles; columns of a panel, or of two for paired_rows
  std::int64_t terms;
  const T* tiles;
  std::int64_t tile_stride;
  const T* weight;  ///< panel [term][tile_columns]
  std::int64_t panel_stride;  ///< to the second one
  T* products;
  std::int64_t product_stride;
  bool accumulate;
  const T* ahead;  ///< weights that are wanted in L2 next, as many as these
};

/// output = (A^T products A) + bias + residual, limited to [least, greatest], for tiles that lie
/// evenly apart.
template <class T>
struct WinogradOutput {
  const T* products;  ///< [f][tile][channel]
  std::int64_t frequency_stride, tile_stride;
  std::int64_t tiles;
  std::int64_t channels;
  const T* bias;      ///< of the channels; null: none
  T least, greatest;
  T* output;
  std::int64_t row_stride, column_stride;
  std::int64_t output_tile_stride;
  const T* residual;  ///< null: none
  std::int64_t residual_row_stride, residual_column_stride, residual_tile_stride;
  int rows, columns;  ///< how many of the tiles' m x m outputs are wanted
  bool past_caches;   ///< where they go, if they are aligned
};

template <class T>
struct WinogradForm {
  void (*input)(const WinogradInput<T>& input);
  void (*weight)(const WinogradWeight<T>& weight);
  void (*output)(const WinogradOutput<T>& output);
};

/// The F(m, r) that there are kernels for, by number.
struct WinogradSize {
  int outputs, taps;
};
constexpr WinogradSize kWinogradSizes[] = {{2, 3}, {4, 3}, {6, 3}, {2, 5}, {4, 5}};
constexpr int kWinogradSizeCount = 5;

template <class T>
struct WinogradKernels {
  WinogradForm<T> square[kWinogradSizeCount];
  WinogradForm<T> line[kWinogradSizeCount];
  void (*product)(const WinogradProduct<T>& product);

  /// maps[channel * channel_stride + pixel] = strip[pixel][lane], channel and lane being one.
  void (*store_strip)(const T* strip, int pixels, int channels, T* maps,
                      std::int64_t channel_stride);
};

}  // namespace convolith
