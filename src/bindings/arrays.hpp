#pragma once

// The only place that looks into NumPy arrays. Everything here throws Python exceptions whose
// messages name the argument.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "convolith/problem.hpp"
#include "convolith/tensor.hpp"

namespace convolith {

using Shape = std::vector<std::int64_t>;
using ShapeView = std::span<const std::int64_t>;

std::string shape_text(ShapeView shape);
ShapeView shape_of(const pybind11::array& array);

/// The dtype of an exact ndarray (no subclass) of float32 or float64 in native byte order; of
/// anything else, nothing.
std::optional<DType> plain_dtype(pybind11::handle object) noexcept;

/// A plain float32 or float64 ndarray of native byte order, or TypeError.
pybind11::array require_array(pybind11::handle object, const char* argument);

/// A plain int64 ndarray of native byte order, or TypeError.
pybind11::array require_indices(pybind11::handle object, const char* argument);

/// None as an empty optional, else require_array.
std::optional<pybind11::array> optional_array(pybind11::handle object, const char* argument);

DType dtype_of(const pybind11::array& array);

/// TypeError unless `array` has that dtype: all floating arrays of a call share one.
void require_dtype(const pybind11::array& array, DType dtype, const char* argument,
                   const char* like);

void require_shape(const pybind11::array& array, ShapeView shape, const char* argument);

/// Shape of feature maps in a layout; without the batch axis where `unbatched`. `spatial` holds
/// nd extents.
Shape maps_shape(Layout layout, bool unbatched, std::int64_t batch, std::int64_t channels,
                 const Shape& spatial);

/// Feature maps taken apart: batch is 1 where the array has no batch axis.
struct MapsShape {
  bool unbatched;
  std::int64_t batch, channels;
  Shape spatial;
};
MapsShape parse_maps_shape(ShapeView shape, Layout layout, int nd, const char* argument);

/// An array that kernels can read: itself where its strides allow, else a contiguous copy.
struct InputMaps {
  pybind11::array array;
  TensorView view;
};
InputMaps input_maps(const pybind11::array& array, Layout layout, int nd);

/// `array` itself if it is C-contiguous and aligned, else such a copy.
pybind11::array contiguous(const pybind11::array& array);

/// The array that a call returns, and one that kernels can write: the same array where its
/// strides allow. finish() copies from the second to the first where they differ.
class Output {
 public:
  /// A new array, or `out` after checking that it is a writable array of that shape and dtype
  /// that shares no element with any of `inputs`.
  Output(pybind11::handle out, ShapeView shape, DType dtype,
         std::span<const pybind11::object> inputs = {});

  TensorView maps(Layout layout, int nd);  ///< to write feature maps
  void* data();                            ///< to write a contiguous array
  pybind11::array finish();

 private:
  void write_elsewhere();

  pybind11::array result_;
  pybind11::array written_;
  bool ours_;  ///< a new array, contiguous
};

/// A new C-contiguous array, its content arbitrary.
pybind11::array new_array(DType dtype, ShapeView shape);

/// Extents given by a tuple of Python integers.
Shape shape_argument(const pybind11::tuple& extents);

}  // namespace convolith
