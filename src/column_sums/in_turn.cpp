#include <algorithm>
#include <utility>

#include "arithmetic.hpp"
#include "column_sums/column_sums.hpp"
#include "column_sums/phase.hpp"
#include "column_sums/tables.hpp"
#include "directed_call.hpp"
#include "kernels/kernel_table.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Depthwise in channels_last with fewer channels than lanes: a row is one of elements whose
/// channels take turns. Maps with other channels between their pixels are left to `otherwise`.
template <class T>
class ColumnSumsInTurn final : public Execution {
 public:
  ColumnSumsInTurn(const ConvProblem& problem, const Machine& machine, int threads,
                   std::shared_ptr<const Execution> otherwise)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(*table_.column_sums),
        threads_(threads),
        channels_(problem.groups),
        phase_(column_sums_phase(problem)),
        tables_(phase_, table_.lanes, channels_),
        otherwise_(std::move(otherwise)) {
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = fused.store();
  }

  std::size_t workspace_bytes() const noexcept override {
    return std::max(bias_bytes(), otherwise_->workspace_bytes());
  }
  std::size_t packed_bytes() const noexcept override {
    return weight_bytes() + otherwise_->packed_bytes();
  }

  /// [turn][tap][lane], then what `otherwise` packs.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps();
    for (std::int64_t turn = 0; turn < tables_.turns(); ++turn) {
      for_each_tap(phase_.phase, problem_, [&](std::int64_t, std::int64_t tap) {
        for (std::int64_t lane = 0; lane < table_.lanes; ++lane) {
          *target++ = source[channel(turn, lane) * taps + tap];
        }
      });
    }
    otherwise_->pack(weight, static_cast<std::byte*>(packed) + weight_bytes());
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    if (call.source.pixel_stride != channels_ || call.output.pixel_stride != channels_) {
      const auto* others = static_cast<const std::byte*>(packed) + weight_bytes();
      return otherwise_->run(arguments, others, workspace);
    }
    const T* bias = spread_bias(call.bias, static_cast<T*>(workspace));
    const std::int64_t pieces = tables_.pieces();
    parallel_for(threads_, problem_.batch * pieces, [&](std::int64_t unit, int) {
      const std::int64_t sample = unit / pieces, piece = unit % pieces;
      const std::int64_t place = tables_.output_place(piece);
      ColumnSums<T> sums{};
      tables_.fill(piece, sums);
      sums.source = call.source.sample(sample, 0);
      sums.groups = 1;
      sums.channels = 1;
      sums.taps = problem_.taps();
      sums.weight = call.packed;
      sums.bias = bias;
      sums.output = call.output.sample(sample, 0) + place;
      sums.store = store_;
      kernels_.run_in_turn(sums, static_cast<int>(phase_.width.taps()));
      if (!second_pass_) return;
      const Range range = tables_.output_range(piece);
      table_.epilogue(call.epilogue.rest(sample, 0, (place + range.begin) / channels_),
                      static_cast<int>((range.end - range.begin) / channels_),
                      static_cast<int>(channels_), sums.output + range.begin, channels_, 1);
    });
  }

 private:
  std::int64_t channel(std::int64_t turn, std::int64_t lane) const noexcept {
    return (turn * table_.lanes + lane) % channels_;
  }
  std::size_t bias_bytes() const noexcept {
    return aligned_bytes<T>(tables_.turns() * table_.lanes);
  }
  std::size_t weight_bytes() const noexcept {
    return aligned_bytes<T>(tables_.turns() * problem_.taps() * table_.lanes);
  }

  /// [turn][lane]
  const T* spread_bias(const T* bias, T* lanes) const noexcept {
    if (bias == nullptr) return nullptr;
    for (std::int64_t turn = 0; turn < tables_.turns(); ++turn) {
      for (std::int64_t lane = 0; lane < table_.lanes; ++lane) {
        lanes[turn * table_.lanes + lane] = bias[channel(turn, lane)];
      }
    }
    return lanes;
  }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const ColumnSumsKernels<T>& kernels_;
  int threads_;
  std::int64_t channels_;
  DensePhase phase_;
  ColumnSumsTables tables_;
  std::shared_ptr<const Execution> otherwise_;
  bool second_pass_;
  SumStore<T> store_{};
};

}  // namespace

bool sums_columns_in_turn(const ConvProblem& problem, const Machine& machine) {
  const std::int64_t lanes = lanes_of(problem.dtype, machine), channels = problem.groups;
  if (problem.layout != Layout::channels_last || channels >= lanes) return false;
  if (problem.in_channels != channels || problem.out_channels != channels) return false;
  const KernelTable& kernels = *machine.kernels;
  const int largest = problem.dtype == DType::float32
                          ? kernels.float32.column_sums->largest_in_turn
                          : kernels.float64.column_sums->largest_in_turn;
  const int kernel = column_sums_kernel(problem);
  // Sums come from a neighbouring vector at most.
  return kernel > 0 && kernel <= largest && kernel / 2 * channels <= lanes;
}

std::unique_ptr<const Execution> make_column_sums_in_turn(
    const ConvProblem& problem, const Machine& machine, int threads,
    std::shared_ptr<const Execution> otherwise) {
  return make_typed<ColumnSumsInTurn>(problem, machine, threads, otherwise);
}

}  // namespace convolith
