#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/winograd_table.hpp"
#include "runtime/cpu.hpp"
#include "typed_execution.hpp"
#include "winograd/tile_runs.hpp"

namespace convolith {

/// V[frequency][tile][tap, channel] of the tiles of a group's source.
template <class T>
class SourceTransform {
 public:
  SourceTransform(const ConvProblem& problem, const WinogradGeometry& geometry,
                  const WinogradForm<T>& form, const Machine& machine);

  const TileRuns& runs() const noexcept { return runs_; }
  /// Tiles of a run, at most: of channels_first, as a strip holds.
  std::int64_t longest_run() const noexcept { return longest_run_; }
  /// Elements of V of a tile: under one tap, and in all.
  std::int64_t tap_row() const noexcept { return tap_row_; }
  std::int64_t row() const noexcept { return tap_row_ * geometry_.reduced_taps; }

  struct Scratch {
    const T** pixels;
    T* zeros;  ///< a pixel of padding
    T* strip;
  };
  std::size_t scratch_bytes() const noexcept;
  Scratch scratch(std::byte* bytes) const noexcept;

  void run(const Maps<const T>& maps, std::int64_t group, const Range& tiles, T* transformed,
           std::int64_t frequency_stride, const Scratch& scratch) const noexcept;

 private:
  static constexpr int kMostTileRows = 8;

  /// Runs below one another, in channels_first: the first tile of the first of them, how many they
  /// are, and the rows of outputs in tiles of the last one.
  struct Stack {
    TileRun top;
    std::int64_t first, runs, bottom_outputs;
  };

  bool lies_below(const Stack& stack, const TileRun& run) const noexcept;
  std::int64_t strip_rows(std::int64_t runs) const noexcept;
  void transform_pixels(const Maps<const T>& maps, const TileRun& run, const ReducedTap& tap,
                        const T* source, WinogradInput<T> in,
                        const Scratch& scratch) const noexcept;
  void transform_strips(const Maps<const T>& maps, const Stack& stack, const ReducedTap& tap,
                        const T* source, WinogradInput<T> in,
                        const Scratch& scratch) const noexcept;
  void fill_strip(const TileRuns::Columns& columns, std::int64_t row, const T* source,
                  std::int64_t channel_stride, int channels, std::int64_t pixels,
                  T* strip) const noexcept;
  std::int64_t strip_step() const noexcept;
  std::int64_t strip_pixels(std::int64_t tiles) const noexcept;

  WinogradGeometry geometry_;
  PaddingMode padding_mode_;
  bool channels_last_;
  const Kernels<T>& kernels_;
  const WinogradForm<T>& form_;
  TileRuns runs_;
  std::int64_t tap_row_;
  std::int64_t longest_run_, most_stacked_ = 1, strip_elements_ = 0;
};

}  // namespace convolith
