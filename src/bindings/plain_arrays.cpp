#include "bindings/plain_arrays.hpp"

#include <cmath>
#include <vector>

namespace py = pybind11;

namespace convolith {
namespace {

/// Whether both are the same elements in the same places, so that element may follow element.
bool same_elements(const py::array& a, const py::array& b) {
  if (a.data() != b.data() || a.ndim() != b.ndim()) return false;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) {
    if (a.shape(i) != b.shape(i) || a.strides(i) != b.strides(i)) return false;
  }
  return true;
}

}  // namespace

void value_error(const std::string& message) { throw py::value_error(message); }

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

py::array same_as(py::handle object, const py::array& like, const char* argument,
                  const char* like_name) {
  const py::array array = require_array(object, argument);
  require_dtype(array, dtype_of(like), argument, like_name);
  require_shape(array, shape_of(like), argument);
  return contiguous(array);
}

py::array per_channel(py::handle object, DType dtype, std::int64_t channels, const char* argument,
                      const char* like_name) {
  const py::array array = require_array(object, argument);
  require_dtype(array, dtype, argument, like_name);
  require_shape(array, {&channels, 1}, argument);
  return contiguous(array);
}

std::optional<py::array> optional_per_channel(py::handle object, DType dtype, std::int64_t channels,
                                              const char* argument) {
  if (object.is_none()) return std::nullopt;
  return per_channel(object, dtype, channels, argument, "x");
}

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

}  // namespace convolith
