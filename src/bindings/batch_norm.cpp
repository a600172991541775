#include <array>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "bindings/plain_arrays.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

/// Feature maps of a call: what their shape says, and how each array is read.
class NormMaps {
 public:
  /// nd below 0: all axes of x but two are spatial.
  NormMaps(const py::array& x, const char* argument, const std::string& data_format, int nd)
      : shape_(shape_of(x).begin(), shape_of(x).end()), nd_(nd) {
    layout_ = parse_name<Layout>(data_format, "data_format");
    if (nd < 0) {
      if (x.ndim() < 2 || x.ndim() > kSpatialAxes + 2) {
        value_error(std::string(argument) + " has " + std::to_string(x.ndim()) +
                    " axes; it must have 2 to 5");
      }
      nd_ = static_cast<int>(x.ndim()) - 2;
    }
    const MapsShape parsed = parse_maps_shape(shape_of(x), layout_, nd_, argument);
    problem.dtype = dtype_of(x);
    problem.batch = parsed.batch;
    problem.channels = parsed.channels;
    problem.pixels = 1;
    for (const std::int64_t extent : parsed.spatial) problem.pixels *= extent;
    problem.layout = layout_;
    // One pixel a sample: neighbours are channels in either format.
    if (problem.pixels == 1) problem.layout = Layout::channels_last;
    if (problem.channels == 0) value_error(std::string(argument) + " has no channels");
  }

  BatchNorm problem;

  TensorView read(py::handle object, const char* argument, const char* like) {
    py::array array = require_array(object, argument);
    require_dtype(array, problem.dtype, argument, like);
    require_shape(array, shape_, argument);
    given.push_back(array);
    if (problem.layout == layout_) {
      const InputMaps maps = input_maps(array, layout_, nd_);
      if (is_uniform(maps.view)) {
        kept_.push_back(maps.array);
        return maps.view;
      }
    }
    kept_.push_back(contiguous(array));
    return plain(const_cast<void*>(kept_.back().data()));
  }

  TensorView write(Output& output) {
    if (problem.layout == layout_) {
      const TensorView view = output.maps(layout_, nd_);
      if (is_uniform(view)) return view;
    }
    return plain(output.data());
  }

  const Shape& shape() const { return shape_; }
  std::int64_t elements() const { return problem.batch * problem.channels * problem.pixels; }

  std::vector<py::object> given;

 private:
  /// In channels_last pixels must be equally far apart over all samples.
  bool is_uniform(const TensorView& view) const {
    return layout_ == Layout::channels_first || problem.batch <= 1 ||
           view.sample_stride == problem.pixels * view.pixel_stride;
  }

  TensorView plain(void* data) const {
    TensorView view;
    view.data = data;
    view.sample_stride = problem.channels * problem.pixels;
    const bool channels_last = problem.layout == Layout::channels_last;
    view.channel_stride = channels_last ? 1 : problem.pixels;
    view.pixel_stride = channels_last ? problem.channels : 1;
    return view;
  }

  Shape shape_;
  int nd_;
  Layout layout_;
  std::vector<py::array> kept_;
};

py::object run_batch_norm(py::handle x_object, py::handle running_mean_object,
                          py::handle running_var_object, py::handle weight_object,
                          py::handle bias_object, bool training, double momentum, double eps,
                          const std::string& activation, double slope, py::handle residual_object,
                          const std::string& data_format, int nd, bool return_stats,
                          py::handle out) {
  const py::array x = require_array(x_object, "x");
  NormMaps maps(x, "x", data_format, nd);
  BatchNorm& problem = maps.problem;
  const std::int64_t channels = problem.channels;
  problem.training = training;
  problem.activation = parse_activation(activation, slope);
  BatchNormArguments arguments;
  arguments.momentum = finite(momentum, "momentum");
  arguments.eps = at_least_zero(eps, "eps");
  if (running_mean_object.is_none() != running_var_object.is_none()) {
    value_error("one of running_mean and running_var is None; give both or neither");
  }
  if (!training && running_mean_object.is_none()) {
    value_error("running_mean is None; without training the running statistics must be given");
  }
  const std::int64_t values = problem.batch * problem.pixels;
  if (training && values < 2) {
    value_error("x has " + std::to_string(values) + " values a channel; training takes at least 2");
  }
  arguments.x = maps.read(x, "x", "x");
  std::optional<py::array> running_mean, running_var;
  if (!running_mean_object.is_none()) {
    const auto statistics = [&](py::handle object, const char* argument) {
      return training ? in_place(object, problem.dtype, {&channels, 1}, argument, "x")
                      : per_channel(object, problem.dtype, channels, argument, "x");
    };
    running_mean = statistics(running_mean_object, "running_mean");
    running_var = statistics(running_var_object, "running_var");
    arguments.running_mean = data_of(running_mean);
    arguments.running_var = data_of(running_var);
  }
  const auto weight = optional_per_channel(weight_object, problem.dtype, channels, "weight");
  const auto bias = optional_per_channel(bias_object, problem.dtype, channels, "bias");
  arguments.weight = data_of(weight);
  arguments.bias = data_of(bias);
  if (!residual_object.is_none()) arguments.residual = maps.read(residual_object, "residual", "x");
  if (!out.is_none()) {
    for (const py::handle object :
         {running_mean_object, running_var_object, weight_object, bias_object}) {
      if (!object.is_none()) maps.given.push_back(py::reinterpret_borrow<py::object>(object));
    }
  }
  Output y(out, maps.shape(), problem.dtype, maps.given);
  arguments.y = maps.write(y);
  const py::array mean = new_array(problem.dtype, {&channels, 1});
  const py::array inv_std = new_array(problem.dtype, {&channels, 1});
  arguments.mean = const_cast<void*>(mean.data());
  arguments.inv_std = const_cast<void*>(inv_std.data());
  const int threads = default_threads();
  without_interpreter(maps.elements(), [&] { batch_norm(problem, arguments, threads); });
  if (return_stats) return py::make_tuple(y.finish(), mean, inv_std);
  return y.finish();
}

py::tuple run_batch_norm_backward(py::handle dy_object, py::handle x_object,
                                  py::handle weight_object, py::handle mean_object,
                                  py::handle inv_std_object, py::handle y_object,
                                  py::handle bias_object, const std::string& activation,
                                  double slope, bool training, bool residual_grad,
                                  const std::string& data_format, int nd) {
  const py::array x = require_array(x_object, "x");
  NormMaps maps(x, "x", data_format, nd);
  BatchNorm& problem = maps.problem;
  const std::int64_t channels = problem.channels;
  problem.training = training;
  problem.activation = parse_activation(activation, slope);
  const bool activated = problem.activation.activation != Activation::none;
  const bool from_output = activated && !y_object.is_none();
  if (from_output && !differentiable_from_output(problem.activation)) {
    value_error(
        "y does not determine the derivative of " + activation +
        (problem.activation.activation == Activation::leaky_relu ? " with a negative slope" : "") +
        "; without a residual y may be None, else apply activation_backward first");
  }
  if (activated && !from_output && residual_grad) {
    value_error("y is None; where a residual was added the derivative of " + activation +
                " needs it");
  }
  BatchNormGradients arguments;
  arguments.x = maps.read(x, "x", "x");
  arguments.dy = maps.read(dy_object, "dy", "x");
  if (from_output) arguments.y = maps.read(y_object, "y", "x");
  const auto weight = optional_per_channel(weight_object, problem.dtype, channels, "weight");
  const auto bias = optional_per_channel(bias_object, problem.dtype, channels, "bias");
  const py::array mean = per_channel(mean_object, problem.dtype, channels, "mean", "x");
  const py::array inv_std = per_channel(inv_std_object, problem.dtype, channels, "inv_std", "x");
  arguments.weight = data_of(weight);
  arguments.bias = data_of(bias);
  arguments.mean = mean.data();
  arguments.inv_std = inv_std.data();
  Output dx(py::none(), maps.shape(), problem.dtype);
  arguments.dx = maps.write(dx);
  std::optional<Output> dresidual;
  if (residual_grad) {
    dresidual.emplace(py::none(), maps.shape(), problem.dtype);
    arguments.dresidual = maps.write(*dresidual);
  }
  const py::array dweight = new_array(problem.dtype, {&channels, 1});
  const py::array dbias = new_array(problem.dtype, {&channels, 1});
  arguments.dweight = const_cast<void*>(dweight.data());
  arguments.dbias = const_cast<void*>(dbias.data());
  const int threads = default_threads();
  without_interpreter(maps.elements(), [&] { batch_norm_backward(problem, arguments, threads); });
  if (dresidual) return py::make_tuple(dx.finish(), dweight, dbias, dresidual->finish());
  return py::make_tuple(dx.finish(), dweight, dbias);
}

}  // namespace

void bind_batch_norm(py::module_& module) {
  module.def("batch_norm", &run_batch_norm, "x"_a, "running_mean"_a, "running_var"_a, "weight"_a,
             "bias"_a, "training"_a, "momentum"_a, "eps"_a, "activation"_a, "slope"_a, "residual"_a,
             "data_format"_a, "nd"_a, "return_stats"_a, "out"_a,
             "nd below 0: every axis of x but two is spatial.");
  module.def("batch_norm_backward", &run_batch_norm_backward, "dy"_a, "x"_a, "weight"_a, "mean"_a,
             "inv_std"_a, "y"_a, "bias"_a, "activation"_a, "slope"_a, "training"_a,
             "residual_grad"_a, "data_format"_a, "nd"_a);
}

}  // namespace convolith
