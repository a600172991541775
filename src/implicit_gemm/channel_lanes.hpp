#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "implicit_gemm/strip_axis.hpp"
#include "kernels/kernel_table.hpp"
#include "phases.hpp"
#include "runtime/threads.hpp"

namespace convolith {

/// Implicit GEMM with output channels as lanes. Each thread packs the rows of the source that a
/// block of output pixels reads into strips [row][pixel][channel] with the padding in place, so
/// that every tile of pixels reads its taps at constant distances.
template <class T>
class ChannelLanes final : public Execution {
 public:
  ChannelLanes(const ConvProblem& problem, const Machine& machine, int threads);

  std::size_t workspace_bytes() const noexcept override;
  std::size_t packed_bytes() const noexcept override;
  void pack(const void* weight, void* packed) const noexcept override;
  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override;

 private:
  /// Part of a reduction: `units` units from `first` on, channels [begin, begin + channels) of
  /// each. A unit is a kernel row whose taps touch, or one tap.
  struct KBlock {
    std::int64_t first, units, begin, channels;
  };

  struct PhasePlan {
    Phase phase;
    std::array<std::int64_t, kSpatialAxes> sources;  ///< extents
    bool in_place;  ///< strips are the source itself
    std::int64_t reduction, packed_begin;
    std::int64_t unit_taps, unit_channels, units_per_row;
    std::vector<KBlock> k_blocks;
    StripAxis rows, columns;
    std::int64_t pixel_elements;  ///< of a strip's pixel
    std::int64_t tiles_per_row;
    std::int64_t block_rows, block_tiles;  ///< extents of a block at most
    std::int64_t strip_pixels;             ///< of a strip of block_tiles
    std::vector<std::int64_t> places;      ///< of each kernel tap in the phase, or -1
    std::vector<Tap> taps;                 ///< of each unit; the sources of packed strips
  };

  /// Output rows [row, row_end) of one sample and depth, tiles [tile, tile_end) of each.
  struct Block {
    const PhasePlan* plan;
    std::int64_t group, sample, depth, row, row_end, tile, tile_end;
    std::int64_t first_column, columns;
  };

  struct Call {
    Maps<T> source, output;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  struct Strips {
    const T* data;
    const Tap* taps;
    std::int64_t row_stride, pixel_stride;  ///< between destinations
  };

  /// A grid of parts, each for one thread.
  struct Parts {
    int groups = 1, rows = 1, tiles = 1, panels = 1;
    int count() const noexcept { return groups * rows * tiles * panels; }
  };

  PhasePlan plan_phase(const Phase& phase, const Machine& machine) const;
  void cut_reduction(PhasePlan& plan, std::int64_t most) const;
  void cut_blocks(PhasePlan& plan, std::int64_t budget) const;
  Parts choose_parts() const noexcept;

  std::size_t thread_bytes() const noexcept { return strips_bytes_ + tiles_bytes_; }
  std::int64_t source_extent(int axis) const noexcept;
  std::int64_t output_extent(int axis) const noexcept;
  Range tile_columns(const PhasePlan& plan, std::int64_t tile) const noexcept;

  void run_part(const Call& call, int part, std::byte* scratch) const noexcept;
  void run_block(const Call& call, const Block& block, const Range& panels,
                 std::byte* scratch) const noexcept;
  Strips strips_in_place(const Call& call, const Block& block) const noexcept;
  Strips pack_strips(const Call& call, const Block& block, std::byte* scratch) const noexcept;
  void pack_strip(const PhasePlan& plan, const Maps<T>& source, const T* line,
                  std::int64_t first_column, std::int64_t columns, T* strip) const noexcept;
  void pack_pixels(const Maps<T>& source, const T* from, std::int64_t step, std::int64_t pixels,
                   T* to, std::int64_t to_stride) const noexcept;
  void multiply_row(const Call& call, const Block& block, const Strips& strips, std::int64_t row,
                    const KBlock& k, std::int64_t panel, T* tiles) const noexcept;
  void finish_rows(const Call& call, const Block& block, std::int64_t row, std::int64_t rows,
                   std::int64_t panel, const T* tiles) const noexcept;

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool adjoint_, channels_last_;
  std::int64_t reduced_, produced_;  ///< channels per group that are read and written
  std::int64_t panels_;
  std::vector<PhasePlan> phases_;
  std::int64_t packed_elements_ = 0;
  std::size_t strips_bytes_ = 0, tiles_bytes_ = 0;
  Parts parts_;
};

}  // namespace convolith
