#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "convolith/problem.hpp"

namespace convolith {

/// One residue class of an axis. Its destinations are begin + j * step for j in [0, count); under
/// the taps of the class they read the sources j * source_step + offset, which padding may
/// replace where they lie outside the axis. Forward: destinations are outputs, sources inputs, and
/// there is one class. Adjoint: the other way round, and there are as many as the stride.
struct AxisPhase {
  struct Tap {
    std::int64_t tap;     ///< of the kernel
    std::int64_t offset;  ///< ascending
  };
  std::int64_t begin, step, count;
  std::int64_t source_step;
  std::vector<Tap> taps;
};

std::vector<AxisPhase> axis_phases(const Window& window, bool adjoint);

/// A convolution with the taps of one class per axis: its destinations are a grid, and all of
/// them have the same taps.
struct Phase {
  std::array<AxisPhase, kSpatialAxes> axes;

  std::int64_t pixels() const noexcept { return axes[0].count * axes[1].count * axes[2].count; }
  std::int64_t taps() const noexcept;

  /// Whether neighbouring destinations of the phase are neighbours in the array.
  bool dense() const noexcept;
};

/// Whether sources are outputs of the convolution, and destinations its inputs.
inline bool is_adjoint(const ConvProblem& problem) noexcept {
  return problem.direction == Direction::backward_input;
}

using Extents = std::array<std::int64_t, kSpatialAxes>;
Extents source_extents(const ConvProblem& problem) noexcept;
Extents destination_extents(const ConvProblem& problem) noexcept;

/// Forward: one. Adjoint: one for each residue that has destinations.
std::vector<Phase> phases(const ConvProblem& problem);

/// visit(place, tap): the taps of a phase in order, and their numbers in the caller's array.
template <class Visit>
void for_each_tap(const Phase& phase, const ConvProblem& problem, const Visit& visit) {
  const auto& [depth, height, width] = phase.axes;
  std::int64_t place = 0;
  for (const AxisPhase::Tap& d : depth.taps) {
    for (const AxisPhase::Tap& h : height.taps) {
      for (const AxisPhase::Tap& w : width.taps) {
        visit(place++,
              (d.tap * problem.windows[1].kernel + h.tap) * problem.windows[2].kernel + w.tap);
      }
    }
  }
}

/// Why an adjoint problem is no gather of few phases, or nothing: only padding with zeros leaves
/// it one.
std::string not_in_phases(const ConvProblem& problem);

/// Why an algorithm that lists the coordinates of an axis refuses a long one, or nothing.
std::string too_long_to_list(const ConvProblem& problem);

}  // namespace convolith
