#pragma once

#include <cstdint>
#include <vector>

#include "phases.hpp"

namespace convolith {

/// One axis of a packed strip. A destination's taps are found at its own index times `step`, plus
/// the tap's offset: neighbours share what they both read, or each has its taps to itself where
/// that is shorter.
struct StripAxis {
  std::int64_t step;
  std::vector<std::int64_t> offsets;  ///< of each tap
  std::int64_t span;                  ///< last offset + 1
  bool shared;

  StripAxis(const AxisPhase& axis, std::int64_t destinations);

  std::int64_t length(std::int64_t destinations) const noexcept {
    return (destinations - 1) * step + span;
  }

  /// Whether a destination before number `j` reads `place` too.
  bool read_before(std::int64_t place, std::int64_t j) const noexcept;
};

/// A kernel of one tap that reads every source in order: all pixels may be taken as one row.
/// Makes the phase and the sources' extents so.
bool flatten_pointwise(Phase& phase, std::array<std::int64_t, kSpatialAxes>& sources);

}  // namespace convolith
