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
#include "implicit_gemm/weight_gradient.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "taps.hpp"
#include "tolerance.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Time in units of the multiply-adds of full vectors, by which index the lanes run along.
struct LaneCosts {
  double channels, pixels;
};

/// Empty lanes count in full. Channels as lanes pay in channels_first for transposing the output
/// with a share of the sum; pixels as lanes read vectors that straddle lines, and a single
/// row leaves multiply-adds waiting for one another. Both pay for packing with a share of the output
/// channels, the smaller the more taps read what is packed. The constants were fitted to the layers
/// of MobileNet-v2 and ResNet-50.
LaneCosts lane_costs(const ConvProblem& problem, const Machine& machine) {
  const int lanes = lanes_of(problem.dtype, machine);
  // What a sum costs besides is counted for two multiply-adds a cycle.
  const double multiply_adds = machine.flops_per_second[problem.dtype == DType::float64] /
                               (2.0 * lanes);
  const double per_sum = multiply_adds / (2 * machine.cycles_per_second);
  const auto filled = [&](std::int64_t extent, bool halves = false) {
    const std::int64_t whole = round_up(extent, lanes);
    const std::int64_t taken = halves ? (whole + round_up(extent, lanes / 2)) / 2 : whole;
    return static_cast<double>(extent) / static_cast<double>(taken);
  };
  const bool adjoint = is_adjoint(problem);
  const bool transposes = problem.layout == Layout::channels_first;
  const std::int64_t channels =
      adjoint ? problem.in_channels_per_group() : problem.out_channels_per_group();
  const double sum = static_cast<double>(std::max<std::int64_t>(1, reduction_terms(problem))) /
                     per_sum;
  const auto rows = static_cast<double>(channels);
  double reads = static_cast<double>(problem.taps());
  for (const Window& w : problem.windows) reads /= static_cast<double>(w.stride);
  const bool strided = reads < static_cast<double>(problem.taps());
  const double packed = 1 / (rows * std::max(1.0, reads));
  const bool pointwise = problem.taps() == 1 && problem.input_pixels() == problem.output_pixels();
  const bool in_place = pointwise && transposes;
  const bool packs = !(in_place && channels_lie_spread(problem));
  const double by_channels = 1.03 / filled(channels) + (transposes ? 20 / sum : 0) +
                             (packs ? (transposes ? 8 : 2) * packed : 0);

  const std::int64_t row = pointwise ? problem.output_pixels() : problem.windows[2].output;
  const double waiting = channels == 1 ? 4 : 1;
  // Where the source is read in place, the last vector may be half of one, at three quarters of its
  // cost.
  const bool halves = in_place && machine.kernels->vector_bytes == 64;
  // Elements some step apart come one by one, or nearly.
  const double packing = strided && !adjoint ? 1.1 * lanes : transposes ? 0 : strided ? 14 : 8;
  double by_pixels = (pointwise ? 1.03 : 1.1) / filled(row, halves) * waiting +
                     (in_place ? 6 : 12) / sum + packing * packed + (transposes ? 0 : 15 / sum);
  if (adjoint && transposes) by_pixels += 24 / sum;  // stores one by one
  return {by_channels, by_pixels};
}

/// The share of the products that is computed: those of kernel rows and planes that lie in padding
/// are not, nor those of columns where wide stretches, as wide as the dilation, lie in it.
double share_computed(const ConvProblem& problem) {
  if (problem.padding_mode != PaddingMode::zeros) return 1;
  const double columns = share_inside(problem.windows[2]);
  constexpr double kWorthCutting = 0.8;
  constexpr std::int64_t kWide = 4;
  const bool cuts = columns < kWorthCutting && problem.windows[2].dilation >= kWide;
  return share_inside(problem.windows[0]) * share_inside(problem.windows[1]) *
         (cuts ? columns : 1);
}

class ImplicitGemmAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "implicit_gemm"; }
  const char* summary() const noexcept override {
    return "packs the patches of a few tiles at a time and multiplies";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      std::string reason = weight_gradient_refusal(problem);
      return reason.empty() ? Support{} : Support::no(std::move(reason));
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
    if (problem.direction == Direction::backward_weight) {
      return weight_gradient_cost(problem, machine);
    }
    const bool wide = problem.dtype == DType::float64;
    const LaneCosts costs = lane_costs(problem, machine);
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size() +
                                             problem.weight_size());
    // Each group of a sample is packed, multiplied and brought home by itself, line by line.
    constexpr double kCall = 2e-7, kGroup = 4e-7, kLine = 3e-8;
    const Extents source = source_extents(problem);
    const double group = kGroup + kLine * static_cast<double>(source[0] * source[1]);
    // Groups of one channel are taken out of channels_last element by element.
    const bool apart = problem.layout == Layout::channels_last && problem.groups > 1 &&
                       problem.in_channels_per_group() == 1;
    const double elements = apart ? static_cast<double>(problem.x_size() + problem.y_size()) : 0;
    const auto further_groups = static_cast<double>(problem.batch * (problem.groups - 1));
    return problem.flops() * share_computed(problem) * std::min(costs.channels, costs.pixels) /
               (machine.flops_per_second[wide] * 0.95) +
           bytes / (4 * machine.bytes_per_second) + kCall + group * further_groups +
           gathering_seconds(elements, machine);
  }

  double packing_cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) return 0;
    return packing_seconds(
        static_cast<double>(problem.weight_size() * size_of(problem.dtype)), machine);
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.direction == Direction::backward_weight) {
      return make_weight_gradient(problem, machine, threads);
    }
    const LaneCosts costs = lane_costs(problem, machine);
    if (costs.pixels < costs.channels) return make_typed<PixelLanes>(problem, machine, threads);
    return make_typed<ChannelLanes>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& implicit_gemm_algorithm() {
  static const ImplicitGemmAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
