#include "implicit_gemm/strip_axis.hpp"

#include <algorithm>

namespace convolith {

StripAxis::StripAxis(const AxisPhase& axis, std::int64_t destinations) {
  const auto taps = static_cast<std::int64_t>(axis.taps.size());
  const std::int64_t first = taps > 0 ? axis.taps.front().offset : 0;
  span = taps > 0 ? axis.taps.back().offset - first + 1 : 1;
  shared = (destinations - 1) * axis.source_step + span <= destinations * taps;
  step = shared ? axis.source_step : std::max<std::int64_t>(taps, 1);
  for (std::int64_t t = 0; t < taps; ++t) {
    offsets.push_back(shared ? axis.taps[t].offset - first : t);
  }
  if (!shared) span = std::max<std::int64_t>(taps, 1);
}

bool StripAxis::read_before(std::int64_t place, std::int64_t j) const noexcept {
  if (!shared) return false;
  for (std::int64_t above = j - 1; above >= 0; --above) {
    const std::int64_t offset = place - above * step;
    if (offset >= span) return false;
    if (std::binary_search(offsets.begin(), offsets.end(), offset)) return true;
  }
  return false;
}

bool flatten_pointwise(Phase& phase, std::array<std::int64_t, kSpatialAxes>& sources) {
  for (int i = 0; i < kSpatialAxes; ++i) {
    const AxisPhase& axis = phase.axes[i];
    if (axis.taps.size() != 1 || axis.taps[0].offset != 0 || axis.step != 1 ||
        axis.source_step != 1 || axis.count != sources[i]) {
      return false;
    }
  }
  phase.axes[2].count = phase.pixels();
  phase.axes[0].count = phase.axes[1].count = 1;
  sources = {1, 1, phase.axes[2].count};
  return true;
}

}  // namespace convolith
