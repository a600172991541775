#pragma once

// The depthwise kernels' part of the table.

#include <cstdint>

namespace convolith {

/// What becomes of a finished sum, after the bias it began with.
template <class T>
struct SumStore {
  bool clamp;
  T least, greatest;
};

/// Lanes are channels. A kernel of fixed extent rolls along a few rows of outputs, so that every
/// input pixel is read once.
template <class T>
struct DepthwiseRoll {
  const T* const* rows;  ///< [plane][row] of the source, a pixel of zeros in padding
  /// For each of them, how far from it a column's pixel lies. Tables of a row in padding are of
  /// zeros.
  const std::int64_t* const* row_columns;
  const std::int64_t* columns;  ///< table of a row that exists; -1: the column counts as zero
  std::int64_t first_column;    ///< in the tables
  std::int64_t planes, plane_rows;
  const std::int64_t* plane_weights;  ///< offsets of the planes' weights
  int stride;                         ///< 1 or 2, of rows and columns
  int output_rows;
  std::int64_t output_columns;
  const T* weight;  ///< [vector][tap][lane]; the last vector is of the last channels
  std::int64_t vector_weights;
  const T* bias;  ///< null: none
  T* output;
  std::int64_t output_row_stride, output_column_stride;
  std::int64_t channel_begin, channel_end;  ///< one vector at least
  SumStore<T> store;
};

/// Lanes are channels, for kernels of any extent. A block is a few outputs of a row; its inputs
/// are listed as pointers to pixels. Blocks follow one another along the row.
template <class T>
struct DepthwiseBlocks {
  const T* const* pixels;            ///< [slab][column] of the first block; a slab is a kernel row
  std::int64_t slab_pixels;
  const std::int64_t* slab_weights;  ///< offsets of the slabs' weights
  std::int64_t slabs;
  int stride;                        ///< between the first columns of neighbouring outputs
  std::int64_t kernel_width;         ///< taps of a slab
  int columns;                       ///< outputs of a block
  std::int64_t blocks;
  std::int64_t source_step;          ///< between the inputs of neighbouring blocks
  const T* weight;                   ///< [vector of output channels][tap][lane]
  std::int64_t vector_weights;
  const T* bias;                     ///< null: none
  T* output;
  std::int64_t output_column_stride;
  std::int64_t channel_begin, channel_end;
  std::int64_t multiplier;           ///< output channels for each input channel
  SumStore<T> store;
};

/// packed[place + i] = row[column + i * step] for i < count
struct PackedRun {
  std::int64_t place, column, step, count;
};

/// Lanes are pixels of a row. Rows of the source are packed with their padding, the columns of
/// one residue of the stride together, so that all loads are of whole vectors; or they are read
/// where they lie, with zeros around them. Then output rows are summed, several at a time.
template <class T>
struct DepthwiseRows {
  const T* source;                   ///< of the sample and channel
  const std::int64_t* row_sources;   ///< [plane][row]; -1: zeros
  std::int64_t planes, plane_rows;   ///< taps of the depth, and rows that are packed for each
  const PackedRun* runs;             ///< a column of -1: zeros
  std::int64_t run_count;
  T* packed;  ///< [plane][row][packed_stride]; null: rows stay in place
  std::int64_t packed_stride;
  const T** packed_rows;             ///< room for plane_rows * planes pointers
  const T* zeros;                    ///< a packed row of them, or one of the source
  std::int64_t kernel_height, kernel_width;
  const std::int64_t* tap_columns;   ///< of a kernel row's taps in a packed row, or in place
  std::int64_t source_columns;       ///< of a row in place
  const std::int64_t* plane_weights; ///< offsets of the planes' weights
  int stride;                        ///< packed rows from one output row to the next
  const T* weight;
  T bias;
  T* output;
  std::int64_t output_row_stride, output_column_stride;
  std::int64_t rows, columns;
  SumStore<T> store;
};

/// A narrow plane, packed and flattened: output i is the sum over the taps of
/// packed[tap_places[t] + i]. Lanes that belong to no column are squeezed out.
template <class T>
struct DepthwiseFlat {
  const T* source;
  const std::int64_t* row_sources;  ///< -1: zeros
  const std::int64_t* row_places;
  std::int64_t row_count;
  const PackedRun* runs;
  std::int64_t run_count;
  T* packed;
  const std::int64_t* tap_places;
  std::int64_t taps;
  const T* weight;
  T bias;
  T* output;
  std::int64_t vectors, outputs;
  const std::int32_t* lanes;   ///< [vector][lane]: the one that goes there
  const std::int32_t* places;  ///< in the output, of each vector's first lane
  SumStore<T> store;
};

/// Squares of three, five and seven, of stride 1 and 2, have code of their own.
template <class T>
struct DepthwiseKernels {
  int roll_rows[3];  ///< most output rows of a roll, for 3, 5 and 7
  int kernel_in_place;  ///< extent of the fixed kernel whose rows may stay in place; 0: none
  void (*roll)(const DepthwiseRoll<T>& roll, int kernel);
  void (*blocks)(const DepthwiseBlocks<T>& blocks);
  /// `kernel` is the extent of a fixed kernel, or 0 for any.
  void (*rows)(const DepthwiseRows<T>& rows, int kernel);
  void (*flat)(const DepthwiseFlat<T>& flat);
};

/// Most columns of a block.
inline constexpr int kDepthwiseColumns = 8;

}  // namespace convolith
