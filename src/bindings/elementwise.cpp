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
    activate_backward(dtype, spec, from_output, dy.size(), plain.data(), at.data(), data, threads);
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
    sgd_step(dtype, step, parameter.size(), const_cast<void*>(parameter.data()), gradient.data(),
             step.momentum > 0 ? data_of(velocity) : nullptr, threads);
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
  const AdamStep adam{finite(lr, "lr"),
                      beta1,
                      beta2,
                      at_least_zero(eps, "eps"),
                      at_least_zero(weight_decay, "weight_decay"),
                      decoupled,
                      step};
  const int threads = default_threads();
  const DType dtype = dtype_of(parameter);
  without_interpreter(parameter.size(), [&] {
    adam_step(dtype, adam, parameter.size(), const_cast<void*>(parameter.data()), gradient.data(),
              const_cast<void*>(mean.data()), const_cast<void*>(square.data()), threads);
  });
}

}  // namespace

void bind_elementwise(py::module_& module) {
  module.def("activation", &run_activation, "x"_a, "activation"_a, "slope"_a, "residual"_a,
             "out"_a);
  module.def("activation_backward", &run_activation_backward, "dy"_a, "x"_a, "y"_a, "activation"_a,
             "slope"_a, "out"_a);
  module.def("sgd_step", &run_sgd, "parameter"_a, "gradient"_a, "velocity"_a, "lr"_a, "momentum"_a,
             "weight_decay"_a, "nesterov"_a);
  module.def("adam_step", &run_adam, "parameter"_a, "gradient"_a, "mean"_a, "square"_a, "step"_a,
             "lr"_a, "beta1"_a, "beta2"_a, "eps"_a, "weight_decay"_a, "decoupled"_a);
}

}  // namespace convolith
