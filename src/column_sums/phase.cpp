#include "column_sums/phase.hpp"

#include "kernels/kernel_table.hpp"

namespace convolith {

int column_sums_kernel(const ConvProblem& problem) {
  const auto& [depth, height, width] = problem.windows;
  const std::int64_t kernel = width.kernel;
  if (problem.padding_mode != PaddingMode::zeros) return 0;
  if (problem.taps() * problem.in_channels_per_group() > kMaxChain) return 0;
  if (height.kernel != kernel || kernel < 3 || kernel % 2 == 0) return 0;
  if (height.dilation != 1 || width.dilation != 1) return 0;
  if (height.stride != 1 || width.stride != 1) return 0;
  if (is_adjoint(problem) && depth.stride != 1) return 0;  // several phases
  if (width.output != width.input || width.before != kernel / 2) return 0;
  return static_cast<int>(kernel);
}

DensePhase column_sums_phase(const ConvProblem& problem) {
  return {phases(problem)[0], source_extents(problem), problem.padding_mode};
}

}  // namespace convolith
