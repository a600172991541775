// Convolution by discrete Fourier transforms, for large kernels. Output tiles are computed by
// overlap-save (Oppenheim & Schafer, Discrete-Time Signal Processing, 8.7): the window that a tile
// reads is transformed, multiplied by the kernel's spectrum, frequency by frequency and summed
// over channels, and transformed back; the points that wrapped round are not written. Two real
// tiles make one complex transform, since the kernel is real: neither is ever separated.
//
// The transforms are written here (kernels/fft_line.inl.hpp) rather than taken from a library:
// pocketfft, the one inside NumPy and SciPy, has no package on PyPI to build against, and FFTW's
// licence is the GPL. Either would transform whole arrays, and padding, pairing, transposing and
// the layout that the products want would each be a pass of their own. With a transform in every
// lane these belong to the reading and writing of lines, and no butterfly shuffles.

#include <optional>

#include "convolith/algorithm.hpp"
#include "fft/execution.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

class FftAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "fft"; }
  const char* summary() const noexcept override {
    return "multiplies the Fourier transforms of overlapping tiles";
  }
  bool strict() const noexcept override { return false; }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      return Support::no("gradients of weights are not computed by transforms");
    }
    if (std::string reason = too_long_to_list(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    for (const Window& w : problem.windows) {
      if (w.stride != 1) {
        return Support::no("stride " + std::to_string(w.stride) +
                           ": most of what the transforms compute would be dropped");
      }
      if (problem.direction == Direction::backward_input &&
          problem.padding_mode != PaddingMode::zeros && (w.before > 0 || w.after > 0)) {
        return Support::no(std::string("padding mode ") + convolith::name(problem.padding_mode) +
                           " folds margins back into the gradient");
      }
    }
    if (problem.windows[0].kernel != 1) {
      return Support::no("kernels of more than two axes have no transform here");
    }
    for (const KernelTable* isa : available_isas()) {
      const Machine machine = describe_machine(*isa);
      std::string reason;
      if (!FftDimensions(problem, machine).choose(machine, &reason)) return Support::no(reason);
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const FftDimensions dimensions(problem, machine);
    std::string reason;
    const std::optional<FftTiling> tiling = dimensions.choose(machine, &reason);
    const double maps_bytes = static_cast<double>(problem.x_size() + problem.y_size()) *
                              static_cast<double>(size_of(problem.dtype));
    constexpr double kForkJoin = 6e-6;
    // Pixels of less than a vector are taken apart and put together channel by channel.
    const bool apart = problem.layout == Layout::channels_last && problem.groups > 1 &&
                       problem.in_channels < lanes_of(problem.dtype, machine);
    const double elements = apart ? static_cast<double>(problem.x_size() + problem.y_size()) : 0;
    return kForkJoin + dimensions.seconds(*tiling, machine) +
           maps_bytes / machine.bytes_per_second + gathering_seconds(elements, machine);
  }

  double packing_cost(const ConvProblem& problem, const Machine& machine) const override {
    const FftDimensions dimensions(problem, machine);
    std::string reason;
    const std::optional<FftTiling> tiling = dimensions.choose(machine, &reason);
    const std::int64_t elements = dimensions.packed_elements(*tiling);
    // Not only written but transformed, twice.
    return 2 * packing_seconds(static_cast<double>(elements * size_of(problem.dtype)), machine);
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    // Each of the three transforms has log2 of its points of levels, with a
    // sum, a product and the error of a twiddle; the products of channels are summed between.
    // Neither a coefficient nor an output exceeds max |x| sum |weight|, scaled.
    constexpr double kMostLevels = 16;
    const bool adjoint = problem.direction == Direction::backward_input;
    const auto channels = static_cast<double>(adjoint ? problem.out_channels_per_group()
                                                      : problem.in_channels_per_group());
    return {summation_bound(problem.dtype, 1),
            probable_bound(problem.dtype, 3 * 3 * kMostLevels + channels)};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    const FftDimensions dimensions(problem, machine);
    std::string reason;
    return prepare_fft(problem, dimensions, *dimensions.choose(machine, &reason), machine,
                       threads);
  }
};

}  // namespace

const Algorithm& fft_algorithm() {
  static const FftAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
