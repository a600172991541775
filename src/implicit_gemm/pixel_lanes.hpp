#pragma once

#include "implicit_gemm/pixel_strips.hpp"
#include "implicit_gemm/strip_gemm.hpp"

namespace convolith {

/// Implicit GEMM with output pixels as lanes: where there are few output channels, or sums so short
/// that ChannelLanes would mostly transpose.
template <class T>
class PixelLanes final : public StripGemm<T> {
 public:
  PixelLanes(const ConvProblem& problem, const Machine& machine, int threads);

 private:
  using Base = StripGemm<T>;
  using typename Base::Block;
  using typename Base::Call;
  using typename Base::PhasePlan;

  Range panel_channels(std::int64_t panel) const noexcept override;
  std::int64_t row_elements(std::int64_t columns) const noexcept override;
  std::size_t extra_bytes() const noexcept override;
  void pack_strip(const Maps<T>& source, const T* line, std::int64_t first_column,
                  std::int64_t columns, T* strip) const noexcept override;
  void multiply(const Call& call, const Block& block, const T* strips, const Range& panels,
                std::byte* extra) const noexcept override;

  std::vector<std::int64_t> list_offsets(const Phase& phase) const;
  Range group_terms(const PhasePlan& plan, const Range& planes, std::int64_t first_row,
                    std::int64_t lines) const noexcept;
  void multiply_panel(const Call& call, const Block& block, const PhasePlan& plan,
                      const std::int64_t* offsets, const T* source, std::int64_t row_stride,
                      std::int64_t panel, bool streams, T* partial) const noexcept;
  void finish_line(const Call& call, const Block& block, const PhasePlan& plan, std::int64_t row,
                   std::int64_t column, int pixels, const Range& channels, T* line,
                   std::int64_t stride) const noexcept;

  PixelStrips<T> strips_;
  FusedClamp<T> clamp_;
  std::int64_t most_terms_;  ///< of a sum between two folds into memory
  std::vector<std::vector<std::int64_t>> offsets_;  ///< of each phase's terms, from the first pixel
};

}  // namespace convolith
