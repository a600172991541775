#include "column_sums/column_sums.hpp"

#include <algorithm>

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

template <class T>
int largest_kernel(const ColumnSumsKernels<T>& kernels, std::int64_t channels) {
  return channels > 1 ? kernels.largest_together : kernels.largest;
}

template <class T>
class ColumnSumsExecution final : public Execution {
 public:
  ColumnSumsExecution(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(*table_.column_sums),
        threads_(threads),
        adjoint_(is_adjoint(problem)),
        reduced_(adjoint_ ? problem.out_channels_per_group() : problem.in_channels_per_group()),
        produced_(adjoint_ ? problem.in_channels_per_group() : problem.out_channels_per_group()),
        phase_(column_sums_phase(problem)),
        kernel_(static_cast<int>(phase_.width.taps())),
        outputs_(kernel_ <= kernels_.largest_together ? kernels_.outputs : 1),
        tables_(phase_, table_.lanes) {
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = fused.store();
  }

  std::size_t workspace_bytes() const noexcept override { return 0; }
  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(problem_.weight_size()) * sizeof(T);
  }

  /// [group][block of outputs][channel][tap][output]
  void pack(const void* weight, void* packed) const noexcept override {
    const std::int64_t taps = problem_.taps();
    const std::int64_t in = problem_.in_channels_per_group();
    const std::int64_t produced_stride = adjoint_ ? taps : in * taps;
    const std::int64_t reduced_stride = adjoint_ ? in * taps : taps;
    const auto* group = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    for (std::int64_t g = 0; g < problem_.groups; ++g) {
      for (std::int64_t m = 0; m < produced_; m += outputs_) {
        const std::int64_t end = std::min<std::int64_t>(produced_, m + outputs_);
        for (std::int64_t c = 0; c < reduced_; ++c) {
          const T* channel = group + c * reduced_stride;
          for_each_tap(phase_.phase, problem_, [&](std::int64_t, std::int64_t tap) {
            for (std::int64_t k = m; k < end; ++k) *target++ = channel[k * produced_stride + tap];
          });
        }
      }
      group += produced_ * reduced_ * taps;
    }
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* /*workspace*/) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    const std::int64_t units = problem_.batch * problem_.groups * tables_.pieces();
    parallel(threads_, [&](int thread, int team) {
      const Range range = Range::share(units, thread, team);
      for (std::int64_t unit = range.begin; unit < range.end;) {
        unit += run_unit(call, unit, range.end - unit);
      }
    });
  }

 private:
  /// A piece of a group, or where a group is one output and one piece, of `most` groups at most;
  /// returns of how many.
  std::int64_t run_unit(const DirectedCall<T>& call, std::int64_t unit,
                        std::int64_t most) const noexcept {
    constexpr std::int64_t kMostTogether = 16;
    const std::int64_t pieces = tables_.pieces();
    const std::int64_t piece = unit % pieces;
    const std::int64_t group = unit / pieces % problem_.groups;
    const std::int64_t sample = unit / pieces / problem_.groups;
    const std::int64_t groups = produced_ == 1 && pieces == 1
                                    ? std::min({most, problem_.groups - group, kMostTogether})
                                    : 1;
    const std::int64_t channel = group * produced_;
    const std::int64_t place = tables_.output_place(piece);
    ColumnSums<T> sums{};
    tables_.fill(piece, sums);
    sums.source = call.source.sample(sample, group * reduced_);
    sums.source_channel_stride = call.source.channel_stride;
    sums.groups = groups;
    sums.channels = reduced_;
    sums.taps = problem_.taps();
    sums.output_channel_stride = call.output.channel_stride;
    sums.store = store_;
    T* output = call.output.sample(sample, channel) + place;
    for (std::int64_t m = 0; m < produced_; m += outputs_) {
      const std::int64_t outputs = std::min<std::int64_t>(produced_ - m, outputs_);
      sums.weight = call.packed + (channel + m) * reduced_ * sums.taps;
      sums.bias = call.bias != nullptr ? call.bias + channel + m : nullptr;
      sums.output = output + m * call.output.channel_stride;
      kernels_.run(sums, kernel_, static_cast<int>(outputs));
    }
    if (second_pass_) {
      const Range pixels = tables_.output_range(piece);
      table_.epilogue(call.epilogue.rest(sample, channel, place + pixels.begin),
                      static_cast<int>(groups * produced_),
                      static_cast<int>(pixels.end - pixels.begin), output + pixels.begin,
                      call.output.channel_stride, 1);
    }
    return groups;
  }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const ColumnSumsKernels<T>& kernels_;
  int threads_;
  bool adjoint_;
  std::int64_t reduced_, produced_;  ///< channels of a group
  DensePhase phase_;
  int kernel_, outputs_;  ///< outputs_: channels that are written together
  ColumnSumsTables tables_;
  bool second_pass_;
  SumStore<T> store_{};
};

}  // namespace

bool sums_columns(const ConvProblem& problem, const Machine& machine) {
  if (problem.layout != Layout::channels_first) return false;
  const std::int64_t channels = problem.in_channels_per_group();
  const KernelTable& kernels = *machine.kernels;
  const int kernel = column_sums_kernel(problem);
  const int largest = problem.dtype == DType::float32
                          ? largest_kernel(*kernels.float32.column_sums, channels)
                          : largest_kernel(*kernels.float64.column_sums, channels);
  // Sums come from a neighbouring vector at most.
  return kernel > 0 && kernel <= largest && kernel / 2 <= lanes_of(problem.dtype, machine);
}

std::unique_ptr<const Execution> make_column_sums(const ConvProblem& problem,
                                                  const Machine& machine, int threads) {
  return make_typed<ColumnSumsExecution>(problem, machine, threads);
}

}  // namespace convolith
