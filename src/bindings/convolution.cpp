#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <utility>

#include "bias_gradient.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "convolith/plan.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

// ---- problems from shapes ------------------------------------------------------------------

/// What every maker of a problem takes besides the shapes, as Python has normalised it.
struct Options {
  py::tuple stride, dilation;
  py::object padding;  ///< a name, or one (before, after) pair per axis
  std::int64_t groups;
  std::string data_format, padding_mode;

  static Options from(const py::kwargs& keywords) {
    return {keywords["stride"].cast<py::tuple>(),       keywords["dilation"].cast<py::tuple>(),
            keywords["padding"],                        keywords["groups"].cast<std::int64_t>(),
            keywords["data_format"].cast<std::string>(),
            keywords["padding_mode"].cast<std::string>()};
  }

  Layout layout() const { return parse_name<Layout>(data_format, "data_format"); }

  void assign(ConvSpec& spec) const {
    spec.layout = layout();
    spec.groups = groups;
    spec.padding_mode = parse_name<PaddingMode>(padding_mode, "padding_mode");
    for (int i = 0; i < spec.rank; ++i) {
      WindowSpec& window = spec.windows[i];
      window.stride = stride[i].cast<std::int64_t>();
      window.dilation = dilation[i].cast<std::int64_t>();
      if (py::isinstance<py::str>(padding)) {
        const auto rule = padding.cast<std::string>();
        window.rule = rule == "same"         ? PaddingRule::same
                      : rule == "same_lower" ? PaddingRule::same_lower
                                             : PaddingRule::valid;
      } else {
        const auto pair = py::cast<py::tuple>(py::cast<py::tuple>(padding)[i]);
        window.before = pair[0].cast<std::int64_t>();
        window.after = pair[1].cast<std::int64_t>();
      }
    }
  }
};

Epilogue epilogue_from(const py::kwargs& keywords) {
  Epilogue epilogue;
  epilogue.bias = keywords["bias"].cast<bool>();
  epilogue.residual = keywords["residual"].cast<bool>();
  epilogue.activation =
      parse_name<Activation>(keywords["activation"].cast<std::string>(), "activation");
  epilogue.slope = keywords["slope"].cast<double>();
  return epilogue;
}

void require_weight_rank(const Shape& weight, int nd, const char* axes) {
  if (static_cast<int>(weight.size()) != nd + 2) {
    throw py::value_error("weight has " + std::to_string(weight.size()) + " axes; it must have " +
                          std::to_string(nd + 2) + ": " + axes);
  }
}

/// The forward convolution of x with weights (out, in / groups, *kernel).
ConvSpec convolution_spec(int nd, const Shape& x_shape, const Shape& weight, const Options& options,
                          const char* x_name) {
  require_weight_rank(weight, nd, "(out, in / groups, *kernel)");
  const MapsShape x = parse_maps_shape(x_shape, options.layout(), nd, x_name);
  ConvSpec spec;
  spec.rank = nd;
  spec.batched = !x.unbatched;
  spec.batch = x.batch;
  spec.in_channels = x.channels;
  spec.out_channels = weight[0];
  options.assign(spec);
  for (int i = 0; i < nd; ++i) {
    spec.windows[i].input = x.spatial[i];
    spec.windows[i].kernel = weight[i + 2];
  }
  return spec;
}

/// Groups divide by now; the weights must carry as many input channels as a group of x has.
ConvProblem make_checked(const ConvSpec& spec, const Shape& weight, const char* x_name) {
  const ConvProblem problem = ConvProblem::make(spec);
  if (weight[1] != problem.in_channels_per_group()) {
    throw py::value_error("weight has " + std::to_string(weight[1]) +
                          " input channels per group (axis 1); " + x_name + " has " +
                          std::to_string(problem.in_channels) + " channels in " +
                          std::to_string(problem.groups) + " groups, so it must have " +
                          std::to_string(problem.in_channels_per_group()));
  }
  return problem;
}

/// The convolution whose adjoint maps x to the transposed convolution's output; weights are
/// (in, out / groups, *kernel), which is that convolution's own order.
ConvProblem transposed_problem(Direction direction, int nd, const Shape& x_shape,
                               const Shape& weight, DType dtype, const py::tuple& output_padding,
                               const std::optional<Shape>& output_size, const Options& options,
                               const Epilogue& epilogue, const char* x_name) {
  require_weight_rank(weight, nd, "(in, out / groups, *kernel)");
  const MapsShape x = parse_maps_shape(x_shape, options.layout(), nd, x_name);
  if (weight[0] != x.channels) {
    throw py::value_error("weight has " + std::to_string(weight[0]) + " input channels (axis 0); " +
                          x_name + " has " + std::to_string(x.channels) + " channels");
  }
  if (options.groups >= 1 && x.channels % options.groups != 0) {
    throw py::value_error("groups is " + std::to_string(options.groups) +
                          "; it must divide in_channels " + std::to_string(x.channels));
  }
  ConvSpec spec;
  spec.direction = direction;
  spec.dtype = dtype;
  spec.rank = nd;
  spec.batched = !x.unbatched;
  spec.batch = x.batch;
  spec.out_channels = x.channels;
  spec.in_channels =
      checked_multiply(weight[1], std::max<std::int64_t>(options.groups, 1), "output channels");
  spec.epilogue = epilogue;
  options.assign(spec);
  for (int i = 0; i < nd; ++i) {
    spec.windows[i].kernel = weight[i + 2];
    std::optional<std::int64_t> size;
    if (output_size) size = (*output_size)[i];
    spec.windows[i] = transposed_window(spec.windows[i], x.spatial[i],
                                        output_padding[i].cast<std::int64_t>(), size,
                                        ConvProblem::array_axis(i, spec.layout, spec.batched));
  }
  return ConvProblem::make(spec);
}

ConvProblem make_convolution(const std::string& direction, int nd, const py::tuple& x_shape,
                             const py::tuple& weight_shape, const std::string& dtype,
                             const py::kwargs& keywords) {
  const char* x_name = direction == "backward_input" ? "input_shape" : "x";
  const Shape weight = shape_argument(weight_shape);
  ConvSpec spec = convolution_spec(nd, shape_argument(x_shape), weight, Options::from(keywords),
                                   x_name);
  spec.direction = parse_name<Direction>(direction, "direction");
  spec.dtype = parse_name<DType>(dtype, "dtype");
  spec.epilogue = epilogue_from(keywords);
  return make_checked(spec, weight, x_name);
}

ConvProblem make_transposed(const std::string& direction, int nd, const py::tuple& x_shape,
                            const py::tuple& weight_shape, const std::string& dtype,
                            const py::tuple& output_padding, const py::object& output_size,
                            const py::kwargs& keywords) {
  // The transposed convolution's own direction, turned into that of the problem.
  const auto own = parse_name<Direction>(direction, "direction");
  const Direction of_problem = own == Direction::forward          ? Direction::backward_input
                               : own == Direction::backward_input ? Direction::forward
                                                                  : own;
  std::optional<Shape> size;
  if (!output_size.is_none()) size = shape_argument(output_size.cast<py::tuple>());
  return transposed_problem(of_problem, nd, shape_argument(x_shape), shape_argument(weight_shape),
                            parse_name<DType>(dtype, "dtype"), output_padding, size,
                            Options::from(keywords), epilogue_from(keywords),
                            own == Direction::backward_input ? "input_shape" : "x");
}

// ---- the problem as Python sees it ---------------------------------------------------------

/// One value per axis of the problem's own rank.
template <class Value>
py::tuple per_axis(const ConvProblem& problem, Value value) {
  py::tuple result(problem.rank);
  for (int i = 0; i < problem.rank; ++i) {
    result[i] = value(problem.windows[kSpatialAxes - problem.rank + i]);
  }
  return result;
}

Shape extents(const ConvProblem& problem, std::int64_t Window::*extent) {
  Shape result;
  for (int i = kSpatialAxes - problem.rank; i < kSpatialAxes; ++i) {
    result.push_back(problem.windows[i].*extent);
  }
  return result;
}

Shape x_shape(const ConvProblem& problem, bool unbatched = false) {
  return maps_shape(problem.layout, unbatched, problem.batch, problem.in_channels,
                    extents(problem, &Window::input));
}

Shape y_shape(const ConvProblem& problem, bool unbatched = false) {
  return maps_shape(problem.layout, unbatched, problem.batch, problem.out_channels,
                    extents(problem, &Window::output));
}

Shape weight_shape(const ConvProblem& problem) {
  Shape shape = extents(problem, &Window::kernel);
  shape.insert(shape.begin(), {problem.out_channels, problem.in_channels_per_group()});
  return shape;
}

py::tuple as_tuple(const Shape& shape) { return py::cast<py::tuple>(py::tuple(py::cast(shape))); }

ConvProblem replace(const ConvProblem& problem, const py::kwargs& changes) {
  ConvProblem changed = problem;
  for (const auto& [key, value] : changes) {
    const auto field = key.cast<std::string>();
    if (field == "batch") {
      changed.batch = value.cast<std::int64_t>();
    } else if (field == "direction") {
      changed.direction = parse_name<Direction>(value.cast<std::string>(), "direction");
    } else if (field == "dtype") {
      changed.dtype = parse_name<DType>(value.cast<std::string>(), "dtype");
    } else if (field == "data_format") {
      changed.layout = parse_name<Layout>(value.cast<std::string>(), "data_format");
    } else {
      throw py::type_error("replace() takes batch, direction, dtype and data_format, not " + field);
    }
  }
  return ConvProblem::parse(changed.str());  // checks the new values
}

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
  return py::dict("componentwise"_a = tolerance.componentwise);
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

/// The arrays of one call, checked against the problem, with the output in place. Made before a
/// plan is: what cannot be allocated is refused before anything is computed.
class Call {
 public:
  /// `first` and `second` are (x, weight), (dy, weight) or (dy, x); messages name them so, or as
  /// `names` says. With `packed` weights, second is None.
  Call(const ConvProblem& problem, bool packed, py::handle first, py::handle second,
       py::handle bias, py::handle residual, py::handle out, const py::object& names)
      : problem_(problem) {
    const bool forward = problem.direction == Direction::forward;
    const bool for_weight = problem.direction == Direction::backward_weight;
    std::string first_name = forward ? "x" : "dy";
    std::string second_name = for_weight ? "x" : "weight";
    if (!names.is_none()) {
      std::tie(first_name, second_name) = names.cast<std::pair<std::string, std::string>>();
    }
    const py::array first_array = checked(first, first_name.c_str());
    unbatched_ = problem.batch == 1 && first_array.ndim() == problem.rank + 1;
    (forward ? arguments_.x : arguments_.y) =
        maps(first_array, forward ? x_shape(problem, unbatched_) : y_shape(problem, unbatched_),
             first_name.c_str());
    if (for_weight) {
      arguments_.x = maps(checked(second, second_name.c_str()), x_shape(problem, unbatched_),
                          second_name.c_str());
    } else if (!packed) {
      arguments_.weight = const_cast<void*>(
          whole(checked(second, second_name.c_str()), weight_shape(problem), second_name.c_str()));
    } else if (!second.is_none()) {
      throw py::value_error("weight is given, but the plan has its weights packed; pass None");
    }
    const Shape output_shape = for_weight ? weight_shape(problem)
                               : forward  ? y_shape(problem, unbatched_)
                                          : x_shape(problem, unbatched_);
    require_presence(bias, problem.epilogue.bias, "bias");
    if (problem.epilogue.bias) {
      const std::int64_t channels = forward ? problem.out_channels : problem.in_channels;
      arguments_.bias = whole(checked(bias, "bias"), {channels}, "bias");
    }
    require_presence(residual, problem.epilogue.residual, "residual");
    if (problem.epilogue.residual) {
      arguments_.residual = maps(checked(residual, "residual"), output_shape, "residual");
    }
    output_.emplace(out, output_shape, problem.dtype, inputs_);
    if (for_weight) {
      arguments_.weight = output_->data();
    } else {
      (forward ? arguments_.y : arguments_.x) = output_->maps(problem.layout, problem.rank);
    }
  }

  py::array run(const Plan& plan) {
    {
      const py::gil_scoped_release unlocked;
      plan.run(arguments_);
    }
    return output_->finish();
  }

 private:
  py::array checked(py::handle object, const char* argument) {
    py::array array = require_array(object, argument);
    require_dtype(array, problem_.dtype, argument, "the problem");
    inputs_.push_back(array);
    return array;
  }

  TensorView maps(const py::array& array, const Shape& shape, const char* argument) {
    require_shape(array, shape, argument);
    const InputMaps input = input_maps(array, problem_.layout, problem_.rank);
    kept_.push_back(input.array);
    return input.view;
  }

  const void* whole(const py::array& array, const Shape& shape, const char* argument) {
    require_shape(array, shape, argument);
    kept_.push_back(contiguous(array));
    return kept_.back().data();
  }

  static void require_presence(py::handle object, bool wanted, const std::string& argument) {
    if (object.is_none() != wanted) return;
    throw py::value_error(argument + (wanted ? " is None, but the problem has one"
                                             : " is given, but the problem has none"));
  }

  const ConvProblem& problem_;
  bool unbatched_ = false;
  ConvArguments arguments_{};
  std::vector<py::array> inputs_;  ///< as given: the output must not overlap them
  std::vector<py::array> kept_;    ///< what the arguments point into
  std::optional<Output> output_;
};

py::array execute(const Plan& plan, py::handle first, py::handle second, py::handle bias,
                  py::handle residual, py::handle out) {
  return Call(plan.problem(), plan.packed(), first, second, bias, residual, out, py::none())
      .run(plan);
}

py::array convolve(const ConvProblem& problem, const std::string& algorithm,
                   const std::string& numerics, int threads, py::handle first, py::handle second,
                   py::handle bias, py::handle residual, py::handle out, const py::object& names) {
  const PlanOptions options = plan_options(algorithm, numerics, threads, "", std::nullopt);
  Call call(problem, false, first, second, bias, residual, out, names);
  return call.run(Plan(problem, options));
}

Plan pack(const Plan& plan, py::handle weight) {
  const ConvProblem& problem = plan.problem();
  if (problem.direction == Direction::backward_weight) {
    throw py::value_error("a plan for backward_weight has no weights to pack");
  }
  const py::array array = require_array(weight, "weight");
  require_dtype(array, problem.dtype, "weight", "the problem");
  require_shape(array, weight_shape(problem), "weight");
  const py::array source = contiguous(array);
  const py::gil_scoped_release unlocked;
  return plan.with_weights(source.data());
}

py::array channel_sums(py::handle maps, int nd, const std::string& data_format,
                       const char* argument, int threads) {
  const py::array array = require_array(maps, argument);
  const auto layout = parse_name<Layout>(data_format, "data_format");
  const MapsShape shape = parse_maps_shape(shape_of(array), layout, nd, argument);
  std::int64_t pixels = 1;
  for (std::int64_t extent : shape.spatial) pixels *= extent;
  const InputMaps input = input_maps(array, layout, nd);
  Output output(py::none(), {shape.channels}, dtype_of(array), {});
  void* sums = output.data();
  const int team = resolve_threads(threads);
  {
    const py::gil_scoped_release unlocked;
    sum_over_batch_and_pixels(dtype_of(array), layout, input.view, shape.batch, shape.channels,
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
  py::class_<ConvProblem>(module, "ConvProblem",
                          "A convolution, whole: direction, dtype, layout, extents, windows, "
                          "groups and epilogue. Immutable and hashable.")
      .def_static("parse", &ConvProblem::parse, "text"_a,
                  "The problem that a line of the text form describes; ValueError if none.")
      .def("__str__", &ConvProblem::str)
      .def("__repr__", [](const ConvProblem& p) { return "<ConvProblem " + p.str() + ">"; })
      .def("__eq__", [](const ConvProblem& a, const ConvProblem& b) { return a == b; })
      .def("__eq__", [](const ConvProblem&, const py::object&) { return false; })
      .def("__hash__", [](const ConvProblem& p) { return py::hash(py::str(p.str())); })
      .def("replace", &replace, "A copy with another batch, direction, dtype or data_format.")
      .def_property_readonly("direction", [](const ConvProblem& p) { return name(p.direction); })
      .def_property_readonly("dtype", [](const ConvProblem& p) { return name(p.dtype); })
      .def_property_readonly("data_format", [](const ConvProblem& p) { return name(p.layout); })
      .def_property_readonly("padding_mode",
                             [](const ConvProblem& p) { return name(p.padding_mode); })
      .def_property_readonly("activation",
                             [](const ConvProblem& p) { return name(p.epilogue.activation); })
      .def_property_readonly("slope", [](const ConvProblem& p) { return p.epilogue.slope; })
      .def_property_readonly("bias", [](const ConvProblem& p) { return p.epilogue.bias; })
      .def_property_readonly("residual", [](const ConvProblem& p) { return p.epilogue.residual; })
      .def_readonly("rank", &ConvProblem::rank)
      .def_readonly("batch", &ConvProblem::batch)
      .def_readonly("in_channels", &ConvProblem::in_channels)
      .def_readonly("out_channels", &ConvProblem::out_channels)
      .def_readonly("groups", &ConvProblem::groups)
      .def_property_readonly(
          "input",
          [](const ConvProblem& p) { return as_tuple(extents(p, &Window::input)); })
      .def_property_readonly(
          "kernel",
          [](const ConvProblem& p) { return as_tuple(extents(p, &Window::kernel)); })
      .def_property_readonly(
          "stride",
          [](const ConvProblem& p) { return as_tuple(extents(p, &Window::stride)); })
      .def_property_readonly(
          "dilation",
          [](const ConvProblem& p) { return as_tuple(extents(p, &Window::dilation)); })
      .def_property_readonly(
          "output",
          [](const ConvProblem& p) { return as_tuple(extents(p, &Window::output)); })
      .def_property_readonly("padding",
                             [](const ConvProblem& p) {
                               return per_axis(p, [](const Window& w) {
                                 return py::make_tuple(w.before, w.after);
                               });
                             })
      .def_property_readonly("x_shape", [](const ConvProblem& p) { return as_tuple(x_shape(p)); })
      .def_property_readonly("y_shape", [](const ConvProblem& p) { return as_tuple(y_shape(p)); })
      .def_property_readonly("weight_shape",
                             [](const ConvProblem& p) { return as_tuple(weight_shape(p)); })
      .def_property_readonly("flops", &ConvProblem::flops);

  module.def("make_convolution", &make_convolution, "direction"_a, "nd"_a, "x_shape"_a,
             "weight_shape"_a, "dtype"_a);
  module.def("make_transposed", &make_transposed, "direction"_a, "nd"_a, "x_shape"_a,
             "weight_shape"_a, "dtype"_a, "output_padding"_a, "output_size"_a);

  py::class_<Plan>(module, "Plan",
                   "An algorithm chosen for a problem, ready to run. Immutable; threads share it.")
      .def(py::init([](const ConvProblem& problem, const std::string& algorithm,
                       const std::string& numerics, int threads, const std::string& isa,
                       std::optional<std::size_t> workspace_limit) {
             return Plan(problem,
                         plan_options(algorithm, numerics, threads, isa, workspace_limit));
           }),
           "problem"_a, "algorithm"_a = "auto", "numerics"_a = "fast", "threads"_a = 0,
           "isa"_a = "", "workspace_limit"_a = py::none())
      .def("execute", &execute, "first"_a, "second"_a, "bias"_a = py::none(),
           "residual"_a = py::none(), "out"_a = py::none(),
           "Runs on (x, weight), (dy, weight) or (dy, x), as the problem's direction says.")
      .def("pack", &pack, "weight"_a, "The same plan with the weights packed inside.")
      .def("explain", &Plan::explain)
      .def_property_readonly("problem", &Plan::problem)
      .def_property_readonly("algorithm", [](const Plan& p) { return p.algorithm().name(); })
      .def_property_readonly("isa", &Plan::isa)
      .def_property_readonly("threads", &Plan::threads)
      .def_property_readonly("packed", &Plan::packed)
      .def_property_readonly("flops", [](const Plan& p) { return p.problem().flops(); })
      .def_property_readonly("workspace_bytes", &Plan::workspace_bytes)
      .def_property_readonly("packed_bytes", &Plan::packed_bytes)
      .def_property_readonly("tolerance", [](const Plan& p) {
        return tolerance_dict(p.algorithm().tolerance(p.problem()));
      });

  module.def("convolve", &convolve, "problem"_a, "algorithm"_a, "numerics"_a, "threads"_a,
             "first"_a, "second"_a, "bias"_a = py::none(), "residual"_a = py::none(),
             "out"_a = py::none(), "names"_a = py::none(),
             "Plans and executes once; `names` are those of first and second in messages.");
  module.def(
      "algorithms",
      [](const ConvProblem& problem, const std::string& numerics, int threads,
         const std::string& isa, std::optional<std::size_t> workspace_limit) {
        return algorithm_records(problem,
                                 plan_options("auto", numerics, threads, isa, workspace_limit));
      },
      "problem"_a, "numerics"_a = "fast", "threads"_a = 0, "isa"_a = "",
      "workspace_limit"_a = py::none());
  module.def("channel_sums", &channel_sums, "maps"_a, "nd"_a, "data_format"_a,
             "argument"_a = "dy", "threads"_a = 0);
  module.def("common_dtype", &common_dtype, "optional"_a = py::dict());
}

}  // namespace convolith
