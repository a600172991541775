#pragma once

// What the calls on plain arrays have in common.

#include <initializer_list>
#include <optional>
#include <string>

#include <pybind11/numpy.h>

#include "bindings/arrays.hpp"
#include "bindings/unlocked.hpp"
#include "training/training.hpp"

namespace convolith {

[[noreturn]] void value_error(const std::string& message);

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

ActivationSpec parse_activation(const std::string& activation, double slope);

double finite(double value, const char* argument);
double at_least_zero(double value, const char* argument);

/// A contiguous array of the dtype and shape of `like`.
pybind11::array same_as(pybind11::handle object, const pybind11::array& like, const char* argument,
                        const char* like_name);

/// A contiguous vector with an element for each channel.
pybind11::array per_channel(pybind11::handle object, DType dtype, std::int64_t channels,
                            const char* argument, const char* like_name);
std::optional<pybind11::array> optional_per_channel(pybind11::handle object, DType dtype,
                                                    std::int64_t channels, const char* argument);

/// An array to be changed in place.
pybind11::array in_place(pybind11::handle object, DType dtype, ShapeView shape,
                         const char* argument, const char* like_name);

void* data_of(const std::optional<pybind11::array>& array);

/// An output of elementwise work: it may be one of the inputs.
Output elementwise_output(pybind11::handle out, const pybind11::array& like,
                          std::initializer_list<const pybind11::array*> inputs);

}  // namespace convolith
