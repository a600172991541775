#pragma once

#include <pybind11/pybind11.h>

#include "runtime/floating_point.hpp"

namespace convolith {

/// Work without the interpreter, in the default floating-point mode.
class Unlocked {
  pybind11::gil_scoped_release released_;
  DefaultFloatingPoint mode_;
};

}  // namespace convolith
