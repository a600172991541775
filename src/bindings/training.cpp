#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/unlocked.hpp"
#include "gemm/matmul.hpp"
#include "runtime/threads.hpp"
#include "training/training.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

// ---- what the calls have in common -----------------------------------------------------------

[[noreturn]] void value_error(const std::string& message) { throw py::value_error(message); }

/// Short work ends sooner than another thread could take the interpreter over. It must touch no
/// Python object: not even to count a reference, as dtype_of does.
template <class Work>
void without_interpreter(std::int64_t elements, const Work& work) {
  constexpr std::int64_t kShort = 32768;
  if (elements < kShort) {
    const DefaultFloatingPoint mode;
    work();
  } else {
    const Unlocked unlocked;
    work();
  }
}

ActivationSpec parse_activation(const std::string& activation, double slope) {
  if (!std::isfinite(slope)) value_error("slope of leaky_relu is not finite");
  return {parse_name<Activation>(activation, "activation"), slope};
}

double finite(double value, const char* argument) {
  if (std::isfinite(value)) return value;
  value_error(std::string(argument) + " is " + std::to_string(value) + "; it must be finite");
}

double at_least_zero(double value, const char* argument) {
  if (finite(value, argument) >= 0) return value;
  value_error(std::string(argument) + " is " + std::to_string(value) + "; it must be at least 0");
}

/// A contiguous array of the dtype and shape of `like`.
py::array same_as(py::handle object, const py::array& like, const char* argument,
                  const char* like_name) {
  const py::array array = require_array(object, argument);
  require_dtype(array, dtype_of(like), argument, like_name);
  require_shape(array, shape_of(like), argument);
  return contiguous(array);
}

/// A contiguous vector with an element for each channel.
py::array per_channel(py::handle object, DType dtype, std::int64_t channels, const char* argument,
                      const char* like_name) {
  const py::array array = require_array(object, argument);
  require_dtype(array, dtype, argument, like_name);
  require_shape(array, {&channels, 1}, argument);
  return contiguous(array);
}

std::optional<py::array> optional_per_channel(py::handle object, DType dtype,
                                              std::int64_t channels, const char* argument) {
  if (object.is_none()) return std::nullopt;
  return per_channel(object, dtype, channels, argument, "x");
}

/// An array to be changed in place.
py::array in_place(py::handle object, DType dtype, ShapeView shape, const char* argument,
                   const char* like_name) {
  py::array array = require_array(object, argument);
  require_dtype(array, dtype, argument, like_name);
  require_shape(array, shape, argument);
  if (!array.writeable()) {
    value_error(std::string(argument) + " is read-only; it must be writable");
  }
  if (!contiguous(array).is(array)) {
    value_error(std::string(argument) + " is not C-contiguous; it is changed in place and must be");
  }
  return array;
}

void* data_of(const std::optional<py::array>& array) {
  return array ? const_cast<void*>(array->data()) : nullptr;
}

/// Whether both are the same elements in the same places, so that element may follow element.
bool same_elements(const py::array& a, const py::array& b) {
  if (a.data() != b.data() || a.ndim() != b.ndim()) return false;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) {
    if (a.shape(i) != b.shape(i) || a.strides(i) != b.strides(i)) return false;
  }
  return true;
}

/// An output of elementwise work: it may be one of the inputs.
Output elementwise_output(py::handle out, const py::array& like,
                          std::initializer_list<const py::array*> inputs) {
  std::vector<py::object> others;
  if (!out.is_none()) {
    const py::array array = require_array(out, "out");
    for (const py::array* input : inputs) {
      if (input != nullptr && !same_elements(array, *input)) others.push_back(*input);
    }
  }
  return {out, shape_of(like), dtype_of(like), others};
}

// ---- matrix product --------------------------------------------------------------------------

py::array run_matmul(py::handle a_object, py::handle b_object, bool transpose_a, bool transpose_b,
                     py::handle bias_object, const std::string& activation, double slope,
                     py::handle out) {
  const py::array a = require_array(a_object, "a");
  const py::array b = require_array(b_object, "b");
  const DType dtype = dtype_of(a);
  require_dtype(b, dtype, "b", "a");
  const auto item = static_cast<std::int64_t>(a.itemsize());
  const auto walkable = [&](const py::array& array, const char* argument) {
    if (array.ndim() < 2) {
      value_error(std::string(argument) + " has shape " + shape_text(shape_of(array)) +
                  "; it must have at least 2 axes");
    }
    bool whole = reinterpret_cast<std::uintptr_t>(array.data()) %
                     static_cast<std::uintptr_t>(item) == 0;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) {
      whole = whole && (array.shape(i) < 2 || array.strides(i) % item == 0);
    }
    return whole ? array : contiguous(array);
  };
  const py::array left = walkable(a, "a");
  const py::array right = walkable(b, "b");
  MatmulProblem problem;
  problem.dtype = dtype;
  problem.activation = parse_activation(activation, slope).activation;
  problem.slope = slope;
  const auto factor = [&](const py::array& array, bool transposed) {
    const py::ssize_t rows = array.ndim() - (transposed ? 1 : 2);
    const py::ssize_t columns = array.ndim() - (transposed ? 2 : 1);
    return MatmulFactor{array.data(), array.shape(rows), array.shape(columns),
                        array.strides(rows) / item, array.strides(columns) / item};
  };
  problem.a = factor(left, transpose_a);
  problem.b = factor(right, transpose_b);
  if (problem.a.columns != problem.b.rows) {
    value_error("a has shape " + shape_text(shape_of(a)) + " and b " + shape_text(shape_of(b)) +
                (transpose_a ? ", a transposed" : "") + (transpose_b ? ", b transposed" : "") +
                ": " + std::to_string(problem.a.columns) + " columns of a meet " +
                std::to_string(problem.b.rows) + " rows of b");
  }
  // Leading axes broadcast as in NumPy.
  const py::ssize_t leading = std::max(left.ndim(), right.ndim()) - 2;
  Shape shape(static_cast<std::size_t>(leading) + 2);
  for (py::ssize_t i = 0; i < leading; ++i) {
    const auto extent = [&](const py::array& array) {
      const py::ssize_t axis = i - (leading + 2 - array.ndim());
      return axis < 0 ? std::int64_t{1} : std::int64_t{array.shape(axis)};
    };
    const auto stride = [&](const py::array& array) {
      const py::ssize_t axis = i - (leading + 2 - array.ndim());
      return axis < 0 || array.shape(axis) == 1 ? std::int64_t{0}
                                                : std::int64_t{array.strides(axis) / item};
    };
    const std::int64_t of_a = extent(left), of_b = extent(right);
    if (of_a != of_b && of_a != 1 && of_b != 1) {
      value_error("a has shape " + shape_text(shape_of(a)) + " and b " + shape_text(shape_of(b)) +
                  "; their leading axes do not broadcast");
    }
    shape[static_cast<std::size_t>(i)] = of_a == 1 ? of_b : of_a;
    problem.stack.push_back({shape[static_cast<std::size_t>(i)], stride(left), stride(right)});
  }
  shape[static_cast<std::size_t>(leading)] = problem.a.rows;
  shape[static_cast<std::size_t>(leading) + 1] = problem.b.columns;
  std::optional<py::array> bias;
  if (!bias_object.is_none()) {
    bias = per_channel(bias_object, dtype, problem.b.columns, "bias", "a");
    problem.bias = bias->data();
  }
  std::array<py::object, 3> inputs{a, b};
  std::size_t count = 2;
  if (bias) inputs[count++] = py::reinterpret_borrow<py::object>(bias_object);
  Output output(out, shape, dtype, {inputs.data(), count});
  problem.c = output.data();
  const int threads = default_threads();
  without_interpreter(static_cast<std::int64_t>(problem.flops() / 16),
                      [&] { matmul(problem, threads); });
  return output.finish();
}

// ---- activations -----------------------------------------------------------------------------

py::array run_activation(py::handle x_object, const std::string& activation, double slope,
                         py::handle residual_object, py::handle out) {
  const py::array x = require_array(x_object, "x");
  const ActivationSpec spec = parse_activation(activation, slope);
  const py::array plain = contiguous(x);
  std::optional<py::array> residual, given;
  if (!residual_object.is_none()) {
    residual = same_as(residual_object, x, "residual", "x");
    given = py::reinterpret_borrow<py::array>(residual_object);
  }
  Output y = elementwise_output(out, x, {&x, given ? &*given : nullptr});
  void* data = y.data();
  const int threads = default_threads();
  const DType dtype = dtype_of(x);
  without_interpreter(x.size(), [&] {
    activate(dtype, spec, x.size(), plain.data(), data_of(residual), data, threads);
  });
  return y.finish();
}

py::array run_activation_backward(py::handle dy_object, py::handle x_object, py::handle y_object,
                                  const std::string& activation, double slope, py::handle out) {
  const py::array dy = require_array(dy_object, "dy");
  const ActivationSpec spec = parse_activation(activation, slope);
  const bool from_output = x_object.is_none();
  if (from_output == y_object.is_none()) {
    value_error("one of x and y must be given, and the other be None");
  }
  if (from_output && !differentiable_from_output(spec)) {
    value_error("y does not determine the derivative of " + activation +
                (spec.activation == Activation::leaky_relu ? " with a negative slope" : "") +
                "; give x");
  }
  const py::handle at_object = from_output ? y_object : x_object;
  const py::array at = same_as(at_object, dy, from_output ? "y" : "x", "dy");
  const auto given = py::reinterpret_borrow<py::array>(at_object);
  const py::array plain = contiguous(dy);
  Output dx = elementwise_output(out, dy, {&dy, &given});
  void* data = dx.data();
  const int threads = default_threads();
  const DType dtype = dtype_of(dy);
  without_interpreter(dy.size(), [&] {
    activate_backward(dtype, spec, from_output, dy.size(), plain.data(), at.data(), data,
                      threads);
  });
  return dx.finish();
}

// ---- batch normalization ---------------------------------------------------------------------

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
    value_error("x has " + std::to_string(values) +
                " values a channel; training takes at least 2");
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
                                  double slope, bool training, bool residual_grad, const std::string& data_format, int nd) {
  const py::array x = require_array(x_object, "x");
  NormMaps maps(x, "x", data_format, nd);
  BatchNorm& problem = maps.problem;
  const std::int64_t channels = problem.channels;
  problem.training = training;
  problem.activation = parse_activation(activation, slope);
  const bool activated = problem.activation.activation != Activation::none;
  const bool from_output = activated && !y_object.is_none();
  if (from_output && !differentiable_from_output(problem.activation)) {
    value_error("y does not determine the derivative of " + activation +
                (problem.activation.activation == Activation::leaky_relu ? " with a negative slope"
                                                                         : "") +
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

// ---- softmax and cross-entropy ---------------------------------------------------------------

/// The axis of a contiguous array along which distributions lie.
Distributions distributions(const py::array& array, const char* argument, std::int64_t axis) {
  const std::int64_t rank = array.ndim();
  if (axis < -rank || axis >= rank) {
    value_error("axis is " + std::to_string(axis) + "; " + argument + " has " +
                std::to_string(rank) + " axes");
  }
  if (axis < 0) axis += rank;
  Distributions shape;
  shape.dtype = dtype_of(array);
  shape.count = array.shape(axis);
  for (std::int64_t i = 0; i < axis; ++i) shape.outer *= array.shape(i);
  for (std::int64_t i = axis + 1; i < rank; ++i) shape.inner *= array.shape(i);
  return shape;
}

py::array run_softmax(py::handle x_object, std::int64_t axis, bool logarithm, py::handle out) {
  const py::array x = require_array(x_object, "x");
  const Distributions shape = distributions(x, "x", axis);
  const py::array plain = contiguous(x);
  Output y = elementwise_output(out, x, {&x});
  void* data = y.data();
  const int threads = default_threads();
  if (x.size() > 0) {
    without_interpreter(x.size(), [&] { softmax(shape, logarithm, plain.data(), data, threads); });
  }
  return y.finish();
}

py::array run_softmax_backward(py::handle dy_object, py::handle y_object, std::int64_t axis,
                               bool logarithm, py::handle out) {
  const py::array dy = require_array(dy_object, "dy");
  const Distributions shape = distributions(dy, "dy", axis);
  const py::array y = same_as(y_object, dy, "y", "dy");
  const py::array plain = contiguous(dy);
  const auto given = py::reinterpret_borrow<py::array>(y_object);
  Output dx = elementwise_output(out, dy, {&dy, &given});
  void* data = dx.data();
  const int threads = default_threads();
  if (dy.size() > 0) {
    without_interpreter(dy.size(), [&] {
      softmax_backward(shape, logarithm, plain.data(), y.data(), data, threads);
    });
  }
  return dx.finish();
}

Reduction parse_reduction(const std::string& reduction) {
  if (reduction == "mean") return Reduction::mean;
  if (reduction == "sum") return Reduction::sum;
  if (reduction == "none") return Reduction::none;
  value_error("reduction is '" + reduction + "'; it must be 'mean', 'sum' or 'none'");
}

/// The arrays and numbers that a cross-entropy and its gradient share.
struct CrossEntropyCall {
  CrossEntropy problem;
  py::array logits, target;
  std::optional<py::array> weight;
  Shape loss_shape;

  CrossEntropyCall(py::handle logits_object, py::handle target_object, py::handle weight_object,
                   std::int64_t ignore_index, const std::string& reduction, double smoothing,
                   std::optional<std::int64_t> axis_argument) {
    const py::array given = require_array(logits_object, "logits");
    if (given.ndim() == 0) value_error("logits has no axes; it must have at least 1");
    const std::int64_t axis = axis_argument.value_or(given.ndim() == 1 ? 0 : 1);
    problem.shape = distributions(given, "logits", axis);
    logits = contiguous(given);
    if (problem.shape.count == 0) {
      value_error("logits has shape " + shape_text(shape_of(given)) + ", without classes");
    }
    const std::int64_t dropped = axis < 0 ? axis + given.ndim() : axis;
    Shape shape(shape_of(given).begin(), shape_of(given).end());
    shape.erase(shape.begin() + dropped);
    target = contiguous(require_indices(target_object, "target"));
    require_shape(target, shape, "target");
    weight = std::nullopt;
    if (!weight_object.is_none()) {
      weight = per_channel(weight_object, problem.shape.dtype, problem.shape.count, "weight",
                           "logits");
    }
    problem.reduction = parse_reduction(reduction);
    if (!(smoothing >= 0 && smoothing <= 1)) {
      value_error("label_smoothing is " + std::to_string(smoothing) + "; it must be 0 to 1");
    }
    problem.smoothing = smoothing;
    problem.ignored = ignore_index;
    problem.target = static_cast<const std::int64_t*>(target.data());
    problem.weight = data_of(weight);
    for (py::ssize_t i = 0; i < target.size(); ++i) {
      const std::int64_t wanted = problem.target[i];
      if (wanted != ignore_index && (wanted < 0 || wanted >= problem.shape.count)) {
        refuse_target(shape, i, wanted);
      }
    }
    if (problem.reduction == Reduction::none) loss_shape = shape;
  }

  [[noreturn]] void refuse_target(const Shape& shape, std::int64_t place,
                                  std::int64_t wanted) const {
    Shape index(shape.size());
    for (std::size_t i = shape.size(); i-- > 0;) {
      index[i] = place % shape[i];
      place /= shape[i];
    }
    std::string place_text;
    if (!index.empty()) place_text.append("[").append(index_text(index)).append("]");
    value_error("target" + place_text + " is " + std::to_string(wanted) + "; logits has " +
                std::to_string(problem.shape.count) + " classes, and ignore_index is " +
                std::to_string(problem.ignored));
  }

  static std::string index_text(const Shape& index) {
    std::string text;
    for (const std::int64_t i : index) {
      if (!text.empty()) text += ", ";
      text += std::to_string(i);
    }
    return text;
  }
};

py::array run_cross_entropy(py::handle logits, py::handle target, py::handle weight,
                            std::int64_t ignore_index, const std::string& reduction,
                            double label_smoothing, std::optional<std::int64_t> axis) {
  const CrossEntropyCall call(logits, target, weight, ignore_index, reduction, label_smoothing,
                              axis);
  const py::array loss = new_array(call.problem.shape.dtype, call.loss_shape);
  const int threads = default_threads();
  without_interpreter(4 * call.logits.size(), [&] {
    cross_entropy(call.problem, call.logits.data(), const_cast<void*>(loss.data()), threads);
  });
  return loss;
}

py::array run_cross_entropy_backward(py::handle dy_object, py::handle logits, py::handle target,
                                     py::handle weight, std::int64_t ignore_index,
                                     const std::string& reduction, double label_smoothing,
                                     std::optional<std::int64_t> axis, py::handle out) {
  const CrossEntropyCall call(logits, target, weight, ignore_index, reduction, label_smoothing,
                              axis);
  const py::array given = require_array(dy_object, "dy");
  require_dtype(given, call.problem.shape.dtype, "dy", "logits");
  require_shape(given, call.loss_shape, "dy");
  const py::array dy = contiguous(given);
  std::array<py::object, 3> inputs{given, py::reinterpret_borrow<py::object>(logits)};
  std::size_t count = 2;
  if (!weight.is_none()) inputs[count++] = py::reinterpret_borrow<py::object>(weight);
  Output dx(out, shape_of(call.logits), call.problem.shape.dtype, {inputs.data(), count});
  void* data = dx.data();
  const int threads = default_threads();
  without_interpreter(4 * call.logits.size(), [&] {
    cross_entropy_backward(call.problem, dy.data(), call.logits.data(), data, threads);
  });
  return dx.finish();
}

// ---- optimizers ------------------------------------------------------------------------------

py::array same_size(py::handle object, const py::array& parameter, const char* argument) {
  return in_place(object, dtype_of(parameter), shape_of(parameter), argument, "parameter");
}

py::array parameter_of(py::handle object) {
  const py::array array = require_array(object, "parameter");
  return in_place(object, dtype_of(array), shape_of(array), "parameter", "parameter");
}

void run_sgd(py::handle parameter_object, py::handle gradient_object, py::handle velocity_object,
             double lr, double momentum, double weight_decay, bool nesterov) {
  const py::array parameter = parameter_of(parameter_object);
  const py::array gradient = same_as(gradient_object, parameter, "gradient", "parameter");
  std::optional<py::array> velocity;
  if (!velocity_object.is_none()) velocity = same_size(velocity_object, parameter, "velocity");
  const SgdStep step{finite(lr, "lr"), at_least_zero(momentum, "momentum"),
                     at_least_zero(weight_decay, "weight_decay"), nesterov};
  if (step.momentum > 0 && !velocity) value_error("velocity is None; momentum needs it");
  if (nesterov && step.momentum == 0) value_error("momentum is 0; nesterov needs more");
  const int threads = default_threads();
  const DType dtype = dtype_of(parameter);
  without_interpreter(parameter.size(), [&] {
    sgd_step(dtype, step, parameter.size(), const_cast<void*>(parameter.data()),
             gradient.data(), step.momentum > 0 ? data_of(velocity) : nullptr, threads);
  });
}

void run_adam(py::handle parameter_object, py::handle gradient_object, py::handle mean_object,
              py::handle square_object, std::int64_t step, double lr, double beta1, double beta2,
              double eps, double weight_decay, bool decoupled) {
  const py::array parameter = parameter_of(parameter_object);
  const py::array gradient = same_as(gradient_object, parameter, "gradient", "parameter");
  const py::array mean = same_size(mean_object, parameter, "mean");
  const py::array square = same_size(square_object, parameter, "square");
  if (step < 1) value_error("step is " + std::to_string(step) + "; steps count from 1");
  for (const double beta : {beta1, beta2}) {
    if (!(beta >= 0 && beta < 1)) {
      value_error("betas has " + std::to_string(beta) + "; each must be at least 0 and below 1");
    }
  }
  const AdamStep adam{finite(lr, "lr"), beta1, beta2, at_least_zero(eps, "eps"),
                      at_least_zero(weight_decay, "weight_decay"), decoupled, step};
  const int threads = default_threads();
  const DType dtype = dtype_of(parameter);
  without_interpreter(parameter.size(), [&] {
    adam_step(dtype, adam, parameter.size(), const_cast<void*>(parameter.data()),
              gradient.data(), const_cast<void*>(mean.data()), const_cast<void*>(square.data()),
              threads);
  });
}

}  // namespace

void bind_training(py::module_& module) {
  module.def("matmul", &run_matmul, "a"_a, "b"_a, "transpose_a"_a, "transpose_b"_a, "bias"_a,
             "activation"_a, "slope"_a, "out"_a);
  module.def("activation", &run_activation, "x"_a, "activation"_a, "slope"_a, "residual"_a,
             "out"_a);
  module.def("activation_backward", &run_activation_backward, "dy"_a, "x"_a, "y"_a, "activation"_a,
             "slope"_a, "out"_a);
  module.def("batch_norm", &run_batch_norm, "x"_a, "running_mean"_a, "running_var"_a, "weight"_a,
             "bias"_a, "training"_a, "momentum"_a, "eps"_a, "activation"_a, "slope"_a,
             "residual"_a, "data_format"_a, "nd"_a, "return_stats"_a, "out"_a,
             "nd below 0: every axis of x but two is spatial.");
  module.def("batch_norm_backward", &run_batch_norm_backward, "dy"_a, "x"_a, "weight"_a, "mean"_a,
             "inv_std"_a, "y"_a, "bias"_a, "activation"_a, "slope"_a, "training"_a, "residual_grad"_a,
             "data_format"_a, "nd"_a);
  module.def("softmax", &run_softmax, "x"_a, "axis"_a, "logarithm"_a, "out"_a);
  module.def("softmax_backward", &run_softmax_backward, "dy"_a, "y"_a, "axis"_a, "logarithm"_a,
             "out"_a);
  module.def("cross_entropy", &run_cross_entropy, "logits"_a, "target"_a, "weight"_a,
             "ignore_index"_a, "reduction"_a, "label_smoothing"_a, "axis"_a);
  module.def("cross_entropy_backward", &run_cross_entropy_backward, "dy"_a, "logits"_a, "target"_a,
             "weight"_a, "ignore_index"_a, "reduction"_a, "label_smoothing"_a, "axis"_a, "out"_a);
  module.def("sgd_step", &run_sgd, "parameter"_a, "gradient"_a, "velocity"_a, "lr"_a, "momentum"_a,
             "weight_decay"_a, "nesterov"_a);
  module.def("adam_step", &run_adam, "parameter"_a, "gradient"_a, "mean"_a, "square"_a, "step"_a,
             "lr"_a, "beta1"_a, "beta2"_a, "eps"_a, "weight_decay"_a, "decoupled"_a);
}

}  // namespace convolith
