#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "kernels/kernel_table.hpp"
#include "phases.hpp"
#include "runtime/threads.hpp"

namespace convolith {

/// Implicit GEMM with output pixels as lanes, for channels_first. Each thread packs the patches of
/// a few tiles of pixels as columns [tap][channel][pixel], as many as stay in L2, and multiplies
/// every panel of weights by them.
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
  static constexpr std::int64_t kMostTiles = 32;

  /// How one phase is cut: its tiles, and the blocks of its reduction.
  struct PhasePlan {
    Phase phase;
    std::int64_t reduction;  ///< taps * reduced channels
    std::int64_t k_blocks;
    std::int64_t packed_begin;  ///< of its weights, in elements
    std::int64_t runs, run_pixels, tiles_per_run;
    std::vector<std::int64_t> places;  ///< of each kernel tap among those of the phase, or -1

    std::int64_t tiles() const noexcept { return runs * tiles_per_run; }
  };

  /// `count` neighbouring destinations of a phase's grid, flattened, from `first` on.
  struct Tile {
    std::int64_t sample, first, count;
  };

  /// Tiles that a thread packs and multiplies together.
  struct Block {
    const PhasePlan& plan;
    std::int64_t group;
    int tiles = 0;
    std::array<Tile, kMostTiles> tile{};
  };

  struct Call {
    Maps<T> source, output;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  /// A grid of parts, each for one thread.
  struct Parts {
    int groups = 1, tiles = 1, panels = 1;
    int count() const noexcept { return groups * tiles * panels; }
  };

  PhasePlan plan_phase(Phase&& phase, std::int64_t k_most) const;
  Parts choose_parts() const noexcept;
  std::size_t thread_bytes() const noexcept {
    return patches_bytes_ + offsets_bytes_ + scatter_bytes_;
  }
  Range panel_channels(std::int64_t panel) const noexcept;
  Tile tile_at(const PhasePlan& plan, std::int64_t index) const noexcept;
  std::int64_t output_pixel(const Phase& phase, std::int64_t index) const noexcept;
  std::int64_t source_extent(int axis) const noexcept;
  std::int64_t source_at(const AxisPhase& axis, int number, std::int64_t j,
                         std::int64_t offset) const noexcept;

  void run_part(const Call& call, int part, std::byte* scratch) const noexcept;
  void run_block(const Call& call, const Block& block, const Range& panels,
                 std::byte* scratch) const noexcept;
  void finish(const Call& call, const Block& block, int t, const Range& channels,
              std::byte* scratch) const noexcept;
  T* output_at(const Call& call, const Block& block, int t, const Range& channels) const noexcept;
  T* scatter_tile(std::byte* scratch, int t, std::int64_t channel) const noexcept;

  bool reads_in_place(const PhasePlan& plan) const noexcept;
  void pack_patches(const Call& call, const Block& block, const Range& k,
                    std::byte* scratch) const noexcept;
  void list_offsets(const PhasePlan& plan, const Maps<T>& source, const Range& k,
                    std::int64_t* offsets) const noexcept;
  std::int64_t interior_start(const PhasePlan& plan, const Tile& tile,
                              const Maps<T>& source) const noexcept;
  void pack_tile(const PhasePlan& plan, const Tile& tile, const Maps<T>& source, const T* base,
                 const Range& k, T* panel) const noexcept;
  std::int64_t list_pieces(const AxisPhase& width, const T* row, std::int64_t pixel_stride,
                           std::int64_t w, std::int64_t offset, int lane, int lanes,
                           LanePiece<T>* pieces) const noexcept;

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool adjoint_;
  std::int64_t reduced_, produced_;  ///< channels per group that are read and written
  std::int64_t panels_;
  std::vector<PhasePlan> phases_;
  std::int64_t packed_elements_ = 0;
  std::int64_t panel_elements_ = 0;  ///< of a tile's patches
  std::int64_t block_tiles_ = 0;
  std::size_t patches_bytes_ = 0, offsets_bytes_ = 0, scatter_bytes_ = 0;
  Parts parts_;
};

}  // namespace convolith
