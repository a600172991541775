#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/call.hpp"

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

}  // namespace

void bind_problems(py::module_& module) {
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
      .def_property_readonly("x_shape", [](const ConvProblem& p) { return as_tuple(ProblemShapes(p).x); })
      .def_property_readonly("y_shape", [](const ConvProblem& p) { return as_tuple(ProblemShapes(p).y); })
      .def_property_readonly("weight_shape",
                             [](const ConvProblem& p) { return as_tuple(ProblemShapes(p).weight); })
      .def_property_readonly("flops", &ConvProblem::flops);

  module.def("make_convolution", &make_convolution, "direction"_a, "nd"_a, "x_shape"_a,
             "weight_shape"_a, "dtype"_a);
  module.def("make_transposed", &make_transposed, "direction"_a, "nd"_a, "x_shape"_a,
             "weight_shape"_a, "dtype"_a, "output_padding"_a, "output_size"_a);
}

}  // namespace convolith
