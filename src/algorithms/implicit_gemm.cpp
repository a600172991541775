// Implicit GEMM: the product of im2col without its matrix. Each thread packs what a few tiles of
// pixels read, as much as stays in L2, and multiplies it by every panel of weights; padding, stride
// and dilation are resolved by the packing. The indirect convolution of Dukhan (arXiv:1907.02129)
// is the nearest relative.
//
// Backward-input, and with it transposed convolution, is one such product for each residue of the
// stride.

#include <algorithm>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "implicit_gemm/channel_lanes.hpp"
#include "implicit_gemm/pixel_lanes.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

/// Time in units of the multiply-adds of full vectors, by which index the lanes run along.
struct LaneCosts {
  double channels, pixels;
};

/// Empty lanes count in full. Channels as lanes pay for packing with a share of the output
/// channels, and in channels_first for transposing the output with a share of the sum; pixels as
/// lanes read vectors that straddle lines, and too few rows leave multiply-adds waiting for one
/// another. The constants were fitted to the 1x1 and 3x3 layers of MobileNet-v2 and ResNet-50.
LaneCosts lane_costs(const ConvProblem& problem, int lanes) {
  const auto filled = [&](std::int64_t extent) {
    return static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
  };
  const bool adjoint = is_adjoint(problem);
  const bool transposes = problem.layout == Layout::channels_first;
  const std::int64_t channels =
      adjoint ? problem.in_channels_per_group() : problem.out_channels_per_group();
  const auto sum = static_cast<double>(std::max<std::int64_t>(1, reduction_terms(problem)));
  const auto rows = static_cast<double>(channels);
  const double by_channels =
      1.03 / filled(channels) + (transposes ? 20 / sum + 8 / rows : 2 / rows);

  const bool pointwise = problem.taps() == 1 && problem.input_pixels() == problem.output_pixels();
  const std::int64_t row = pointwise ? problem.output_pixels() : problem.windows[2].output;
  constexpr double kIndependentRows = 4;
  double by_pixels = (pointwise ? 1.03 : 1.1) / filled(row) * std::max(1.0, kIndependentRows / rows) +
                     12 / sum + (transposes ? 0 : 8 / rows + 40 / sum);
  if (adjoint) by_pixels += 24 / sum;  // stores one by one
  return {by_channels, by_pixels};
}

class ImplicitGemmAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "implicit_gemm"; }
  const char* summary() const noexcept override {
    return "packs the patches of a few tiles at a time and multiplies";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      return Support::no("does not compute backward_weight");
    }
    if (std::string reason = not_in_phases(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    constexpr std::int64_t kFewestInBlock = 64;
    const std::int64_t terms = reduction_terms(problem);
    if (terms > kMaxChain * kFewestInBlock) {
      return Support::no("sums of " + std::to_string(terms) +
                         " products would be folded in a chain above " +
                         std::to_string(kMaxChain));
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const bool wide = problem.dtype == DType::float64;
    const LaneCosts costs = lane_costs(problem, lanes_of(problem.dtype, machine));
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size() +
                                             problem.weight_size());
    constexpr double kCall = 2e-7;
    return problem.flops() * std::min(costs.channels, costs.pixels) /
               (machine.flops_per_second[wide] * 0.95) +
           bytes / (4 * machine.bytes_per_second) + kCall;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.dtype == DType::float32) return prepare_typed<float>(problem, machine, threads);
    return prepare_typed<double>(problem, machine, threads);
  }

 private:
  template <class T>
  static std::unique_ptr<const Execution> prepare_typed(const ConvProblem& problem,
                                                        const Machine& machine, int threads) {
    const LaneCosts costs = lane_costs(problem, kernels_for<T>(machine).lanes);
    if (costs.pixels < costs.channels) {
      return std::make_unique<PixelLanes<T>>(problem, machine, threads);
    }
    return std::make_unique<ChannelLanes<T>>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& implicit_gemm_algorithm() {
  static const ImplicitGemmAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
