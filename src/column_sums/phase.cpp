#include "column_sums/phase.hpp"

#include "kernels/kernel_table.hpp"

namespace convolith {
namespace {

/// Whether the phase is of neighbours on this axis, a window of `taps` at each.
bool rolls(const AxisPhase& axis, std::int64_t taps) {
  if (axis.begin != 0 || axis.step != 1 || axis.source_step != 1) return false;
  if (static_cast<std::int64_t>(axis.taps.size()) != taps) return false;
  return axis.taps.back().offset - axis.taps.front().offset == taps - 1;
}

}  // namespace

int column_sums_kernel(const ConvProblem& problem) {
  if (problem.padding_mode != PaddingMode::zeros) return 0;
  if (problem.taps() * problem.in_channels_per_group() > kMaxChain) return 0;
  if (phases(problem).size() != 1) return 0;
  const DensePhase phase = column_sums_phase(problem);
  const auto& [depth, height, width] = phase.phase.axes;
  const std::int64_t taps = phase.width.taps();
  if (taps < 3 || taps % 2 == 0 || depth.step != 1) return 0;
  if (!rolls(width, taps) || !rolls(height, taps)) return 0;
  if (width.count != phase.extents[2] || width.taps[0].offset != -(taps / 2)) return 0;
  return static_cast<int>(taps);
}

DensePhase column_sums_phase(const ConvProblem& problem) {
  return {phases(problem)[0], source_extents(problem), problem.padding_mode};
}

}  // namespace convolith
