#pragma once

// The column sums' part of the table: convolutions of stride 1 over whole planes in channels_first.

#include <cstdint>

#include "kernels/depthwise_table.hpp"

namespace convolith {

/// Lanes are pixels of a plane, row behind row, read where they lie; rows of the output are as
/// long as those of the source, and the kernel's centre is above the output. What is under a
/// column of the kernel is summed over its rows first, vector by vector of the plane. An output
/// then adds the sums that stand beside it, save those that belong to another row.
template <class T>
struct ColumnSums {
  const T* source;
  std::int64_t source_channel_stride;
  std::int64_t groups, channels;   ///< channels: of a group, which are summed
  const std::int64_t* planes;      ///< offsets of the planes of a channel that are summed
  const std::int64_t* plane_taps;  ///< the first tap above each of them
  std::int64_t plane_count, taps;  ///< taps: of all planes
  std::int64_t columns;            ///< of a row
  std::int64_t first_row;  ///< distance from a pixel of the output to that under the first row
  std::int64_t inner_begin, inner_end;  ///< vectors under which all of the kernel's rows exist
  /// A bit for each lane: of the other vectors, those under which a kernel row exists, and those
  /// under which a kernel column does.
  const std::uint16_t* rows_inside;     ///< [vector, inner ones left out][kernel row]
  const std::uint16_t* columns_inside;  ///< [vector % period][kernel column]
  std::int64_t period;
  const T* weight;          ///< [group][channel][tap][output]
  std::int64_t pixels;      ///< of the output
  std::int64_t begin, end;  ///< vectors of the output to be written
  const T* bias;            ///< [group][output]; null: none
  T* output;
  std::int64_t output_channel_stride;
  SumStore<T> store;

  // In turn: channels of one group each are neighbours in memory. Columns, distances and pixels
  // count elements, weights and bias are of vectors: [turn][tap][lane] and [turn][lane].
  std::int64_t turns;          ///< vectors after which the same channel begins one
  const std::int32_t* beside;  ///< [kernel column][lane]: that of two vectors which stands there
};

template <class T>
struct ColumnSumsKernels {
  int largest;           ///< extent of a kernel
  int largest_together;  ///< of one that sums several channels or writes them; 0: without gain
  int largest_in_turn;   ///< of one for channels that take turns; 0: none
  int outputs;           ///< most channels that are written together
  /// `kernel` is its extent on both axes: odd, from 3 on, and at most twice the lanes and one.
  void (*run)(const ColumnSums<T>& sums, int kernel, int outputs);
  void (*run_in_turn)(const ColumnSums<T>& sums, int kernel);
};

}  // namespace convolith
