#include <optional>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/unlocked.hpp"
#include "convolith/pooling.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

PoolOp parse_op(const std::string& op) {
  if (op == "max") return PoolOp::max;
  if (op == "average") return PoolOp::average;
  if (op == "sum") return PoolOp::sum;
  if (op == "lp") return PoolOp::lp;
  if (op == "stochastic") return PoolOp::stochastic;
  throw py::value_error("op is '" + op +
                        "'; it must be 'max', 'average', 'sum', 'lp' or 'stochastic'");
}

/// Kernel, stride, padding and dilation, as Python has normalised them.
void assign_windows(std::array<WindowSpec, kSpatialAxes>& windows, int nd, const Shape& kernel,
                    const Shape& stride, py::handle padding, const Shape& dilation) {
  for (int i = 0; i < nd; ++i) {
    WindowSpec& window = windows[i];
    window.kernel = kernel.at(i);
    window.stride = stride.at(i);
    window.dilation = dilation.at(i);
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

/// Assigns what the shape of x and the data format tell.
template <class Spec>
void assign_shape(Spec& spec, int nd, const Shape& x_shape, const std::string& dtype,
                  const std::string& data_format) {
  spec.rank = nd;
  spec.dtype = parse_name<DType>(dtype, "dtype");
  spec.layout = parse_name<Layout>(data_format, "data_format");
  const MapsShape x = parse_maps_shape(x_shape, spec.layout, nd, "x");
  spec.batched = !x.unbatched;
  spec.batch = x.batch;
  spec.channels = x.channels;
  for (int i = 0; i < nd; ++i) spec.windows[i].input = x.spatial[i];
}

PoolProblem make_sliding(const std::string& op, int nd, const Shape& x_shape,
                         const std::string& dtype, const std::string& data_format,
                         const Shape& kernel, const Shape& stride, py::handle padding,
                         const Shape& dilation, bool ceil_mode, bool count_include_pad,
                         std::optional<std::int64_t> divisor_override, double norm_type) {
  PoolSpec spec;
  spec.op = parse_op(op);
  assign_shape(spec, nd, x_shape, dtype, data_format);
  assign_windows(spec.windows, nd, kernel, stride, padding, dilation);
  spec.rounding = ceil_mode ? Rounding::ceil : Rounding::floor;
  spec.count_include_pad = count_include_pad;
  spec.divisor_override = divisor_override;
  spec.norm_type = norm_type;
  return PoolProblem::make(spec);
}

PoolProblem make_adaptive(const std::string& op, int nd, const Shape& x_shape,
                          const std::string& dtype, const std::string& data_format,
                          const Shape& output_size) {
  PoolSpec spec;
  spec.op = parse_op(op);
  spec.adaptive = true;
  assign_shape(spec, nd, x_shape, dtype, data_format);
  for (int i = 0; i < nd; ++i) spec.windows[i].output = output_size.at(i);
  return PoolProblem::make(spec);
}

UnpoolProblem make_unpool(int nd, const Shape& x_shape, const std::string& dtype,
                          const std::string& data_format, const Shape& kernel,
                          const Shape& stride, py::handle padding,
                          const std::optional<Shape>& output_size) {
  UnpoolSpec spec;
  assign_shape(spec, nd, x_shape, dtype, data_format);
  assign_windows(spec.windows, nd, kernel, stride, padding, Shape(nd, 1));
  if (output_size) {
    spec.output_size.emplace();
    for (int i = 0; i < nd; ++i) (*spec.output_size)[i] = output_size->at(i);
  }
  return UnpoolProblem::make(spec);
}

// ---- shapes --------------------------------------------------------------------------------

Shape extents(const PoolProblem& problem, std::int64_t Window::*extent) {
  Shape result;
  for (int i = kSpatialAxes - problem.rank; i < kSpatialAxes; ++i) {
    result.push_back(problem.windows[i].*extent);
  }
  return result;
}

Shape x_shape(const PoolProblem& problem, bool unbatched) {
  return maps_shape(problem.layout, unbatched, problem.batch, problem.channels,
                    extents(problem, &Window::input));
}

Shape y_shape(const PoolProblem& problem, bool unbatched) {
  return maps_shape(problem.layout, unbatched, problem.batch, problem.channels,
                    extents(problem, &Window::output));
}

py::tuple numbers(const PoolProblem& problem) {
  py::tuple windows(kSpatialAxes);
  for (int i = 0; i < kSpatialAxes; ++i) {
    const Window& w = problem.windows[i];
    windows[i] = py::make_tuple(w.input, w.kernel, w.stride, w.dilation, w.before, w.after,
                                w.output);
  }
  return py::make_tuple(static_cast<int>(problem.op), static_cast<int>(problem.dtype),
                        static_cast<int>(problem.layout), problem.adaptive,
                        problem.count_include_pad, problem.batch, problem.channels,
                        problem.divisor_override.value_or(0), problem.norm_type, windows);
}

Shape unpool_shape(const UnpoolProblem& problem,
                   const std::array<std::int64_t, kSpatialAxes>& spatial, bool unbatched) {
  return maps_shape(problem.layout, unbatched, problem.batch, problem.channels,
                    Shape(spatial.end() - problem.rank, spatial.end()));
}

// ---- runs ----------------------------------------------------------------------------------

/// An array of a call and how kernels read it.
InputMaps read_maps(const py::array& array, const char* argument, DType dtype, const Shape& shape,
                    Layout layout, int nd) {
  require_dtype(array, dtype, argument, "x");
  require_shape(array, shape, argument);
  return input_maps(array, layout, nd);
}

InputMaps read_indices(py::handle object, const Shape& shape, Layout layout, int nd) {
  const py::array array = require_indices(object, "indices");
  require_shape(array, shape, "indices");
  return input_maps(array, layout, nd);
}

py::object run_pool(const PoolProblem& problem, py::handle x_object, py::handle uniforms_object,
                    bool return_indices, int threads, const std::string& isa) {
  const Layout layout = problem.layout;
  const int nd = problem.rank;
  const py::array x_array = require_array(x_object, "x");
  const bool unbatched = x_array.ndim() == nd + 1;
  const Shape y_extents = y_shape(problem, unbatched);
  const InputMaps x =
      read_maps(x_array, "x", problem.dtype, x_shape(problem, unbatched), layout, nd);
  Output y(py::none(), y_extents, problem.dtype, {});
  PoolArguments arguments;
  arguments.x = x.view;
  arguments.y = y.maps(layout, nd);
  InputMaps uniforms;
  if (!uniforms_object.is_none()) {
    uniforms = read_maps(require_array(uniforms_object, "uniforms"), "uniforms", DType::float64,
                         y_extents, layout, nd);
    arguments.uniforms = uniforms.view;
  }
  py::array indices;
  if (return_indices) {
    indices = py::array(py::dtype::of<std::int64_t>(),
                        std::vector<py::ssize_t>(y_extents.begin(), y_extents.end()));
    arguments.indices = input_maps(indices, layout, nd).view;
  }
  {
    const Unlocked unlocked;
    pool(problem, arguments, {resolve_threads(threads), isa});
  }
  if (return_indices) return py::make_tuple(y.finish(), indices);
  return y.finish();
}

py::array run_pool_backward(const PoolProblem& problem, py::handle dy_object, py::handle x_object,
                            py::handle indices_object, int threads, const std::string& isa) {
  const Layout layout = problem.layout;
  const int nd = problem.rank;
  const py::array x_array = require_array(x_object, "x");
  const bool unbatched = x_array.ndim() == nd + 1;
  const Shape x_extents = x_shape(problem, unbatched);
  const Shape y_extents = y_shape(problem, unbatched);
  const InputMaps x = read_maps(x_array, "x", problem.dtype, x_extents, layout, nd);
  const InputMaps dy =
      read_maps(require_array(dy_object, "dy"), "dy", problem.dtype, y_extents, layout, nd);
  InputMaps indices;
  if (!indices_object.is_none()) indices = read_indices(indices_object, y_extents, layout, nd);
  Output dx(py::none(), x_extents, problem.dtype, {});
  const TensorView dx_view = dx.maps(layout, nd);
  const int team = resolve_threads(threads);
  {
    const Unlocked unlocked;
    if (indices.view.data != nullptr) {
      pool_backward_indices(problem, dy.view, indices.view, dx_view, team);
    } else {
      pool_backward(problem, dy.view, x.view, dx_view, {team, isa});
    }
  }
  return dx.finish();
}

py::array run_unpool(const UnpoolProblem& problem, py::handle x_object, py::handle indices_object,
                     int threads) {
  const Layout layout = problem.layout;
  const int nd = problem.rank;
  const py::array x_array = require_array(x_object, "x");
  const bool unbatched = x_array.ndim() == nd + 1;
  const Shape x_extents = unpool_shape(problem, problem.pooled, unbatched);
  const InputMaps x = read_maps(x_array, "x", problem.dtype, x_extents, layout, nd);
  const InputMaps indices = read_indices(indices_object, x_extents, layout, nd);
  Output y(py::none(), unpool_shape(problem, problem.unpooled, unbatched), problem.dtype, {});
  const TensorView y_view = y.maps(layout, nd);
  {
    const Unlocked unlocked;
    unpool(problem, x.view, indices.view, y_view, resolve_threads(threads));
  }
  return y.finish();
}

py::array run_unpool_backward(const UnpoolProblem& problem, py::handle dy_object,
                              py::handle x_object, py::handle indices_object, int threads) {
  const Layout layout = problem.layout;
  const int nd = problem.rank;
  const py::array x_array = require_array(x_object, "x");
  const bool unbatched = x_array.ndim() == nd + 1;
  const Shape x_extents = unpool_shape(problem, problem.pooled, unbatched);
  require_shape(x_array, x_extents, "x");
  const InputMaps dy = read_maps(require_array(dy_object, "dy"), "dy", problem.dtype,
                                 unpool_shape(problem, problem.unpooled, unbatched), layout, nd);
  const InputMaps indices = read_indices(indices_object, x_extents, layout, nd);
  Output dx(py::none(), x_extents, problem.dtype, {});
  const TensorView dx_view = dx.maps(layout, nd);
  {
    const Unlocked unlocked;
    unpool_backward(problem, dy.view, indices.view, dx_view, resolve_threads(threads));
  }
  return dx.finish();
}

}  // namespace

void bind_pooling(py::module_& module) {
  py::class_<PoolProblem>(module, "PoolProblem", "A pooling, whole. Immutable.")
      .def(
          "y_shape",
          [](const PoolProblem& problem, bool unbatched) {
            return py::tuple(py::cast(y_shape(problem, unbatched)));
          },
          "unbatched"_a = false, "Shape of the result in the data format.")
      .def_property_readonly("numbers", &numbers,
                             "(op, dtype, layout, adaptive, count_include_pad, batch, channels, "
                             "divisor or 0, norm_type, and for each of three axes (input, kernel, "
                             "stride, dilation, before, after, output)), enumerators as integers.")
      .def_property_readonly("dtype", [](const PoolProblem& p) { return name(p.dtype); })
      .def_property_readonly("data_format", [](const PoolProblem& p) { return name(p.layout); })
      .def_readonly("rank", &PoolProblem::rank)
      .def("x_shape", [](const PoolProblem& problem, bool unbatched) {
        return py::tuple(py::cast(x_shape(problem, unbatched)));
      }, "unbatched"_a = false, "Shape of the input in the data format.");
  py::class_<UnpoolProblem>(module, "UnpoolProblem", "A max unpooling, whole. Immutable.");
  module.def("make_pool", &make_sliding, "op"_a, "nd"_a, "x_shape"_a, "dtype"_a, "data_format"_a,
             "kernel"_a, "stride"_a, "padding"_a, "dilation"_a, "ceil_mode"_a,
             "count_include_pad"_a = true, "divisor_override"_a = py::none(), "norm_type"_a = 2.0);
  module.def("make_adaptive_pool", &make_adaptive, "op"_a, "nd"_a, "x_shape"_a, "dtype"_a,
             "data_format"_a, "output_size"_a);
  module.def("make_unpool", &make_unpool, "nd"_a, "x_shape"_a, "dtype"_a, "data_format"_a,
             "kernel"_a, "stride"_a, "padding"_a, "output_size"_a);
  module.def("pool", &run_pool, "problem"_a, "x"_a, "uniforms"_a = py::none(),
             "return_indices"_a = false, "threads"_a = 0, "isa"_a = "",
             "y, or (y, indices); with uniforms a stochastic pooling draws, else it averages.");
  module.def("pool_backward", &run_pool_backward, "problem"_a, "dy"_a, "x"_a,
             "indices"_a = py::none(), "threads"_a = 0, "isa"_a = "",
             "dx; with indices dy goes there.");
  module.def("unpool", &run_unpool, "problem"_a, "x"_a, "indices"_a, "threads"_a = 0);
  module.def("unpool_backward", &run_unpool_backward, "problem"_a, "dy"_a, "x"_a, "indices"_a,
             "threads"_a = 0);
}

}  // namespace convolith
