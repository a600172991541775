#pragma once

#include "implicit_gemm/strip_gemm.hpp"

namespace convolith {

/// Implicit GEMM with output channels as lanes. Strips are [row][pixel][channel], so that every
/// tile of pixels reads its taps at constant distances.
template <class T>
class ChannelLanes final : public StripGemm<T> {
 public:
  ChannelLanes(const ConvProblem& problem, const Machine& machine, int threads);
  void pack(const void* weight, void* packed) const noexcept override;

 private:
  using Base = StripGemm<T>;
  using typename Base::Block;
  using typename Base::Call;
  using typename Base::PhasePlan;

  /// A part of a reduction: `units` units from `first` on, elements [begin, begin + length) of
  /// each. A unit is a kernel row whose taps touch, or one tap.
  struct KBlock {
    std::int64_t first, units, begin, length;
  };

  struct Unit {
    Tap tap;
    std::int64_t depth_offset, row_offset;
  };

  /// The reduction of one phase.
  struct Reduction {
    std::vector<Unit> units;
    std::vector<Tap> taps;  ///< of the units
    std::vector<KBlock> blocks;
  };

  /// Where a block's tiles read.
  struct Sources {
    const T* data;
    std::int64_t row_stride, pixel_stride;  ///< between destinations
  };

  std::int64_t row_elements(std::int64_t columns) const noexcept override;
  std::size_t extra_bytes() const noexcept override;
  void pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                  std::int64_t columns, T* strip) const noexcept override;
  void multiply(const Call& call, const Block& block, const T* strips, const Range& panels,
                std::byte* extra) const noexcept override;

  Reduction cut_reduction(const Phase& phase, std::int64_t most) const;
  void pack_pixels(const Maps<T>& source, const T* from, std::int64_t step, std::int64_t pixels,
                   T* to, std::int64_t to_stride) const noexcept;
  void multiply_row(const Call& call, const Block& block, const PhasePlan& plan,
                    const Reduction& reduction, const Sources& sources, std::int64_t row,
                    const KBlock& k, std::int64_t panel, T* tiles) const noexcept;
  void finish_rows(const Call& call, const Block& block, const PhasePlan& plan, std::int64_t row,
                   std::int64_t rows, std::int64_t columns, std::int64_t panel,
                   const T* tiles) const noexcept;

  std::int64_t pixel_elements_;  ///< of a strip's pixel
  bool touching_;                ///< whether the taps of a kernel row are neighbours
  std::vector<Reduction> reductions_;
};

}  // namespace convolith
