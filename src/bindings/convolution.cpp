#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bias_gradient.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/call.hpp"
#include "bindings/plan_cache.hpp"
#include "bindings/unlocked.hpp"
#include "convolith/plan.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

// ---- plans ---------------------------------------------------------------------------------

PlanOptions plan_options(const std::string& algorithm, const std::string& numerics, int threads,
                         const std::string& isa, std::optional<std::size_t> workspace_limit) {
  PlanOptions options;
  options.algorithm = algorithm;
  options.numerics = parse_name<Numerics>(numerics, "numerics");
  options.threads = threads;
  options.isa = isa;
  options.workspace_limit = workspace_limit;
  return options;
}

py::dict tolerance_dict(const Tolerance& tolerance) {
  return py::dict("componentwise"_a = tolerance.componentwise, "uniform"_a = tolerance.uniform);
}

const char* choose_for(const ConvProblem& problem, const std::string& isa, std::size_t l1_bytes,
                       std::size_t l2_bytes, std::size_t l3_bytes, const std::string& numerics) {
  Machine machine = nominal_machine(compiled_isa(isa));
  machine.l1_bytes = l1_bytes;
  machine.l2_bytes = l2_bytes;
  machine.l3_bytes = l3_bytes;
  return choose(problem, parse_name<Numerics>(numerics, "numerics"), machine).name();
}

py::list algorithm_records(const ConvProblem& problem, const PlanOptions& options) {
  py::list records;
  for (const Candidate& candidate : candidates(problem, options)) {
    const bool yes = candidate.support.yes;
    const auto if_supported = [&](auto value) -> py::object {
      if (!yes) return py::none();
      return py::cast(value);
    };
    records.append(py::dict(
        "name"_a = candidate.algorithm->name(), "summary"_a = candidate.algorithm->summary(),
        "supported"_a = yes, "reason"_a = candidate.support.reason,
        "workspace_bytes"_a = if_supported(candidate.workspace_bytes),
        "packed_bytes"_a = if_supported(candidate.packed_bytes),
        "cost_seconds"_a = if_supported(candidate.cost_seconds),
        "tolerance"_a = yes ? py::object(tolerance_dict(candidate.tolerance)) : py::none()));
  }
  return records;
}

/// What Python knows as a Plan.
struct PlanObject {
  std::shared_ptr<const ArrayPlan> made;

  const ArrayPlan* operator->() const noexcept { return made.get(); }
};

/// Filled only once it is a Python object: where pybind11 has no memory to register one, it frees
/// what that held without destroying it.
template <class Make>
py::object plan_object(const Make& make) {
  py::object object = py::cast(PlanObject{});
  object.cast<PlanObject&>().made = std::make_shared<const ArrayPlan>(make());
  return object;
}

py::array execute(const PlanObject& plan, py::handle first, py::handle second, py::handle bias,
                  py::handle residual, py::handle out, const std::optional<Names>& names) {
  const Plan& planned = plan->plan;
  return Call(planned.problem(), plan->shapes, planned.packed(),
              {first, second, bias, residual, out}, names ? &*names : nullptr)
      .run(planned);
}

bool meets_subnormals(const PlanObject& plan, py::handle first, py::handle second, py::handle bias,
                      py::handle residual) {
  const Plan& planned = plan->plan;
  return Call(planned.problem(), plan->shapes, planned.packed(),
              {first, second, bias, residual, py::none()})
      .meets_subnormals(planned);
}

/// A call as Python passes it: its arrays, and all that it says besides.
struct SpokenCall {
  CallArrays arrays;
  py::handle said;

  explicit SpokenCall(const py::tuple& call) {
    constexpr int kItems = 6;
    if (call.size() != kItems) throw py::value_error("a call has " + std::to_string(kItems) + " items");
    const auto item = [&](int i) { return py::handle(PyTuple_GET_ITEM(call.ptr(), i)); };
    arrays = {item(0), item(1), item(2), item(3), item(4)};
    said = item(5);
  }
};

py::object repeat(const py::tuple& spoken) {
  const SpokenCall call(spoken);
  const auto plan =
      plan_cache::find(CallKey(call.arrays, call.said, default_threads(), default_numerics()));
  if (plan == nullptr) return py::none();
  return Call(plan->plan.problem(), plan->shapes, false, call.arrays).run(plan->plan);
}

py::array convolve(const ConvProblem& problem, const std::string& algorithm,
                   const std::string& numerics, int threads, const py::tuple& spoken,
                   const std::optional<Names>& names) {
  const SpokenCall call(spoken);
  PlanOptions options = plan_options(algorithm, numerics, threads, "", std::nullopt);
  options.packs_once = false;
  const CallKey key(call.arrays, call.said, threads, options.numerics);
  Call checked(problem, ProblemShapes(problem), false, call.arrays, names ? &*names : nullptr);
  const auto plan = std::make_shared<const ArrayPlan>(Plan(problem, options));
  plan_cache::insert(key, plan);
  return checked.run(plan->plan);
}

py::object pack(const PlanObject& plan, py::handle weight) {
  const ConvProblem& problem = plan->plan.problem();
  if (problem.direction == Direction::backward_weight) {
    throw py::value_error("a plan for backward_weight has no weights to pack");
  }
  const py::array array = require_array(weight, "weight");
  require_dtype(array, problem.dtype, "weight", "the problem");
  require_shape(array, plan->shapes.weight, "weight");
  const py::array source = contiguous(array);
  return plan_object([&] {
    const Unlocked unlocked;
    return ArrayPlan(plan->plan.with_weights(source.data()));
  });
}

py::array channel_sums(py::handle maps, int nd, const std::string& data_format,
                       const char* argument, int threads) {
  const py::array array = require_array(maps, argument);
  const auto layout = parse_name<Layout>(data_format, "data_format");
  const MapsShape shape = parse_maps_shape(shape_of(array), layout, nd, argument);
  std::int64_t pixels = 1;
  for (std::int64_t extent : shape.spatial) pixels *= extent;
  const InputMaps input = input_maps(array, layout, nd);
  Output output(py::none(), {&shape.channels, 1}, dtype_of(array));
  void* sums = output.data();
  const DType dtype = dtype_of(array);
  const int team = resolve_threads(threads);
  {
    const Unlocked unlocked;
    sum_over_batch_and_pixels(dtype, layout, input.view, shape.batch, shape.channels,
                              pixels, sums, team);
  }
  return output.finish();
}

/// The dtype that the named arrays share; `optional` ones may be None.
const char* common_dtype(const py::dict& optional, const py::kwargs& arrays) {
  const auto first = arrays.begin();
  const auto first_name = (*first).first.cast<std::string>();
  const DType dtype = dtype_of(require_array((*first).second, first_name.c_str()));
  for (const auto& [key, value] : arrays) {
    const auto argument = key.cast<std::string>();
    require_dtype(require_array(value, argument.c_str()), dtype, argument.c_str(),
                  first_name.c_str());
  }
  for (const auto& [key, value] : optional) {
    const auto argument = key.cast<std::string>();
    if (const auto array = optional_array(value, argument.c_str())) {
      require_dtype(*array, dtype, argument.c_str(), first_name.c_str());
    }
  }
  return name(dtype);
}

}  // namespace

void bind_convolution(py::module_& module) {
  py::class_<PlanObject> plan(
      module, "Plan",
      "An algorithm chosen for a problem, ready to run. Immutable; threads share it.");
  // Made by __new__: pybind11 registers what an __init__ made outside of its exception handling,
  // and the process would end where that has no memory.
  reinterpret_cast<PyTypeObject*>(plan.ptr())->tp_init = [](PyObject*, PyObject*, PyObject*) {
    return 0;
  };
  plan.def_static(
          "__new__",
          [](const py::object& /*type*/, const ConvProblem& problem, const std::string& algorithm,
             const std::string& numerics, int threads, const std::string& isa,
             std::optional<std::size_t> workspace_limit) {
            return plan_object([&] {
              return ArrayPlan(
                  Plan(problem, plan_options(algorithm, numerics, threads, isa, workspace_limit)));
            });
          },
          "type"_a, "problem"_a, "algorithm"_a = "auto", "numerics"_a = "fast", "threads"_a = 0,
          "isa"_a = "", "workspace_limit"_a = py::none())
      .def("execute", &execute, "first"_a, "second"_a, "bias"_a = py::none(),
           "residual"_a = py::none(), "out"_a = py::none(), "names"_a = py::none(),
           "Runs on (x, weight), (dy, weight) or (dy, x), as the problem's direction says; `names` "
           "are those of the two in messages.")
      .def("meets_subnormals", &meets_subnormals, "first"_a, "second"_a, "bias"_a = py::none(),
           "residual"_a = py::none(),
           "Whether a call on one thread computes with subnormal numbers: for tests.")
      .def("pack", &pack, "weight"_a, "The same plan with the weights packed inside.")
      .def("explain", [](const PlanObject& p) { return p->plan.explain(); })
      .def_property_readonly("problem", [](const PlanObject& p) { return p->plan.problem(); })
      .def_property_readonly("algorithm",
                             [](const PlanObject& p) { return p->plan.algorithm().name(); })
      .def_property_readonly("isa", [](const PlanObject& p) { return p->plan.isa(); })
      .def_property_readonly("threads", [](const PlanObject& p) { return p->plan.threads(); })
      .def_property_readonly("packed", [](const PlanObject& p) { return p->plan.packed(); })
      .def_property_readonly("flops", [](const PlanObject& p) { return p->plan.problem().flops(); })
      .def_property_readonly("workspace_bytes",
                             [](const PlanObject& p) { return p->plan.workspace_bytes(); })
      .def_property_readonly("packed_bytes",
                             [](const PlanObject& p) { return p->plan.packed_bytes(); })
      .def_property_readonly("tolerance", [](const PlanObject& p) {
        return tolerance_dict(p->plan.algorithm().tolerance(p->plan.problem()));
      });

  module.def("repeat", &repeat, "call"_a,
             "The result of a call (first, second, bias, residual, out, said) whose plan is cached, "
             "or None. `said` is a tuple of whatever else the plan follows from.");
  module.def("convolve", &convolve, "problem"_a, "algorithm"_a, "numerics"_a, "threads"_a,
             "call"_a, "names"_a = py::none(),
             "Plans a call and executes it; caches the plan for `repeat`. `names` are those of "
             "first and second in messages.");
  module.def("cached_plans", &plan_cache::size);
  module.def("forget_plans", &plan_cache::clear);
  module.def(
      "algorithms",
      [](const ConvProblem& problem, const std::string& numerics, int threads,
         const std::string& isa, std::optional<std::size_t> workspace_limit) {
        return algorithm_records(problem,
                                 plan_options("auto", numerics, threads, isa, workspace_limit));
      },
      "problem"_a, "numerics"_a = "fast", "threads"_a = 0, "isa"_a = "",
      "workspace_limit"_a = py::none());
  module.def("choose", &choose_for, "problem"_a, "isa"_a, "l1_bytes"_a, "l2_bytes"_a,
             "l3_bytes"_a, "numerics"_a = "fast",
             "What 'auto' takes on a machine of any compiled ISA with such caches.");
  module.def(
      "set_brief_operations",
      [](double operations) {
        plan_cache::clear();
        return set_brief_operations(operations);
      },
      "operations"_a,
      "Problems of fewer operations stay on the calling thread; returns what it was: for tests.");
  module.def("channel_sums", &channel_sums, "maps"_a, "nd"_a, "data_format"_a,
             "argument"_a = "dy", "threads"_a = 0);
  module.def("common_dtype", &common_dtype, "optional"_a = py::dict());
}

}  // namespace convolith
