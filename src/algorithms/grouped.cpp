// Convolution in groups of few channels, too few to fill a vector or a panel of weights. Each
// layout has an execution of its own, in grouped/; most squares of stride 1 in channels_first are
// column sums.
//
// Backward-input is a forward with transposed weights for each residue of the stride; of stride 2,
// kernels of its own mostly do all residues together.

#include <algorithm>
#include <string>
#include <utility>

#include "arithmetic.hpp"
#include "column_sums/column_sums.hpp"
#include "convolith/algorithm.hpp"
#include "grouped/execution.hpp"
#include "narrow_gradient.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "stride_two/stride_two.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

constexpr std::int64_t kMostChannels = 16;

class GroupedAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "grouped"; }
  const char* summary() const noexcept override {
    return "groups of few channels, several of them in a vector";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      std::string reason = narrow_gradient_refusal(problem);
      if (reason.empty() && problem.in_channels_per_group() == 1) {
        reason = "groups are of 1 channel";
      }
      return reason.empty() ? Support{} : Support::no(std::move(reason));
    }
    if (std::string reason = too_long_to_list(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    const std::int64_t in = problem.in_channels_per_group();
    const std::int64_t out = problem.out_channels_per_group();
    if (problem.groups == 1 || in != out || in < 2 || in > kMostChannels) {
      return Support::no("groups are of " + std::to_string(in) + " channels in and " +
                         std::to_string(out) + " out; it takes several of 2 to " +
                         std::to_string(kMostChannels) + " in and as many out");
    }
    if (std::string reason = not_in_phases(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    const std::int64_t terms = reduction_terms(problem);
    if (terms > kMaxChain * kMaxChain / 2) {
      return Support::no("sums of " + std::to_string(terms) +
                         " products would be folded in a chain above " +
                         std::to_string(kMaxChain));
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) {
      return narrow_gradient_cost(problem, machine);
    }
    const bool wide = problem.dtype == DType::float64;
    const int lanes = lanes_of(problem.dtype, machine);
    const Extents extents = destination_extents(problem);
    const bool by_columns = sums_columns(problem, machine);
    const std::int64_t pixels = by_columns ? extents[1] * extents[2] : extents[2];
    const std::int64_t group = problem.in_channels_per_group();
    double filled = 0;
    if (problem.layout == Layout::channels_first) {
      filled = static_cast<double>(pixels) / static_cast<double>(round_up(pixels, lanes));
    } else if (group <= lanes) {
      filled = static_cast<double>(lanes / group * group) / static_cast<double>(lanes);
    } else {
      filled = static_cast<double>(group) / static_cast<double>(round_up(group, lanes));
    }
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size());
    constexpr double kForkJoin = 1e-6;
    const double share_of_peak = problem.layout == Layout::channels_last ? 0.9
                                 : by_columns                            ? 0.85
                                                                         : 0.75;
    return std::max(problem.flops() / (machine.flops_per_second[wide] * share_of_peak * filled),
                    bytes / (2 * machine.bytes_per_second)) +
           kForkJoin;
  }

  double packing_cost(const ConvProblem& problem, const Machine& /*machine*/) const override {
    if (problem.direction == Direction::backward_weight) return 0;
    constexpr double kElement = 2.5e-9;  // seconds: they are gathered one by one
    return static_cast<double>(problem.weight_size()) * kElement;
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
      return make_grouped_channels_last(problem, machine, threads);
    }
    return make_grouped_channels_first(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& grouped_algorithm() {
  static const GroupedAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
