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

/// One axis of packed strips, for all phases of a problem. Destination j finds a tap at the place
/// j * step + place(offset): neighbours share what they both read, or each has its taps to itself
/// where that is shorter.
class StripAxis {
 public:
  StripAxis() = default;
  /// `offsets`: of all taps, in any order. `destinations`: of a typical block.
  StripAxis(std::vector<std::int64_t> offsets, std::int64_t source_step,
            std::int64_t destinations);

  bool shared() const noexcept { return shared_; }
  std::int64_t step() const noexcept { return step_; }
  std::int64_t length(std::int64_t destinations) const noexcept {
    return (destinations - 1) * step_ + span_;
  }
  const std::vector<std::int64_t>& offsets() const noexcept { return offsets_; }  ///< ascending
  std::int64_t place(std::int64_t offset) const noexcept;

  /// A place of a strip, the source that belongs there, counted from that of a block's first
  /// destination, and the first destination that reads it.
  struct Place {
    std::int64_t place, source, destination;
  };

  /// The places that some destinations read, in the order of the first who does.
  std::vector<Place> places(std::int64_t destinations) const;

 private:
  bool read_before(std::int64_t place, std::int64_t j) const noexcept;

  std::vector<std::int64_t> offsets_;
  std::int64_t source_step_ = 1;
  std::int64_t step_ = 1, span_ = 1;
  bool shared_ = true;
};

/// What the two forms of implicit GEMM have in common. Each thread packs the rows of the source
/// that a block of destinations reads into strips, with the padding in place, and multiplies them
/// by every panel of weights; all phases of a strided backward-input read the same strips.
template <class T>
class StripGemm : public Execution {
 public:
  std::size_t workspace_bytes() const noexcept final;
  std::size_t packed_bytes() const noexcept final;
  std::size_t unpacked_workspace_bytes() const noexcept final;
  void pack(const void* weight, void* packed) const noexcept final;
  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept final;

 protected:
  struct PhasePlan {
    Phase phase;
    std::int64_t packed_begin;  ///< of its weights in a panel's, in elements
  };

  /// Destination rows [row, row_end) of one sample and depth, columns [column, column_end) of each.
  struct Block {
    std::int64_t group, sample, depth, row, row_end, column, column_end;
  };

  struct Call {
    Maps<T> source, output;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  /// `tile_pixels` and `panel_width`: extents of a register tile. Threads share columns in
  /// multiples of `column_unit`.
  StripGemm(const ConvProblem& problem, const Machine& machine, int threads, int tile_pixels,
            int column_unit, int panel_width);

  /// Chooses the blocks: as many rows as fit into `budget` elements, where a strip of n columns
  /// takes row_elements(n). To be called by the constructors of derived classes.
  void cut_blocks(std::int64_t budget);

  /// Produced channels of a panel, from the group's first.
  virtual Range panel_channels(std::int64_t panel) const noexcept = 0;

  /// Elements of a strip that serves `columns` destinations.
  virtual std::int64_t row_elements(std::int64_t columns) const noexcept = 0;

  /// Further scratch of a thread.
  virtual std::size_t extra_bytes() const noexcept = 0;

  /// Packs what `columns` destinations from `first_column` on read from a line of the source;
  /// null where the line is padding.
  virtual void pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                          std::int64_t columns, T* strip) const noexcept = 0;

  /// Computes the channels of panels [panels.begin, panels.end) of a block. `strips` is null where
  /// the source is read in place.
  virtual void multiply(const Call& call, const Block& block, const T* strips, const Range& panels,
                        std::byte* extra) const noexcept = 0;

  std::int64_t strip_row_elements() const noexcept { return strip_row_elements_; }

  /// Of the source of a group of one sample.
  std::size_t source_bytes() const noexcept {
    return static_cast<std::size_t>(reduced_ * sources_[0] * sources_[1] * sources_[2]) * sizeof(T);
  }

  /// Whether threads write to the same pixels.
  bool shares_pixels() const noexcept { return parts_.panels > 1; }

  /// Element at which the strip of a row place and a depth offset begins.
  std::int64_t strip_at(std::int64_t depth_offset, std::int64_t row_place) const noexcept;

  /// Whether the source under a tap at `offset` of destination j is no padding.
  bool inside(int axis, std::int64_t j, std::int64_t offset) const noexcept {
    const std::int64_t at = j * source_step_[axis] + offset;
    return at >= 0 && at < sources_[axis];
  }

  /// The taps of a phase on an axis under which destination j finds no padding of zeros.
  Range taps_inside(const Phase& phase, int axis, std::int64_t j) const noexcept;

  /// Pixel of the output at which a destination of a phase stands.
  std::int64_t output_pixel(const Phase& phase, std::int64_t depth, std::int64_t row,
                            std::int64_t column) const noexcept;

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  std::size_t l2_bytes_;
  bool packs_for_itself_ = false;  ///< each thread, weights that are not packed
  int threads_;
  int tile_pixels_, column_unit_, panel_width_;
  bool adjoint_, channels_last_;
  std::int64_t reduced_, produced_;  ///< channels per group that are read and written
  std::int64_t panels_;
  std::vector<PhasePlan> phases_;
  std::vector<std::int64_t> places_;  ///< of each kernel tap in a panel's weights, or -1
  std::int64_t panel_elements_;       ///< of a panel's weights, of all phases
  Extents sources_, outputs_;
  Extents destinations_;  ///< of a phase, at most
  std::array<std::int64_t, kSpatialAxes> source_step_;
  std::array<StripAxis, kSpatialAxes> axes_;
  bool pointwise_ = false;  ///< each destination of each phase reads one source, its own
  std::int64_t block_rows_ = 1, block_columns_ = 1;  ///< at most

 private:
  /// A grid of parts, each for one thread, or more of them, which threads share piece by piece.
  struct Parts {
    int groups = 1, rows = 1, columns = 1, panels = 1;
    int count() const noexcept { return groups * rows * columns * panels; }
  };

  /// Of a part.
  struct Pieces {
    int rows = 1, columns = 1;
    int count() const noexcept { return rows * columns; }
  };

  struct PartRanges {
    Range groups, rows, columns, panels;  ///< columns in units
  };

  void flatten();
  PartRanges ranges_of(int part) const noexcept;
  PartRanges piece_of(const PartRanges& part, int piece) const noexcept;
  void pack_panel(const T* weight, std::int64_t index, T* packed) const noexcept;
  Parts choose_parts() const noexcept;
  std::size_t thread_bytes() const noexcept;
  std::int64_t strip_rows() const noexcept { return axes_[1].length(block_rows_); }
  void run_part(const Call& call, const PartRanges& ranges, std::byte* scratch) const noexcept;
  void pack_strips(const Call& call, const Block& block, T* strips) const noexcept;

 protected:
  bool in_place_ = false;     ///< strips are the source itself; set by derived classes
  bool past_caches_ = false;  ///< where the output can go; set by derived classes

 private:
  Parts parts_;
  Pieces pieces_;
  std::int64_t piece_columns_ = 1;  ///< columns are cut into pieces of so many units
  std::int64_t strip_row_elements_ = 0;
  std::vector<StripAxis::Place> rows_;  ///< of a block's strips
};

}  // namespace convolith
