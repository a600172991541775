#pragma once

#include <pybind11/pybind11.h>

namespace convolith {

void bind_convolution(pybind11::module_& module);
void bind_pooling(pybind11::module_& module);
void bind_runtime(pybind11::module_& module);

}  // namespace convolith
