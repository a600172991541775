#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "convolith/error.hpp"
#include "runtime/cpu.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module) {
  module.doc() = "convolith's compiled core; the public interface is the package convolith.";
  // A wrong CONVOLITH_ISA or CONVOLITH_HALVES_VECTORS fails the import, with its message.
  convolith::describe_machine(convolith::isa_in_use());
  py::register_exception<convolith::Unsupported>(module, "UnsupportedError", PyExc_ValueError)
      .doc() = "The problem is legal, but no algorithm, or not the one named, can serve it.";
  convolith::bind_runtime(module);
  convolith::bind_problems(module);
  convolith::bind_convolution(module);
  convolith::bind_pooling(module);
  convolith::bind_matmul(module);
  convolith::bind_elementwise(module);
  convolith::bind_batch_norm(module);
  convolith::bind_losses(module);
}
