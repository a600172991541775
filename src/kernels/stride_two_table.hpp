#pragma once

// Backward-input of stride 2, of groups of few channels. Neighbouring outputs 2 p and 2 p + 1 of an
// axis read the same sources p + first, ..., each under taps of its own: a pair of rows and of
// columns is a block of four outputs over one square of sources. Internal linkage: ISA units and
// the core both read it.

#include <cstdint>

#include "kernels/depthwise_table.hpp"

namespace convolith {
namespace {

constexpr int kMostStrideTwoKernel = 7;

/// Sources of a pair, and under which tap an output of it reads each of them; -1: under none.
struct StrideTwoTaps {
  int sources;
  int tap[2][kMostStrideTwoKernel / 2 + 1];
};

/// Output i reads source o under tap t = i + before - 2 o; with before = 2 c + odd, the last source
/// of pair p is p + c + odd.
constexpr StrideTwoTaps stride_two_taps(int kernel, bool odd) {
  StrideTwoTaps result{};
  const int shift = odd ? 1 : 0;
  result.sources = (kernel + shift + 1) / 2;
  for (int output = 0; output < 2; ++output) {
    for (int source = 0; source < result.sources; ++source) {
      const int tap = 2 * (result.sources - 1 - source) + output - shift;
      result.tap[output][source] = tap < kernel ? tap : -1;
    }
  }
  return result;
}

}  // namespace

/// Lanes are channels, of one or more whole groups. A block is a pair of rows and a few pairs of
/// columns; blocks follow one another along the row.
template <class T>
struct StrideTwoBlocks {
  const T* const* pixels;         ///< [source row][source column] of the first block
  const std::int64_t* row_steps;  ///< between the pixels of neighbouring blocks, of each source row
  int pairs;                      ///< of columns, in a block
  std::int64_t blocks;
  std::int64_t group_channels;
  std::int64_t channels;  ///< one vector at least; the last vector overlaps the one before
  const T* weight;        ///< [vector][channel of the group][tap][lane]
  const T* bias;          ///< null: none
  T* output;
  std::int64_t output_row_stride, output_column_stride;
  int rows, last_columns;  ///< outputs of the pair of rows, and of the last pair of columns
  std::int64_t vector_begin, vector_end;
  SumStore<T> store;
};

/// Lanes are pairs of columns. Sources are read where they lie.
template <class T>
struct StrideTwoPlane {
  const T* source;  ///< of the sample and the group's first channel
  std::int64_t source_channel_stride;
  std::int64_t source_rows, source_columns;
  std::int64_t first_row, first_column;  ///< first sources of pair 0
  std::int64_t pair_begin, pair_end;     ///< of rows
  std::int64_t group_channels;
  int channels;     ///< of the output
  const T* weight;  ///< [channel of the group][tap][channel of the output]
  const T* bias;    ///< null: none
  T* output;        ///< of the first of the channels
  std::int64_t output_channel_stride;
  std::int64_t output_rows, output_columns;
  SumStore<T> store;
};

/// Part of the grouped kernels. They are of 3 x 3, and of 5 x 5 and 7 x 7 for groups of one
/// channel; `odd`: so is the padding in front of both axes.
template <class T>
struct StrideTwoKernels {
  int block_pairs;     ///< most of a block
  int plane_channels;  ///< most of the output, at a time
  void (*blocks)(const StrideTwoBlocks<T>& blocks, int kernel, bool odd);
  void (*plane)(const StrideTwoPlane<T>& plane, int kernel, bool odd);
};

}  // namespace convolith
