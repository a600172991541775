// Depthwise convolution: every output channel reads one input channel, so that memory is what
// counts. Each layout has an execution of its own, in depthwise/; most squares of stride 1 in
// channels_first, and of few channels in channels_last, are column sums.
//
// Backward-input is a forward for each residue of the stride; of stride 2, kernels of its own
// mostly do all residues together.

#include <algorithm>
#include <string>
#include <utility>

#include "arithmetic.hpp"
#include "column_sums/column_sums.hpp"
#include "convolith/algorithm.hpp"
#include "depthwise/execution.hpp"
#include "narrow_gradient.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "stride_two/stride_two.hpp"
#include "taps.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

class DepthwiseAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "depthwise"; }
  const char* summary() const noexcept override {
    return "one input channel for each output channel, read once";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      std::string reason = narrow_gradient_refusal(problem);
      if (reason.empty() && problem.in_channels_per_group() > 1) {
        reason = "groups is " + std::to_string(problem.groups) +
                 "; it must equal in_channels, " + std::to_string(problem.in_channels);
      }
      return reason.empty() ? Support{} : Support::no(std::move(reason));
    }
    if (std::string reason = too_long_to_list(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    if (problem.in_channels_per_group() != 1) {
      return Support::no("groups is " + std::to_string(problem.groups) +
                         "; it must equal in_channels, " + std::to_string(problem.in_channels));
    }
    if (is_adjoint(problem) && problem.out_channels_per_group() != 1) {
      return Support::no("backward_input sums over a channel multiplier of " +
                         std::to_string(problem.out_channels_per_group()));
    }
    if (std::string reason = not_in_phases(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    // Chains are folded after kMaxChain / 2 taps at the earliest.
    if (problem.taps() > kMaxChain * kMaxChain / 2) {
      return Support::no("sums of " + std::to_string(problem.taps()) +
                         " products would be folded in a chain above " +
                         std::to_string(kMaxChain));
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) {
      return narrow_gradient_cost(problem, machine);
    }
    const int lanes = lanes_of(problem.dtype, machine);
    const bool in_turn = sums_columns_in_turn(problem, machine);
    const bool by_columns = in_turn || sums_columns(problem, machine);
    const bool transposes = problem.layout == Layout::channels_first && !by_columns &&
                            is_worth_transposing(problem, machine);
    const bool by_channels = (problem.layout == Layout::channels_last && !in_turn) || transposes;
    const Extents pixels = destination_extents(problem);
    const std::int64_t extent = by_channels  ? problem.out_channels
                                : in_turn    ? pixels[1] * pixels[2] * problem.groups
                                : by_columns ? pixels[1] * pixels[2]
                                             : pixels[2];
    const double filled =
        static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
    const auto elements = static_cast<double>(problem.x_size() + problem.y_size());
    const double bytes = static_cast<double>(size_of(problem.dtype)) * elements;
    constexpr double kForkJoin = 1e-6;
    // Packed rows cost more than pixels whose channels touch, steps of 3 and more a load for each
    // lane, several outputs of a channel a pass each.
    double multiply_adds = by_channels ? 1 : by_columns ? 0.8 : 0.6;  // a cycle
    if (problem.windows[2].stride > 2) multiply_adds *= 0.2;
    // Pixels of less than a vector are loaded and stored in part.
    if (problem.layout == Layout::channels_last && !in_turn && extent < lanes) {
      multiply_adds *= 0.2;
    }
    if (problem.out_channels_per_group() > 1 && !by_columns) multiply_adds *= 0.5;
    // Cycles for a vector that is transposed, with its load and store.
    constexpr double kShuffles = 6;
    const double shuffles = transposes ? kShuffles * elements / (lanes * machine.cycles_per_second)
                                       : 0;
    // Rows of taps that find padding alone are left out; of columns, those under a whole block.
    double share = 1;
    if (problem.padding_mode == PaddingMode::zeros) {
      share = share_inside(problem.windows[0]) * share_inside(problem.windows[1]) *
              (1 + share_inside(problem.windows[2])) / 2;
    }
    return std::max(problem.flops() * share /
                        (2 * lanes * machine.cycles_per_second * multiply_adds * filled),
                    bytes / (2 * machine.bytes_per_second)) +
           shuffles + kForkJoin;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.direction == Direction::backward_weight) {
      return make_narrow_gradient(problem, machine, threads);
    }
    if (sums_columns(problem, machine)) return make_column_sums(problem, machine, threads);
    if (is_stride_two(problem, machine)) return make_stride_two(problem, machine, threads);
    if (problem.layout == Layout::channels_last) {
      auto execution = make_depthwise_channels_last(problem, machine, threads);
      if (!sums_columns_in_turn(problem, machine)) return execution;
      return make_column_sums_in_turn(problem, machine, threads, std::move(execution));
    }
    if (is_worth_transposing(problem, machine)) {
      return make_depthwise_transposed(problem, machine, threads);
    }
    return make_depthwise_channels_first(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& depthwise_algorithm() {
  static const DepthwiseAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
