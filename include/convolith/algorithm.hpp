#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "convolith/problem.hpp"
#include "convolith/tensor.hpp"

namespace convolith {

struct KernelTable;
namespace cuda {
struct Device;
}

/// What an algorithm may know of the machine when it predicts its cost. The thread count is not
/// part of it: the choice of algorithm must not depend on it.
struct Machine {
  const KernelTable* kernels;   ///< of the ISA in use
  double flops_per_second[2];   ///< one core's FMA peak for float32 and float64, estimated
  double cycles_per_second;     ///< of what is not bound by the width of the datapaths
  double bytes_per_second;      ///< one core's copy rate from memory, estimated
  std::size_t l1_bytes, l2_bytes, l3_bytes;
  bool halves_vectors;                   ///< whether the datapaths take a vector in two halves
  const cuda::Device* device = nullptr;  ///< what there is in place of `kernels` and rates
};

/// Yes, or the reason why not.
struct Support {
  bool yes = true;
  std::string reason;

  static Support no(std::string why) { return {false, std::move(why)}; }
};

/// |computed - exact| <= componentwise * convolution(|x|, |weight|)
///                        + uniform * max |x| * sum |weight|, output by output, where the
/// convolution is of the problem's direction, bias and residual count as further terms, the maximum
/// is over the maps that are read and the sum over the weights of the output's channel; for
/// backward_weight, the maximum of |x| and the sum of |dy| over its channel. The second term is
/// that of transforms, in which an output has part of its neighbours' errors; it holds with a
/// probability of 1 - 10^-7 an output if rounding errors are independent.
struct Tolerance {
  double componentwise = 0;
  double uniform = 0;
};

/// The tensors of a convolution by role. The direction says which of x, y and weight is written.
struct ConvArguments {
  TensorView x{};
  TensorView y{};
  void* weight = nullptr;        ///< contiguous (out, in / groups, taps); null if packed
  const void* bias = nullptr;    ///< one number per channel of the output
  TensorView residual{};         ///< of the output's shape
};

/// An algorithm made ready for one problem and number of threads. Immutable: several threads may
/// run it at once, each with a workspace of its own.
class Execution {
 public:
  virtual ~Execution() = default;

  /// Scratch for one run, packed weights not counted.
  virtual std::size_t workspace_bytes() const noexcept = 0;

  /// Size of the weights as `run` wants them; 0 where it reads the caller's array.
  virtual std::size_t packed_bytes() const noexcept { return 0; }
  virtual void pack(const void* /*weight*/, void* /*packed*/) const noexcept {}

  /// Scratch for one run on weights that are not packed, where `run` does better to transform them
  /// as it goes than to have them packed before; else 0. The result is the same, bit for bit.
  virtual std::size_t unpacked_workspace_bytes() const noexcept { return 0; }

  /// `packed` is what pack() made, or null: then the workspace is of unpacked_workspace_bytes().
  /// `workspace` is aligned to kAlignment, its content arbitrary.
  virtual void run(const ConvArguments& arguments, const void* packed,
                   void* workspace) const noexcept = 0;
};

/// An entry of the registry.
class Algorithm {
 public:
  virtual ~Algorithm() = default;

  virtual const char* name() const noexcept = 0;
  virtual const char* summary() const noexcept = 0;

  /// False for transforms, in which an output is not the sum of its own products alone.
  virtual bool strict() const noexcept { return true; }

  /// False for those that "auto" leaves to whoever names them: their error is beyond what the
  /// library promises for the dtype.
  virtual bool automatic() const noexcept { return true; }
  virtual Support supports(const ConvProblem& problem) const = 0;

  /// Predicted seconds on one core.
  virtual double cost(const ConvProblem& problem, const Machine& machine) const = 0;

  /// Predicted seconds on one core of packing the weights, for calls that do it each time.
  virtual double packing_cost(const ConvProblem& /*problem*/, const Machine& /*machine*/) const {
    return 0;
  }
  virtual Tolerance tolerance(const ConvProblem& problem) const = 0;
  virtual std::unique_ptr<const Execution> prepare(const ConvProblem& problem,
                                                   const Machine& machine, int threads) const = 0;
};

/// All algorithms, in the order of algorithms.def.
std::span<const Algorithm* const> algorithms() noexcept;

inline constexpr std::size_t kAlignment = 64;

}  // namespace convolith
