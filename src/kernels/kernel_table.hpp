#pragma once

// What an ISA unit exports: plain structs of function pointers, no inline function and no
// template of the standard library, so that nothing of an ISA unit can leak into another.

#include <cstdint>

#include "convolith/types.hpp"
#include "kernels/fft_table.hpp"
#include "kernels/winograd_table.hpp"

namespace convolith {

template <class T>
struct ColumnSumsKernels;
template <class T>
struct DepthwiseKernels;
template <class T>
struct GroupedKernels;
template <class T>
struct NarrowGradientKernels;
template <class T>
struct PoolingKernels;
template <class T>
struct TrainingKernels;
template <class T>
struct WeightGemmKernels;
template <class T>
struct WinogradGradientKernels;

/// Which index of a tile the bias runs along.
enum class BiasAxis : std::uint8_t { none, rows, columns };

/// tile = activation(tile + bias + residual)
template <class T>
struct TileEpilogue {
  const T* bias;  ///< of the tile's first row or column
  BiasAxis bias_axis;
  const T* residual;  ///< of the tile's first element; null: none
  std::int64_t residual_row_stride, residual_column_stride;
  Activation activation;
  T slope;
};

/// The outermost pixels of a tile.
enum TileEdge : unsigned { kFirstPixel = 1, kLastPixel = 2 };

/// One kernel tap of a tile: where its source begins and where its weights do, in elements.
struct Tap {
  std::int64_t source;
  std::int64_t weight;
  unsigned padded_edges = 0;  ///< under which of the outermost pixels it finds padding; one at most
};

/// output[r, j] (+)= sum over taps t, channels c of products of source and weight. In channels_last
/// the sums may be finished: with a bias, a residual, and limited to [least, greatest].
template <class T>
struct GatherTile {
  const Tap* taps;
  std::int64_t tap_count;
  std::int64_t channels;               ///< reduced under each tap
  const T* source;
  std::int64_t source_pixel_stride;    ///< between the sources of neighbouring output pixels
  std::int64_t source_channel_stride;  ///< channels_last: 1, or of one tap whose pixels touch
  const T* weight;                     ///< panel [tap][channel][tile columns or rows]
  std::int64_t panel_stride;  ///< channels_last: to that of the channels beyond tile_columns
  T* output;
  std::int64_t output_pixel_stride;
  std::int64_t output_channel_stride;
  int pixels, out_channels;            ///< extents of the tile
  int tile_pixels;  ///< channels_last: of the equal register tiles that the pixels are cut into, at
                    ///< most
  bool accumulate, finishes;
  bool pairs;        ///< of terms: tiles over two panels of channels, of paired_rows
  bool past_caches;  ///< the output, which is aligned and not accumulated, goes past the caches
  const T* bias;                       ///< of its channels; null: none
  const T* residual;                   ///< null: none
  std::int64_t residual_pixel_stride;
  T least, greatest;
  unsigned edges;  ///< those of the taps' edges at which the pixels stand; channels_last alone
  bool streams;    ///< pixels, which touch, come from memory; channels_last alone
  std::int64_t first_channel;  ///< where they stream: a pixel's channels before those of the tile
};

/// Lines of output pixels of a few channels: output[channel, line, column] = sum over terms t of
/// weight[t, channel] * source[offsets[t] + line * source_line_stride + column].
template <class T>
struct PixelTile {
  int channels;  ///< tile_rows at most
  std::int64_t lines;
  std::int64_t columns;  ///< of each line; pixel_shape's at most if it continues or has no output
  std::int64_t terms;
  const T* weight;  ///< panel [term][tile_rows]
  const T* source;
  const std::int64_t* offsets;
  std::int64_t source_line_stride;
  bool reads_whole_vectors;  ///< beyond the last column
  bool streams;              ///< the columns that follow come from memory: they are fetched
  /// Sums of earlier terms, if it continues: [line][channel][column], whole vectors.
  T* partial;
  bool continues;
  T* output;  ///< null: the sums go to `partial`
  std::int64_t output_line_stride;
  std::int64_t output_channel_stride;
  bool interleaves;  ///< instead, channels are contiguous, and pixels together
  bool finishes;     ///< with a bias for each channel, if not null, and limits
  const T* bias;
  T least, greatest;
};

/// The lines and the columns of pixels that a tile takes at a time.
struct PixelShape {
  int lines, columns;
};

/// A run of output pixels and the input pixels under one tap.
struct Segment {
  std::int64_t x, y;   ///< offsets of the first pixel, in elements
  std::int64_t count;  ///< pixels
};

/// gradient[c, k] += sum over segments, pixels p of x[p, c] * y[p, k]
template <class T>
struct WeightGradientTile {
  const Segment* segments;
  std::int64_t segment_count;
  const T* x;
  const T* y;
  std::int64_t x_pixel_stride, x_channel_stride;
  std::int64_t y_pixel_stride, y_channel_stride;
  T* gradient;                       ///< [c][k], k contiguous
  std::int64_t gradient_row_stride;  ///< between values of c
  int in_channels, out_channels;     ///< extents of the tile
};

/// Elements that lie together in source and destination; zeros where source is null.
template <class T>
struct CopySegment {
  const T* source;
  T* destination;
  std::int64_t count;
};

template <class T>
struct Kernels {
  int lanes;         ///< of a vector
  int tile_rows;     ///< of a register tile, at most
  int overlapping_rows;  ///< with which the products of a tile begin while the last one is stored
  int tile_columns;  ///< two vectors
  int paired_rows;   ///< of a register tile of two panels of columns, at most; 0: there is none

  /// c[rows, columns] (+)= a[k][tile_rows]^T b[k][tile_columns]; c's columns are contiguous.
  void (*gemm_tile)(int rows, int columns, std::int64_t k, const T* a, const T* b, T* c,
                    std::int64_t c_row_stride, bool accumulate);

  /// Lanes are output pixels, read where they lie. pixel_shape is that of the next tile where so
  /// many columns are left; at most interleaved_channels channels can be interleaved.
  PixelShape (*pixel_shape)(int channels, std::int64_t columns);
  void (*pixel_tile)(const PixelTile<T>& tile);
  int interleaved_channels;

  /// Products of thin_rows rows at most and any number of columns, which are contiguous in c.
  int thin_rows;

  /// As gemm_tile with rows of B where they lie: b[offsets[k] + column].
  void (*gemm_offsets_tile)(int rows, int columns, std::int64_t k, const T* a, const T* b,
                            const std::int64_t* offsets, T* c, std::int64_t c_row_stride,
                            bool accumulate);

  /// c[r, j] (+)= sum of a[r * a_row_stride + p] * b[j * b_column_stride + p] over p < k
  void (*dot_products)(int rows, std::int64_t columns, std::int64_t k, const T* a,
                       std::int64_t a_row_stride, const T* b, std::int64_t b_column_stride, T* c,
                       std::int64_t c_row_stride, bool accumulate);

  /// panel[p][i] = source[i * lane_stride + p * k_stride] for i < valid, 0 for valid <= i < width
  void (*pack_panel)(int width, int valid, std::int64_t k, const T* source,
                     std::int64_t lane_stride, std::int64_t k_stride, T* panel);

  void (*copy_segments)(const CopySegment<T>* segments, int count);

  /// Before another thread reads what went past the caches.
  void (*drain_streams)();

  /// destination[r * row_stride + i] = 0
  void (*clear_rows)(std::int64_t rows, std::int64_t columns, T* destination,
                     std::int64_t row_stride);

  /// destination[i] = source[i * step]
  void (*copy_strided)(std::int64_t count, const T* source, std::int64_t step, T* destination);

  /// destination[j * row_stride + i * step] = source[i * row_stride + j * step], each with its own
  /// strides, for i < rows and j < columns
  void (*transpose)(std::int64_t rows, std::int64_t columns, const T* source,
                    std::int64_t source_row_stride, std::int64_t source_step, T* destination,
                    std::int64_t destination_row_stride, std::int64_t destination_step);

  /// destination[c * destination_stride + i] = source[i * pixel_stride + c * channel_stride]
  void (*split_channels)(std::int64_t pixels, std::int64_t channels, const T* source,
                         std::int64_t pixel_stride, std::int64_t channel_stride, T* destination,
                         std::int64_t destination_stride);

  /// panel[(places[t] * channels + c) * width + i] = source[i * lane_stride + c * taps + t] for
  /// i < valid, 0 for valid <= i < width; taps with a negative place are left out.
  void (*pack_taps)(int width, int valid, const T* source, std::int64_t lane_stride,
                    std::int64_t channels, std::int64_t taps, const std::int64_t* places,
                    T* panel);

  /// Lanes are output channels: contiguous in weight and output, weight panel tile_columns wide.
  /// Any number of pixels; two panels of channels at most where there are paired_rows, else one.
  void (*gather_channels_last)(const GatherTile<T>& tile);

  /// The same for short runs of products and any number of output channels: term t reads
  /// source[offsets[t]], its weights for panel p lie at weight[p * panel_stride + t *
  /// tile_columns]; taps, channels and tile_pixels are not read.
  void (*gather_terms_channels_last)(const GatherTile<T>& tile, const std::int64_t* offsets,
                                     std::int64_t terms, std::int64_t panel_stride);

  /// Lanes are output pixels, weight panel tile_rows wide. tile_columns pixels at most.
  void (*gather_channels_first)(const GatherTile<T>& tile);

  /// One source channel for each output channel; lanes are channels, tile_columns at most;
  /// weights [tap][channel].
  void (*gather_depthwise)(const GatherTile<T>& tile);

  /// Lanes are out_channels: tile_rows in_channels x tile_columns out_channels at most.
  void (*weight_gradient_channels_last)(const WeightGradientTile<T>& tile);

  /// Lanes are pixels: gradient_block x gradient_block channels at most.
  void (*weight_gradient_channels_first)(const WeightGradientTile<T>& tile);
  int gradient_block;

  /// Lanes are channels, y[p, k] times x[p, k]: gradient is one row, any number of out_channels.
  void (*weight_gradient_depthwise)(const WeightGradientTile<T>& tile);

  void (*epilogue)(const TileEpilogue<T>& epilogue, int rows, int columns, T* tile,
                   std::int64_t row_stride, std::int64_t column_stride);

  /// destination[i] += source[i]
  void (*add)(std::int64_t count, const T* source, T* destination);

  /// Sum of count elements that lie stride apart; no chain of more than 512 additions.
  T (*sum)(std::int64_t count, const T* source, std::int64_t stride);

  const ColumnSumsKernels<T>* column_sums;
  const DepthwiseKernels<T>* depthwise;
  const FftKernels<T>* fft;
  const GroupedKernels<T>* grouped;
  const NarrowGradientKernels<T>* narrow_gradient;
  const PoolingKernels<T>* pooling;
  const TrainingKernels<T>* training;
  const WeightGemmKernels<T>* weight_gemm;
  const WinogradKernels<T>* winograd;
  const WinogradGradientKernels<T>* winograd_gradient;

  /// Runs `rounds` rounds of independent FMAs in registers and returns the flops of one round.
  std::int64_t (*fma_rounds)(std::int64_t rounds);
};

struct KernelTable {
  const char* isa;
  int vector_bytes;
  Kernels<float> float32;
  Kernels<double> float64;
};

/// Longest chain of sequential additions in a kernel before it folds into memory.
inline constexpr int kMaxChain = 512;

}  // namespace convolith
