#pragma once

// The Winograd kernels for the gradient of weights: F(r, m) correlates tiles of the source with
// tiles of m x m gradients of the output, and gives r x r taps. The source is transformed as for
// the forward F(m, r), which has the same B^T.

#include <cstdint>

#include "kernels/winograd_table.hpp"

namespace convolith {

/// transformed[f][tile][lane] = (G y G^T)[f] for tiles that lie evenly apart.
template <class T>
struct WinogradOutputGradient {
  const T* source;
  std::int64_t row_stride, column_stride;  ///< between the pixels of a tile
  const T* const* pixels;                  ///< unless null: of the one tile's pixels, row by row
  std::int64_t tiles;
  std::int64_t source_tile_stride;
  int channels;                            ///< neighbours in memory
  int lanes;                               ///< whole vectors; zeros behind the channels
  T* transformed;
  std::int64_t frequency_stride, tile_stride;
};

/// gradient[row][tap][lane] = (A^T products A)[tap]
template <class T>
struct WinogradWeightGradient {
  const T* products;  ///< [f][row][lane]
  std::int64_t frequency_stride;
  std::int64_t rows;
  int lanes;          ///< whole vectors
  T* gradient;
};

template <class T>
struct WinogradGradientForm {
  void (*output)(const WinogradOutputGradient<T>& output);
  void (*weight)(const WinogradWeightGradient<T>& weight);
};

template <class T>
struct WinogradGradientKernels {
  WinogradGradientForm<T> square[kWinogradSizeCount];  ///< as kWinogradSizes counts them
};

}  // namespace convolith
