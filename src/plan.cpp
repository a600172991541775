#include "convolith/plan.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "convolith/error.hpp"
#include "runtime/cpu.hpp"
#include "runtime/floating_point.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

constexpr std::string_view kAuto = "auto";

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

Machine machine_for(const PlanOptions& options) {
  return describe_machine(options.isa.empty() ? isa_in_use() : find_isa(options.isa));
}

/// Fills in what can be said without preparing the algorithm.
Candidate predict(const Algorithm& algorithm, const ConvProblem& problem,
                  const PlanOptions& options, const Machine& machine) {
  Candidate candidate{&algorithm, {}};
  if (options.numerics == Numerics::strict && !algorithm.strict()) {
    candidate.support = Support::no("numerics 'strict' allows no transform");
  } else {
    candidate.support = algorithm.supports(problem);
  }
  if (candidate.support.yes) {
    ConvProblem judged = problem;
    // Under strict numerics a sample has the same bits in any batch, so the same algorithm.
    if (options.numerics == Numerics::strict) judged.batch = 1;
    candidate.cost_seconds = algorithm.cost(judged, machine);
    if (!options.packs_once) candidate.cost_seconds += algorithm.packing_cost(judged, machine);
    candidate.tolerance = algorithm.tolerance(problem);
  }
  return candidate;
}

/// Prepares a supported algorithm; refuses it where its workspace is over the limit.
std::unique_ptr<const Execution> prepare(Candidate& candidate, const ConvProblem& problem,
                                         const PlanOptions& options, const Machine& machine) {
  const int threads = is_brief(problem) ? 1 : resolve_threads(options.threads);
  std::unique_ptr<const Execution> execution =
      candidate.algorithm->prepare(problem, machine, threads);
  candidate.workspace_bytes = execution->workspace_bytes();
  candidate.packed_bytes = execution->packed_bytes();
  if (options.workspace_limit && candidate.workspace_bytes > *options.workspace_limit) {
    candidate.support = Support::no("workspace of " + std::to_string(candidate.workspace_bytes) +
                                    " bytes is over the limit of " +
                                    std::to_string(*options.workspace_limit));
    return nullptr;
  }
  return execution;
}

bool is_known(std::string_view name) {
  return name == kAuto || std::ranges::any_of(algorithms(), [&](const Algorithm* algorithm) {
           return name == algorithm->name();
         });
}

/// The algorithm that the options name, or all of them, where they support the problem.
std::vector<Candidate> supported(const ConvProblem& problem, const PlanOptions& options,
                                 const Machine& machine) {
  std::vector<Candidate> result;
  for (const Algorithm* algorithm : algorithms()) {
    if (options.algorithm != kAuto && options.algorithm != algorithm->name()) continue;
    Candidate candidate = predict(*algorithm, problem, options, machine);
    if (candidate.support.yes) result.push_back(std::move(candidate));
  }
  return result;
}

/// The earlier in the registry among equals.
std::vector<Candidate>::iterator cheapest(std::vector<Candidate>& ranked) {
  return std::ranges::min_element(ranked, {}, &Candidate::cost_seconds);
}

std::string reasons(const std::vector<Candidate>& all) {
  std::string text;
  for (const Candidate& candidate : all) {
    text += std::string("\n  ") + candidate.algorithm->name() + ": " +
            (candidate.support.yes ? "supported" : candidate.support.reason);
  }
  return text;
}

/// Three digits and the first unit in which the value is at least 1.
std::string with_unit(double value, std::initializer_list<std::pair<double, const char*>> units) {
  auto unit = units.begin();
  while (unit + 1 != units.end() && value < unit->first) ++unit;
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "%.3g %s", value / unit->first, unit->second);
  return buffer;
}

std::string seconds_text(double seconds) {
  return with_unit(seconds, {{1.0, "s"}, {1e-3, "ms"}, {1e-6, "us"}, {1e-9, "ns"}});
}

std::string bytes_text(std::size_t bytes) {
  return with_unit(static_cast<double>(bytes),
                   {{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1.0, "bytes"}});
}

}  // namespace

std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options) {
  const Machine machine = machine_for(options);
  std::vector<Candidate> result;
  for (const Algorithm* algorithm : algorithms()) {
    Candidate candidate = predict(*algorithm, problem, options, machine);
    if (candidate.support.yes) prepare(candidate, problem, options, machine);
    result.push_back(std::move(candidate));
  }
  return result;
}

const Algorithm& choose(const ConvProblem& problem, Numerics numerics, const Machine& machine) {
  PlanOptions options;
  options.numerics = numerics;
  std::vector<Candidate> ranked = supported(problem, options, machine);
  if (ranked.empty()) throw Unsupported("no algorithm can serve " + problem.str());
  return *cheapest(ranked)->algorithm;
}

Plan::Plan(const ConvProblem& problem, const PlanOptions& options)
    : problem_(problem),
      options_(options),
      threads_(resolve_threads(options.threads)),
      brief_(is_brief(problem)) {
  const DefaultFloatingPoint mode;
  const Machine machine = machine_for(options);
  isa_ = machine.kernels->isa;
  std::vector<Candidate> ranked = supported(problem, options, machine);
  while (!ranked.empty()) {
    const auto best = cheapest(ranked);
    execution_ = prepare(*best, problem, options, machine);
    algorithm_ = best->algorithm;
    if (execution_ != nullptr) return;
    ranked.erase(best);
  }
  throw Unsupported("algorithm '" + options.algorithm + "' " +
                    (is_known(options.algorithm) ? "cannot serve " : "is unknown; for ") +
                    problem.str() + ":" + reasons(candidates(problem, options)));
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
