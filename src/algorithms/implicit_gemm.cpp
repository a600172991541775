// Implicit GEMM: the product of im2col without its matrix. Each thread packs what a few tiles of
// pixels read, as much as stays in L2, and multiplies it by every panel of weights; padding, stride
// and dilation are resolved by the packing. The indirect convolution of Dukhan (arXiv:1907.02129)
// is the nearest relative.
//
// Backward-input, and with it transposed convolution, is one such product for each residue of the
// stride.

#include <algorithm>
#include <cstdlib>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "implicit_gemm/channel_lanes.hpp"
#include "implicit_gemm/pixel_lanes.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

constexpr std::int64_t kMostPhases = 256;

bool is_adjoint(const ConvProblem& problem) {
  return problem.direction == Direction::backward_input;
}

/// Which of the two indices of the product the lanes run along. Channels as lanes cost a
/// transposition of both maps in channels_first, which a 1x1 kernel hardly pays for.
bool lanes_are_pixels(const ConvProblem& problem) {
  if (const char* e = std::getenv("IG")) return e[0] == 'p' && problem.layout == Layout::channels_first;
  if (problem.layout == Layout::channels_last) return false;
  return problem.taps() == 1;
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
    if (is_adjoint(problem)) {
      if (problem.padding_mode != PaddingMode::zeros) {
        return Support::no(std::string("backward_input with padding_mode '") +
                           convolith::name(problem.padding_mode) + "' folds margins back");
      }
      double residues = 1;
      for (const Window& w : problem.windows) {
        residues *= static_cast<double>(std::min(w.stride, w.input));
      }
      if (residues > kMostPhases) {
        return Support::no("backward_input with more than " + std::to_string(kMostPhases) +
                           " residues of the stride");
      }
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
    const int lanes = wide ? machine.kernels->float64.lanes : machine.kernels->float32.lanes;
    const bool channels_last = problem.layout == Layout::channels_last;
    const std::int64_t channels = is_adjoint(problem) ? problem.in_channels_per_group()
                                                      : problem.out_channels_per_group();
    const std::int64_t pixels =
        is_adjoint(problem) ? problem.input_pixels() : problem.output_pixels();
    const std::int64_t extent = channels_last ? channels : pixels;
    const double filled =
        static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
    // Packing an element costs as much as its product with about two channels.
    const double packing = 1 + 3 / static_cast<double>(channels);
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size() +
                                             problem.weight_size());
    constexpr double kForkJoin = 2e-6;
    return problem.flops() * packing / (machine.flops_per_second[wide] * 0.92 * filled) +
           bytes / (4 * machine.bytes_per_second) + kForkJoin;
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
    if (lanes_are_pixels(problem)) {
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
