#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolith/algorithm.hpp"
#include "directed_call.hpp"
#include "epilogue.hpp"
#include "kernels/depthwise_table.hpp"
#include "packed_rows.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"

namespace convolith {

/// What a phase needs in either layout.
template <class T>
struct DepthwisePhase : DensePhase {
  using DensePhase::DensePhase;

  std::int64_t packed_begin = 0;  ///< of its weights, in elements
  int kernel = 0;                 ///< extent of a fixed kernel, or 0
  std::int64_t block_rows = 1;

  /// Whether height and width are those of a kernel with code of its own.
  void choose_kernel(const DepthwiseKernels<T>& kernels, bool with_width) {
    const std::int64_t taps = height.taps();
    if (width.taps() != taps || (taps != 3 && taps != 5 && taps != 7)) return;
    if (!height.shared() || height.stride() > 2 || phase.taps() > kMaxChain) return;
    if (with_width && (!width.shared() || width.stride() != height.stride())) return;
    kernel = static_cast<int>(taps);
    block_rows = kernels.roll_rows[(taps - 3) / 2];
  }
};

/// What the executions for either layout share: the phases of a problem, and the kernels.
template <class T>
class Depthwise : public Execution {
 public:
  Depthwise(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(*table_.depthwise),
        threads_(threads),
        channels_(is_adjoint(problem) ? problem.in_channels : problem.out_channels),
        multiplier_(problem.out_channels_per_group()) {
    const Extents extents = source_extents(problem);
    destination_ = destination_extents(problem);
    source_pixels_ = extents;
    for (const Phase& phase : phases(problem)) {
      plans_.emplace_back(phase, extents, problem.padding_mode);
    }
    // What the kernels do not do themselves follows while the outputs are in L1.
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = fused.store();
  }

  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(zeros_begin_ + zeros_) * sizeof(T);
  }

 protected:
  std::int64_t destination_pixel(const DepthwisePhase<T>& plan, std::int64_t d, std::int64_t h,
                                 std::int64_t w) const noexcept {
    const auto& axes = plan.phase.axes;
    return ((axes[0].begin + d * axes[0].step) * destination_[1] + axes[1].begin +
            h * axes[1].step) *
               destination_[2] +
           axes[2].begin + w * axes[2].step;
  }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const DepthwiseKernels<T>& kernels_;
  int threads_;
  std::int64_t channels_, multiplier_;
  std::array<std::int64_t, kSpatialAxes> source_pixels_{}, destination_{};
  std::vector<DepthwisePhase<T>> plans_;
  bool second_pass_;
  SumStore<T> store_{};
  std::int64_t zeros_begin_ = 0, zeros_ = 0;  ///< zeros behind the packed weights
};

}  // namespace convolith
