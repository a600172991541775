#pragma once

#include <pybind11/pybind11.h>

#include "convolith/types.hpp"

namespace convolith {

/// The numerics of calls from this thread that do not say.
Numerics default_numerics() noexcept;

void bind_problems(pybind11::module_& module);
void bind_convolution(pybind11::module_& module);
void bind_pooling(pybind11::module_& module);
void bind_matmul(pybind11::module_& module);
void bind_elementwise(pybind11::module_& module);
void bind_batch_norm(pybind11::module_& module);
void bind_losses(pybind11::module_& module);
void bind_runtime(pybind11::module_& module);

}  // namespace convolith
