#include <array>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "bindings/plain_arrays.hpp"
#include "gemm/matmul.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

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
    bool whole =
        reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(item) == 0;
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

}  // namespace

void bind_matmul(py::module_& module) {
  module.def("matmul", &run_matmul, "a"_a, "b"_a, "transpose_a"_a, "transpose_b"_a, "bias"_a,
             "activation"_a, "slope"_a, "out"_a);
}

}  // namespace convolith
