#include "convolith/plan.hpp"

#include <algorithm>
#include <cstdio>

#include "convolith/error.hpp"
#include "runtime/cpu.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

int resolved_threads(const PlanOptions& options) {
  return options.threads > 0 ? options.threads : default_threads();
}

Machine machine_for(const PlanOptions& options) {
  return describe_machine(options.isa.empty() ? isa_in_use() : find_isa(options.isa));
}

std::unique_ptr<const Execution> assess(Candidate& candidate, const ConvProblem& problem,
                                        const PlanOptions& options, const Machine& machine) {
  const Algorithm& algorithm = *candidate.algorithm;
  if (options.numerics == Numerics::strict && !algorithm.strict()) {
    candidate.support = Support::no("numerics 'strict' allows no transform");
  } else {
    candidate.support = algorithm.supports(problem);
  }
  if (!candidate.support.yes) return nullptr;
  std::unique_ptr<const Execution> execution =
      algorithm.prepare(problem, machine, resolved_threads(options));
  candidate.workspace_bytes = execution->workspace_bytes();
  candidate.packed_bytes = execution->packed_bytes();
  candidate.cost_seconds = algorithm.cost(problem, machine);
  candidate.tolerance = algorithm.tolerance(problem);
  if (options.workspace_limit && candidate.workspace_bytes > *options.workspace_limit) {
    candidate.support = Support::no("workspace of " + std::to_string(candidate.workspace_bytes) +
                                    " bytes is over the limit of " +
                                    std::to_string(*options.workspace_limit));
    return nullptr;
  }
  return execution;
}

std::string reasons(const std::vector<Candidate>& all) {
  std::string text;
  for (const Candidate& candidate : all) {
    text += std::string("\n  ") + candidate.algorithm->name() + ": " +
            (candidate.support.yes ? "supported" : candidate.support.reason);
  }
  return text;
}

std::string seconds_text(double seconds) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g ms", seconds * 1e3);
  return buffer;
}

std::string bytes_text(std::size_t bytes) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g MiB", static_cast<double>(bytes) / (1 << 20));
  return buffer;
}

}  // namespace

std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options) {
  const Machine machine = machine_for(options);
  std::vector<Candidate> result;
  for (const Algorithm* algorithm : algorithms()) {
    Candidate candidate{algorithm, {}};
    assess(candidate, problem, options, machine);
    result.push_back(std::move(candidate));
  }
  return result;
}

Plan::Plan(const ConvProblem& problem, const PlanOptions& options)
    : problem_(problem), options_(options), threads_(resolved_threads(options)) {
  const Machine machine = machine_for(options);
  isa_ = machine.kernels->isa;
  std::vector<Candidate> considered;
  double best_cost = 0;
  bool known = options.algorithm == "auto";
  for (const Algorithm* algorithm : algorithms()) {
    Candidate candidate{algorithm, {}};
    std::unique_ptr<const Execution> execution = assess(candidate, problem, options, machine);
    const bool named = options.algorithm == algorithm->name();
    known = known || named;
    const bool better = execution_ == nullptr || candidate.cost_seconds < best_cost;
    if (execution != nullptr && (named || (options.algorithm == "auto" && better))) {
      execution_ = std::move(execution);
      algorithm_ = algorithm;
      best_cost = candidate.cost_seconds;
    }
    considered.push_back(std::move(candidate));
  }
  if (execution_ == nullptr) {
    throw Unsupported((known ? "algorithm '" + options.algorithm + "' cannot serve "
                             : "algorithm '" + options.algorithm + "' is unknown for ") +
                      problem.str() + ":" + reasons(considered));
  }
}

Plan Plan::with_weights(const void* weight) const {
  Plan plan = *this;
  std::shared_ptr<void> packed = allocate_aligned(std::max<std::size_t>(packed_bytes(), 1));
  execution_->pack(weight, packed.get());
  plan.packed_ = std::move(packed);
  return plan;
}

void Plan::run(const ConvArguments& arguments) const {
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
  std::string text = problem_.str() + "\n" + std::string("isa ") + isa_ + ", " +
                     std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads") +
                     ", numerics " + name(options_.numerics) + ", algorithm '" +
                     options_.algorithm + "'";
  for (const Candidate& candidate : candidates(problem_, options_)) {
    text += std::string("\n") + (candidate.algorithm == algorithm_ ? "* " : "  ") +
            candidate.algorithm->name() + ": ";
    if (!candidate.support.yes) {
      text += "refused, " + candidate.support.reason;
    } else {
      text += "predicted " + seconds_text(candidate.cost_seconds) + " on one core, workspace " +
              bytes_text(candidate.workspace_bytes) + ", packed weights " +
              bytes_text(candidate.packed_bytes);
    }
  }
  return text;
}

}  // namespace convolith
