#include <array>
#include <optional>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "bindings/plain_arrays.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

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
      weight =
          per_channel(weight_object, problem.shape.dtype, problem.shape.count, "weight", "logits");
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

}  // namespace

void bind_losses(py::module_& module) {
  module.def("softmax", &run_softmax, "x"_a, "axis"_a, "logarithm"_a, "out"_a);
  module.def("softmax_backward", &run_softmax_backward, "dy"_a, "y"_a, "axis"_a, "logarithm"_a,
             "out"_a);
  module.def("cross_entropy", &run_cross_entropy, "logits"_a, "target"_a, "weight"_a,
             "ignore_index"_a, "reduction"_a, "label_smoothing"_a, "axis"_a);
  module.def("cross_entropy_backward", &run_cross_entropy_backward, "dy"_a, "logits"_a, "target"_a,
             "weight"_a, "ignore_index"_a, "reduction"_a, "label_smoothing"_a, "axis"_a, "out"_a);
}

}  // namespace convolith
