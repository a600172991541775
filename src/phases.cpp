#include "phases.hpp"

#include <algorithm>

#include "arithmetic.hpp"

namespace convolith {

std::vector<AxisPhase> axis_phases(const Window& window, bool adjoint) {
  const Window& w = window;
  std::vector<AxisPhase> result;
  if (!adjoint) {
    AxisPhase all{0, 1, w.output, w.stride, {}};
    for (std::int64_t t = 0; t < w.kernel; ++t) {
      all.taps.push_back({t, t * w.dilation - w.before});
    }
    result.push_back(std::move(all));
    return result;
  }
  // Output o reads input i under tap t where o * stride = i + before - t * dilation.
  for (std::int64_t residue = 0; residue < std::min(w.stride, w.input); ++residue) {
    AxisPhase phase{residue, w.stride, divide_up(w.input - residue, w.stride), 1, {}};
    for (std::int64_t t = w.kernel - 1; t >= 0; --t) {
      const std::int64_t distance = residue + w.before - t * w.dilation;
      if (distance % w.stride == 0) phase.taps.push_back({t, distance / w.stride});
    }
    result.push_back(std::move(phase));
  }
  return result;
}

std::int64_t Phase::taps() const noexcept {
  std::int64_t product = 1;
  for (const AxisPhase& axis : axes) product *= static_cast<std::int64_t>(axis.taps.size());
  return product;
}

bool Phase::dense() const noexcept {
  return axes[0].step == 1 && axes[1].step == 1 && axes[2].step == 1;
}

std::string too_long_to_list(const ConvProblem& problem) {
  constexpr std::int64_t kLongest = 1 << 22;
  for (const Window& w : problem.windows) {
    if (w.input + w.before + w.after > kLongest) {
      return "an axis of more than " + std::to_string(kLongest) + " pixels";
    }
  }
  return {};
}

Extents source_extents(const ConvProblem& problem) noexcept {
  Extents extents{};
  for (int i = 0; i < kSpatialAxes; ++i) {
    extents[i] = is_adjoint(problem) ? problem.windows[i].output : problem.windows[i].input;
  }
  return extents;
}

Extents destination_extents(const ConvProblem& problem) noexcept {
  Extents extents{};
  for (int i = 0; i < kSpatialAxes; ++i) {
    extents[i] = is_adjoint(problem) ? problem.windows[i].input : problem.windows[i].output;
  }
  return extents;
}

std::string not_in_phases(const ConvProblem& problem) {
  if (!is_adjoint(problem)) return {};
  if (problem.padding_mode != PaddingMode::zeros) {
    return std::string("backward_input with padding_mode '") + name(problem.padding_mode) +
           "' folds margins back";
  }
  constexpr int kMostPhases = 256;
  double residues = 1;
  for (const Window& w : problem.windows) {
    residues *= static_cast<double>(std::min(w.stride, w.input));
  }
  if (residues <= kMostPhases) return {};
  return "backward_input with more than " + std::to_string(kMostPhases) +
         " residues of the stride";
}

std::vector<Phase> phases(const ConvProblem& problem) {
  const bool adjoint = is_adjoint(problem);
  std::vector<Phase> result;
  const std::vector<AxisPhase> depth = axis_phases(problem.windows[0], adjoint);
  const std::vector<AxisPhase> height = axis_phases(problem.windows[1], adjoint);
  const std::vector<AxisPhase> width = axis_phases(problem.windows[2], adjoint);
  for (const AxisPhase& d : depth) {
    for (const AxisPhase& h : height) {
      for (const AxisPhase& w : width) result.push_back({{d, h, w}});
    }
  }
  return result;
}

}  // namespace convolith
