#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "convolith/algorithm.hpp"
#include "directed_call.hpp"
#include "epilogue.hpp"
#include "kernels/grouped_table.hpp"
#include "packed_rows.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"

namespace convolith {

/// What the executions for either layout share: the phases of a problem, and where weights stand.
template <class T>
class Grouped : public Execution {
 public:
  Grouped(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(*table_.grouped),
        threads_(threads),
        adjoint_(is_adjoint(problem)),
        channels_(problem.in_channels),
        group_(problem.in_channels_per_group()) {
    const Extents extents = source_extents(problem);
    destination_ = destination_extents(problem);
    for (const Phase& phase : phases(problem)) {
      phases_.emplace_back(phase, extents, problem.padding_mode);
    }
    // What the kernels do not do themselves follows while the outputs are in L1.
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = fused.store();
  }

 protected:
  std::int64_t destination_pixel(const DensePhase& phase, std::int64_t d, std::int64_t h,
                                 std::int64_t w) const noexcept {
    const auto& axes = phase.phase.axes;
    return ((axes[0].begin + d * axes[0].step) * destination_[1] + axes[1].begin +
            h * axes[1].step) *
               destination_[2] +
           axes[2].begin + w * axes[2].step;
  }

  /// The caller's weight between two channels of a group under taps of a phase, by number.
  /// A weight's place in the array is the sum of its group's, channels' and tap's.
  std::int64_t group_place(std::int64_t first_channel) const noexcept {
    return first_channel * group_ * problem_.taps();
  }
  std::int64_t produced_stride() const noexcept {
    return (adjoint_ ? 1 : group_) * problem_.taps();
  }
  std::int64_t reduced_stride() const noexcept { return (adjoint_ ? group_ : 1) * problem_.taps(); }
  std::int64_t tap_place(const DensePhase& phase, std::int64_t z, std::int64_t y,
                         std::int64_t x) const noexcept {
    const auto& axes = phase.phase.axes;
    return (axes[0].taps[z].tap * problem_.windows[1].kernel + axes[1].taps[y].tap) *
               problem_.windows[2].kernel +
           axes[2].taps[x].tap;
  }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const GroupedKernels<T>& kernels_;
  int threads_;
  bool adjoint_;
  std::int64_t channels_, group_;
  std::array<std::int64_t, kSpatialAxes> destination_{};
  std::vector<DensePhase> phases_;
  bool second_pass_;
  SumStore<T> store_{};
};

}  // namespace convolith
