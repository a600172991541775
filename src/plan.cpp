#include "convolith/plan.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "convolith/error.hpp"
#include "runtime/cpu.hpp"
#include "runtime/floating_point.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"
#include "selection.hpp"

namespace convolith {
namespace {

/// A team of threads costs microseconds to call together; that many operations take as long.
std::atomic<double> brief_operations{8e5};

/// Decided by the problem alone. Elements that are read or written count as operations, because
/// some problems do little with each.
bool is_brief(const ConvProblem& problem) {
  const double elements = static_cast<double>(problem.x_size()) +
                          static_cast<double>(problem.y_size()) +
                          static_cast<double>(problem.weight_size());
  return problem.flops() + 4 * elements < brief_operations.load(std::memory_order_relaxed);
}

Field processor(const Machine& machine, int threads) {
  return {algorithms(), machine, threads, "on one core"};
}

Field field_for(const ConvProblem& problem, const PlanOptions& options) {
  if (problem.dtype != DType::float32 && problem.dtype != DType::float64) {
    throw Unsupported(std::string("dtype is '") + name(problem.dtype) +
                      "'; the processor computes float32 and float64");
  }
  return processor(
      describe_machine(options.isa.empty() ? isa_in_use() : find_isa(options.isa)),
      is_brief(problem) ? 1 : resolve_threads(options.threads));
}

}  // namespace

std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options) {
  return candidates(problem, options, field_for(problem, options));
}

const Algorithm& choose(const ConvProblem& problem, Numerics numerics, const Machine& machine) {
  PlanOptions options;
  options.numerics = numerics;
  return choose(problem, options, processor(machine, 1));
}

Plan::Plan(const ConvProblem& problem, const PlanOptions& options)
    : problem_(problem),
      options_(options),
      threads_(resolve_threads(options.threads)),
      brief_(is_brief(problem)) {
  const DefaultFloatingPoint mode;
  const Field field = field_for(problem, options);
  isa_ = field.machine.kernels->isa;
  Choice choice = choose_prepared(problem, options, field);
  algorithm_ = choice.algorithm;
  execution_ = std::move(choice.execution);
}

double set_brief_operations(double operations) noexcept {
  return brief_operations.exchange(operations, std::memory_order_relaxed);
}

Plan Plan::with_weights(const void* weight) const {
  Plan plan = *this;
  std::shared_ptr<void> packed = allocate_aligned(std::max<std::size_t>(packed_bytes(), 1));
  execution_->pack(weight, packed.get());
  plan.packed_ = std::move(packed);
  return plan;
}

void Plan::run(const ConvArguments& arguments) const {
  // An empty batch has an empty result; the gradient of its weights is zero all the same.
  if (problem_.batch == 0 && problem_.direction != Direction::backward_weight) return;
  if (const std::size_t unpacked = execution_->unpacked_workspace_bytes();
      unpacked > 0 && !packed()) {
    Scratch scratch(unpacked);
    execution_->run(arguments, nullptr, scratch.data());
    return;
  }
  const std::size_t workspace = (workspace_bytes() + kAlignment - 1) / kAlignment * kAlignment;
  Scratch scratch(workspace + (packed() ? 0 : packed_bytes()));
  const void* packed = packed_.get();
  if (packed == nullptr && packed_bytes() > 0) {
    void* panels = static_cast<std::byte*>(scratch.data()) + workspace;
    execution_->pack(arguments.weight, panels);
    packed = panels;
  }
  execution_->run(arguments, packed, scratch.data());
}

std::string Plan::explain() const {
  return problem_.str() + "\n" + std::string("isa ") + isa_ + ", " + std::to_string(threads_) +
         (threads_ == 1 ? " thread" : " threads") + ", numerics " + name(options_.numerics) +
         ", algorithm '" + options_.algorithm + "'" +
         explain_choice(problem_, options_, field_for(problem_, options_), *algorithm_);
}

}  // namespace convolith
