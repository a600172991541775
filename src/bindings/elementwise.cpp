#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

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

/// The arrays of a step: lists of parameters, of their gradients and of what is kept for each.
/// Holds the arrays for as long as it lives.
class StepArrays {
 public:
  StepArrays(const py::list& parameters, const py::list& gradients,
             std::initializer_list<std::pair<const py::list*, const char*>> kept) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const py::array parameter = require_array(parameters[i], "parameter");
      const DType dtype = dtype_of(parameter);
      const ShapeView shape = shape_of(parameter);
      Learned one{dtype, parameter.size(), nullptr, nullptr, {nullptr, nullptr}};
      one.parameter = data_in_place(parameters[i], dtype, shape, "parameter");
      const py::array gradient = same_as(gradients[i], parameter, "gradient", "parameter");
      one.gradient = gradient.data();
      arrays_.push_back(gradient);
      void** place = one.kept;
      for (const auto& [list, name] : kept) {
        const py::handle object = (*list)[i];
        if (!object.is_none()) *place = data_in_place(object, dtype, shape, name);
        ++place;
      }
      all_.push_back(one);
      elements_ += one.count;
    }
  }

  const std::vector<Learned>& all() const noexcept { return all_; }
  std::int64_t elements() const noexcept { return elements_; }

 private:
  void* data_in_place(py::handle object, DType dtype, ShapeView shape, const char* argument) {
    arrays_.push_back(in_place(object, dtype, shape, argument, "parameter"));
    return const_cast<void*>(arrays_.back().data());
  }

  std::vector<py::array> arrays_;
  std::vector<Learned> all_;
  std::int64_t elements_ = 0;
};

void run_sgd(const py::list& parameters, const py::list& gradients, const py::list& velocities,
             double lr, double momentum, double weight_decay, bool nesterov) {
  const StepArrays arrays(parameters, gradients, {{&velocities, "velocity"}});
  const SgdStep step{finite(lr, "lr"), at_least_zero(momentum, "momentum"),
                     at_least_zero(weight_decay, "weight_decay"), nesterov};
  if (step.momentum > 0) {
    for (const Learned& learned : arrays.all()) {
      if (learned.kept[0] == nullptr) value_error("velocity is None; momentum needs it");
    }
  }
  if (nesterov && step.momentum == 0) value_error("momentum is 0; nesterov needs more");
  const int threads = default_threads();
  without_interpreter(arrays.elements(), [&] { sgd_step(step, arrays.all(), threads); });
}

void run_adam(const py::list& parameters, const py::list& gradients, const py::list& means,
              const py::list& squares, std::int64_t step, double lr, double beta1, double beta2,
              double eps, double weight_decay, bool decoupled) {
  const StepArrays arrays(parameters, gradients, {{&means, "mean"}, {&squares, "square"}});
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
  without_interpreter(arrays.elements(), [&] { adam_step(adam, arrays.all(), threads); });
}

}  // namespace

void bind_elementwise(py::module_& module) {
  module.def("activation", &run_activation, "x"_a, "activation"_a, "slope"_a, "residual"_a,
             "out"_a);
  module.def("activation_backward", &run_activation_backward, "dy"_a, "x"_a, "y"_a, "activation"_a,
             "slope"_a, "out"_a);
  module.def("sgd_step", &run_sgd, "parameters"_a, "gradients"_a, "velocities"_a, "lr"_a,
             "momentum"_a, "weight_decay"_a, "nesterov"_a);
  module.def("adam_step", &run_adam, "parameters"_a, "gradients"_a, "means"_a, "squares"_a,
             "step"_a, "lr"_a, "beta1"_a, "beta2"_a, "eps"_a, "weight_decay"_a, "decoupled"_a);
}

}  // namespace convolith
