#pragma once

#include <cstdint>
#include <vector>

#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "implicit_gemm/strip_axis.hpp"
#include "kernels/kernel_table.hpp"
#include "phases.hpp"
#include "runtime/threads.hpp"

namespace convolith {

/// Implicit GEMM with output pixels as lanes, for the forward direction: where there are few
/// output channels, or sums so short that ChannelLanes would mostly transpose. Each thread packs
/// the rows of the source that a block of output pixels reads into strips
/// [row][channel][residue of the stride][pixel] with the padding in place, so that neighbouring
/// outputs read neighbouring elements under every tap.
template <class T>
class PixelLanes final : public Execution {
 public:
  PixelLanes(const ConvProblem& problem, const Machine& machine, int threads);

  std::size_t workspace_bytes() const noexcept override;
  std::size_t packed_bytes() const noexcept override;
  void pack(const void* weight, void* packed) const noexcept override;
  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override;

 private:
  /// Output rows [row, row_end) of one sample and depth, columns [column, column_end) of each.
  struct Block {
    std::int64_t group, sample, depth, row, row_end, column, column_end;
  };

  struct Call {
    Maps<T> source, output;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  struct Strips {
    const T* data;
    const std::int64_t* offsets;  ///< of each term of the sum, from the first one
    std::int64_t row_stride;      ///< between output rows
  };

  /// A grid of parts, each for one thread.
  struct Parts {
    int groups = 1, rows = 1, tiles = 1, panels = 1;
    int count() const noexcept { return groups * rows * tiles * panels; }
  };

  void cut_blocks(std::int64_t budget) noexcept;
  void list_offsets() noexcept;
  Parts choose_parts() const noexcept;

  std::size_t thread_bytes() const noexcept {
    return strips_bytes_ + tile_bytes_ + offsets_bytes_;
  }
  Range panel_channels(std::int64_t panel) const noexcept;
  Range k_range(std::int64_t k_block) const noexcept;

  void run_part(const Call& call, int part, std::byte* scratch) const noexcept;
  void run_block(const Call& call, const Block& block, const Range& panels,
                 std::byte* scratch) const noexcept;
  Strips strips_in_place(const Call& call, const Block& block, std::byte* scratch) const noexcept;
  Strips pack_strips(const Call& call, const Block& block, std::byte* scratch) const noexcept;
  void pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                  std::int64_t columns, T* strip) const noexcept;
  void pack_pixels(const Maps<T>& source, const T* from, std::int64_t count,
                   T* to) const noexcept;
  void multiply_row(const Call& call, const Block& block, const Strips& strips, std::int64_t row,
                    std::int64_t panel, T* tile) const noexcept;

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool channels_last_;
  Phase phase_;
  std::array<std::int64_t, kSpatialAxes> sources_;  ///< extents
  bool in_place_;
  std::int64_t reduced_, produced_;  ///< channels per group that are read and written
  std::int64_t panels_, reduction_, k_blocks_;
  StripAxis rows_;
  std::int64_t residues_;        ///< of the stride of the columns
  std::int64_t reach_;           ///< pixels of a residue beyond the outputs'
  std::int64_t block_rows_ = 1, block_columns_ = 1;  ///< at most
  std::int64_t strip_pixels_ = 1;                    ///< of one residue
  std::vector<std::int64_t> offsets_;
  std::size_t strips_bytes_ = 0, tile_bytes_ = 0, offsets_bytes_ = 0;
  Parts parts_;
};

}  // namespace convolith
