#pragma once

#include <cstdint>

#include "kernels/winograd_table.hpp"
#include "runtime/cpu.hpp"
#include "runtime/range.hpp"
#include "winograd/geometry.hpp"

namespace convolith {

/// U[frequency][tap, channel][lane] of a panel of output channels.
template <class T>
class WeightTransform {
 public:
  /// The channels of a tap have `tap_row` rows of lanes.
  WeightTransform(const ConvProblem& problem, const WinogradGeometry& geometry,
                  const WinogradForm<T>& form, const Machine& machine, std::int64_t tap_row)
      : problem_(problem),
        geometry_(geometry),
        kernels_(kernels_for<T>(machine)),
        form_(form),
        tap_row_(tap_row) {}

  /// For some channels of the sum.
  void run(const T* weight, std::int64_t group, std::int64_t panel, const Range& channels,
           T* transformed, std::int64_t frequency_stride) const noexcept;

 private:
  static constexpr int kMostColumns = 128 / sizeof(T);  ///< two vectors of 64 bytes

  ConvProblem problem_;
  WinogradGeometry geometry_;
  const Kernels<T>& kernels_;
  const WinogradForm<T>& form_;
  std::int64_t tap_row_;
};

}  // namespace convolith
