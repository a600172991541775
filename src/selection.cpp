#include "selection.hpp"

#include <algorithm>
#include <cstdio>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "convolith/error.hpp"

namespace convolith {
namespace {

constexpr std::string_view kAuto = "auto";

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
                                         const PlanOptions& options, const Field& field) {
  std::unique_ptr<const Execution> execution =
      candidate.algorithm->prepare(problem, field.machine, field.threads);
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

bool is_known(std::string_view name, const Field& field) {
  return name == kAuto || std::ranges::any_of(field.algorithms, [&](const Algorithm* algorithm) {
           return name == algorithm->name();
         });
}

/// The algorithm that the options name, or all of them that "auto" may take, where they support
/// the problem.
std::vector<Candidate> supported(const ConvProblem& problem, const PlanOptions& options,
                                 const Field& field) {
  std::vector<Candidate> result;
  for (const Algorithm* algorithm : field.algorithms) {
    const bool considered = options.algorithm == kAuto ? algorithm->automatic()
                                                       : options.algorithm == algorithm->name();
    if (!considered) continue;
    Candidate candidate = predict(*algorithm, problem, options, field.machine);
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

std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options,
                                  const Field& field) {
  std::vector<Candidate> result;
  for (const Algorithm* algorithm : field.algorithms) {
    Candidate candidate = predict(*algorithm, problem, options, field.machine);
    if (candidate.support.yes) prepare(candidate, problem, options, field);
    result.push_back(std::move(candidate));
  }
  return result;
}

const Algorithm& choose(const ConvProblem& problem, const PlanOptions& options,
                        const Field& field) {
  std::vector<Candidate> ranked = supported(problem, options, field);
  if (ranked.empty()) throw Unsupported("no algorithm can serve " + problem.str());
  return *cheapest(ranked)->algorithm;
}

Choice choose_prepared(const ConvProblem& problem, const PlanOptions& options,
                       const Field& field) {
  std::vector<Candidate> ranked = supported(problem, options, field);
  while (!ranked.empty()) {
    const auto best = cheapest(ranked);
    std::unique_ptr<const Execution> execution = prepare(*best, problem, options, field);
    if (execution != nullptr) return {best->algorithm, std::move(execution)};
    ranked.erase(best);
  }
  throw Unsupported("algorithm '" + options.algorithm + "' " +
                    (is_known(options.algorithm, field) ? "cannot serve " : "is unknown; for ") +
                    problem.str() + ":" + reasons(candidates(problem, options, field)));
}

std::string explain_choice(const ConvProblem& problem, const PlanOptions& options,
                           const Field& field, const Algorithm& chosen) {
  std::string text;
  for (const Candidate& candidate : candidates(problem, options, field)) {
    text += std::string("\n") + (candidate.algorithm == &chosen ? "* " : "  ") +
            candidate.algorithm->name() + ": ";
    if (!candidate.support.yes) {
      text += "refused, " + candidate.support.reason;
    } else {
      text += "predicted " + seconds_text(candidate.cost_seconds) + " " + field.cost_of +
              ", workspace " + bytes_text(candidate.workspace_bytes) + ", packed weights " +
              bytes_text(candidate.packed_bytes);
      if (!candidate.algorithm->automatic()) text += ", taken by name alone";
    }
  }
  return text;
}

}  // namespace convolith
