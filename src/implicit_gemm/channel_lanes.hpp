#pragma once

#include "implicit_gemm/column_segments.hpp"
#include "implicit_gemm/strip_gemm.hpp"

namespace convolith {

/// Whether the channels of a pixel lie in many sets of the caches in channels_first, so that 1x1
/// kernels may read them in place.
bool channels_lie_spread(const ConvProblem& problem) noexcept;

/// Implicit GEMM with output channels as lanes. Strips are [row][pixel][channel], so that every
/// tile of pixels reads its taps at constant distances.
template <class T>
class ChannelLanes final : public StripGemm<T> {
 public:
  ChannelLanes(const ConvProblem& problem, const Machine& machine, int threads);

 private:
  using Base = StripGemm<T>;
  using typename Base::Block;
  using typename Base::Call;
  using typename Base::PhasePlan;

  /// The products of some columns. A unit is a kernel row whose taps touch, or one tap.
  struct Segment {
    Range columns;
    bool padded = false;      ///< whether a column at its ends finds padding under a tap
    std::vector<Tap> taps;    ///< of the units; where read in place, their sources count pixels
    std::vector<std::int64_t> offsets;  ///< of every term's source; empty where units are long
    std::int64_t row_units;   ///< in a kernel row
    std::int64_t length;      ///< of a unit, in products
    std::int64_t block_units, block_length;  ///< of a k block: whole units, or a part of one
  };

  /// Products [begin, begin + length) of each of some units.
  struct KBlock {
    std::int64_t unit, units, begin, length;
  };

  /// Some k blocks of a segment, the same for some output rows, and some panels of channels.
  struct Products {
    const Block& block;
    const PhasePlan& plan;
    const Segment& segment;
    const Tap* taps;  ///< of the segment
    const KBlock* begin;
    const KBlock* end;
    Range panels;
    bool accumulates, finishes;  ///< whether there were k blocks before; whether none follow
    bool streams;                ///< whether sources, which touch, come from memory
  };

  /// Destinations that lie side by side in a row, or one below the other.
  struct Line {
    std::int64_t row, column;  ///< of the first
    std::int64_t pixels;
    bool down;
  };

  /// Where a block's tiles read.
  struct Sources {
    const T* data;
    std::int64_t row_stride, pixel_stride;  ///< between destinations
    std::int64_t channel_stride;
  };

  Range panel_channels(std::int64_t panel) const noexcept override {
    return {panel * this->panel_width_, panel * this->panel_width_ + channels_of({panel, panel + 1})};
  }
  std::int64_t row_elements(std::int64_t columns) const noexcept override;
  std::size_t extra_bytes() const noexcept override;
  /// The k blocks of a row, and the taps of a phase where the source is read in place.
  std::size_t list_bytes() const noexcept;
  void pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                  std::int64_t columns, T* strip) const noexcept override;
  void multiply(const Call& call, const Block& block, const T* strips, const Range& panels,
                std::byte* extra) const noexcept override;

  void choose_segments();
  Segment cut_products(const Phase& phase, const ColumnSegment& columns) const;
  void pack_pixels(const Maps<T>& source, const T* from, std::int64_t step, std::int64_t pixels,
                   T* to, std::int64_t to_stride) const noexcept;
  void list_taps(const std::vector<Segment>& segments, std::int64_t pixel_stride,
                 std::byte* scratch) const noexcept;
  std::int64_t list_k_blocks(const Phase& phase, const Segment& segment, std::int64_t depth,
                             std::int64_t row, KBlock* blocks) const noexcept;
  Range band_of(std::size_t phase, const Block& block, std::int64_t row) const noexcept;
  void multiply_row(const Call& call, const Products& products, std::int64_t row, const Range& band,
                    const Sources& sources, T* tiles) const noexcept;
  void multiply_line(const Call& call, const Products& products, const Line& line,
                     const Sources& sources, T* tiles) const noexcept;
  void multiply_run(const Call& call, const Products& products, const Range& panels,
                    std::int64_t pixel, std::int64_t pixel_step,
                    GatherTile<T>& tile) const noexcept;
  void finish_rows(const Call& call, const Block& block, const PhasePlan& plan, std::int64_t row,
                   std::int64_t rows, std::int64_t columns, const Range& panels,
                   const T* tiles) const noexcept;

  std::int64_t first_channel(const Block& block, std::int64_t panel) const noexcept {
    return block.group * this->produced_ + panel * this->panel_width_;
  }
  int channels_of(const Range& panels) const noexcept {
    return static_cast<int>(std::min(panels.end * this->panel_width_, this->produced_) -
                            panels.begin * this->panel_width_);
  }

  FusedClamp<T> fused_;
  std::int64_t pixel_elements_;   ///< of a strip's pixel
  bool pairs_;                    ///< whether tiles of short runs of products have two panels
  std::int64_t tile_panels_;      ///< of those of long runs, at most: weights must stay in L1
  std::int64_t run_pixels_;       ///< of a row that go through a panel together, at most
  std::int64_t panels_together_;  ///< that a run of pixels goes through before the next one
  bool touching_ = false;  ///< whether the taps of a kernel row are one unit
  std::vector<std::vector<ColumnSegment>> columns_;  ///< of each phase
  std::vector<std::vector<Range>> bands_;       ///< of rows with the same products, of each phase
  std::vector<std::vector<Segment>> segments_;  ///< of each phase
  std::int64_t most_taps_ = 0;                  ///< of a phase, over its segments
  std::int64_t most_blocks_ = 0;                ///< of a segment
  std::int64_t sweep_blocks_;                   ///< k blocks whose weights stay in L2
};

}  // namespace convolith
