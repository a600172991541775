#pragma once

// The grouped kernels' part of the table: groups of few channels, as many written as read.

#include <cstdint>

#include "kernels/depthwise_table.hpp"
#include "kernels/stride_two_table.hpp"

namespace convolith {

/// Lanes are the channels of several groups, or of a part of one. A block is a grid of
/// rows x columns outputs, its inputs listed as pointers to pixels; blocks follow one another
/// along a row.
template <class T>
struct GroupedBlocks {
  /// [slab][row][column], of the first block. With a kernel of 3 x 3 a slab is a plane of the
  /// kernel and neighbouring outputs lie `stride` pixels apart; else it is one row of the kernel,
  /// for one row of outputs.
  const T* const* pixels;
  std::int64_t slab_pixels;
  const std::int64_t* slab_weights;  ///< offsets of the slabs' weights in a vector's
  std::int64_t slabs;
  int stride;
  std::int64_t kernel_width;
  int rows, columns;  ///< outputs of a block
  std::int64_t blocks;
  std::int64_t source_step;  ///< between the inputs of neighbouring blocks
  std::int64_t group_channels, channels;
  const T* weight;             ///< [vector][channel of the group][tap][lane], slab by slab
  std::int64_t vector_weights;
  const T* bias;               ///< null: none
  T* output;
  std::int64_t output_row_stride, output_column_stride;
  std::int64_t vector_begin, vector_end;
  SumStore<T> store;
};

/// Lanes are pixels. The channels of a group are packed with their padding; every vector of
/// outputs then lies somewhere in that buffer, its terms at the same distances for all.
template <class T>
struct GroupedRows {
  const T* source;                  ///< of the sample and the group's first channel
  std::int64_t source_channel_stride;
  std::int64_t channels;            ///< of a group
  const std::int64_t* row_sources;  ///< -1: zeros
  const std::int64_t* row_places;
  std::int64_t row_count;
  std::int64_t row_length;          ///< of what a row of zeros must fill; 0: they are there
  const PackedRun* runs;
  std::int64_t run_count;
  T* packed;
  std::int64_t packed_channel_stride;
  const std::int64_t* term_places;  ///< [channel][tap]
  std::int64_t terms;
  const std::int64_t* vector_places;  ///< in the buffer
  const std::int64_t* vector_outputs; ///< offsets of the vectors' first pixels
  const std::int32_t* vector_counts;  ///< of lanes that are written
  const std::int32_t* lanes;          ///< [vector][lane]: the one that goes there; null: as it is
  std::int64_t vectors;
  const T* weight;                  ///< [block of channels][term][channel]
  const T* bias;                    ///< of the group's first channel; null: none
  T* output;
  std::int64_t output_channel_stride, output_column_stride;
  SumStore<T> store;
};

template <class T>
struct GroupedKernels {
  int block_rows, block_columns;  ///< of a block with a kernel of 3 x 3
  int channel_block;              ///< output channels that share the pixels they load
  /// `fixed`: a kernel of 3 x 3 and stride 1 or 2, whole groups in whole vectors.
  void (*blocks)(const GroupedBlocks<T>& blocks, bool fixed);
  void (*rows)(const GroupedRows<T>& rows);
  StrideTwoKernels<T> stride_two;
};

/// Most columns of a block of any kernel.
inline constexpr int kGroupedColumns = 4;

}  // namespace convolith
