#pragma once

#include <cstdint>

#include "convolith/algorithm.hpp"
#include "implicit_gemm/strip_gemm.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// Lines of a source with their padding, packed so that neighbouring destinations read neighbouring
/// elements under every tap: [channel][residue of the source step][pixel].
template <class T>
class PixelStrips {
 public:
  /// `columns`: the axis along lines, of `extent` source pixels, `step` apart for neighbours.
  PixelStrips(const StripAxis& columns, std::int64_t extent, std::int64_t step,
              std::int64_t channels, const ConvProblem& problem, const Kernels<T>& kernels)
      : columns_(columns),
        extent_(extent),
        step_(step),
        channels_(channels),
        padding_mode_(problem.padding_mode),
        channels_last_(problem.layout == Layout::channels_last),
        kernels_(kernels) {}

  /// Elements of a strip that serves so many destinations. Whole vectors of them may be read:
  /// behind the last stand zeros, since what else lies there may be subnormal, which slows
  /// arithmetic down.
  std::int64_t elements(std::int64_t destinations) const noexcept;

  /// To be called before strips for so many destinations at most are packed or read.
  void serve(std::int64_t destinations) noexcept { residue_ = residue_pixels(destinations); }

  /// Where destination 0 finds a tap at an offset, within the strip.
  std::int64_t at(std::int64_t channel, std::int64_t offset) const noexcept {
    const std::int64_t shift = offset - columns_.offsets().front();
    return (channel * step_ + shift % step_) * residue_ + shift / step_;
  }

  /// Packs what destinations [first, first + count) read from a line; null where that is padding.
  void pack(const Maps<const T>& source, const T* line, std::int64_t first, std::int64_t count,
            T* strip) const noexcept;

 private:
  std::int64_t residue_pixels(std::int64_t destinations) const noexcept;
  void pack_pixels(const Maps<const T>& source, const T* from, std::int64_t count,
                   T* to) const noexcept;
  void pad(const Maps<const T>& source, const T* line, std::int64_t offset, const Range& pixels,
           T* strip) const noexcept;
  void clear(const Range& pixels, T* strip) const noexcept;

  const StripAxis& columns_;
  std::int64_t extent_, step_, channels_;
  PaddingMode padding_mode_;
  bool channels_last_;
  const Kernels<T>& kernels_;
  std::int64_t residue_ = 0;  ///< pixels of one
};

}  // namespace convolith
