#include "bindings/arrays.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "bindings/allocation.hpp"
#include "bindings/unlocked.hpp"
#include "runtime/threads.hpp"
#include "transposition.hpp"

namespace py = pybind11;

namespace convolith {
namespace {

[[noreturn]] void type_error(const std::string& message) { throw py::type_error(message); }
[[noreturn]] void value_error(const std::string& message) { throw py::value_error(message); }

std::string type_name(py::handle object) {
  return py::cast<std::string>(py::type::handle_of(object).attr("__name__"));
}

bool is_masked(py::handle object) {
  // A masked array can only exist once numpy.ma is imported.
  const py::dict modules = py::module_::import("sys").attr("modules");
  if (!modules.contains("numpy.ma")) return false;
  return py::isinstance(object, modules["numpy.ma"].attr("MaskedArray"));
}

/// C-contiguous and aligned.
bool is_plain(const py::array& array) {
  constexpr int kFlags = static_cast<int>(py::array::c_style) |
                         static_cast<int>(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  return (array.flags() & kFlags) == kFlags;
}

/// Whether an array gains more from its alignment than the 0.1 us that it costs.
bool is_large(ShapeView shape) {
  constexpr std::int64_t kElements = 1024;
  std::int64_t elements = 1;
  for (const std::int64_t extent : shape) {
    elements = std::min(elements, kElements) * std::min(extent, kElements);
  }
  return elements >= kElements;
}

struct AxisStride {
  std::int64_t extent, stride;
};

/// Strides of feature maps in elements, or nothing where kernels could not walk them.
std::optional<TensorView> view_of(const py::array& array, Layout layout, int nd) {
  const auto item = static_cast<std::int64_t>(array.itemsize());
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  if (address % static_cast<std::uintptr_t>(item) != 0) return std::nullopt;
  const int rank = nd + 2;
  const auto batch_axes = static_cast<int>(rank - array.ndim());  // that the array lacks
  std::array<AxisStride, kSpatialAxes + 2> axes;
  axes[0] = {1, 0};
  for (int i = batch_axes; i < rank; ++i) {
    const std::int64_t extent = array.shape()[i - batch_axes];
    const std::int64_t stride = array.strides()[i - batch_axes];
    if (extent > 1 && stride % item != 0) return std::nullopt;
    axes[i] = {extent, stride / item};
  }
  const bool channels_last = layout == Layout::channels_last;
  const int first_spatial = channels_last ? 1 : 2;
  const AxisStride channel = channels_last ? axes[rank - 1] : axes[1];

  // Collapse the spatial axes, innermost first; axes of extent 1 may have any stride.
  std::int64_t pixels = 1;
  std::int64_t pixel_stride = channels_last ? channel.extent : 1;
  for (int i = first_spatial + nd; i-- > first_spatial;) {
    if (axes[i].extent == 1) continue;
    if (pixels == 1) {
      pixel_stride = axes[i].stride;
    } else if (axes[i].stride != pixels * pixel_stride) {
      return std::nullopt;
    }
    pixels *= axes[i].extent;
  }
  const std::int64_t innermost = channels_last ? channel.stride : pixel_stride;
  const std::int64_t extent = channels_last ? channel.extent : pixels;
  if (extent > 1 && innermost != 1) return std::nullopt;

  TensorView view;
  view.data = const_cast<void*>(array.data());
  view.sample_stride = axes[0].stride;
  view.channel_stride = channels_last ? 1 : channel.stride;
  view.pixel_stride = channels_last ? pixel_stride : 1;
  return view;
}

/// Whether writing through the view touches every element once: no axis folds onto another.
bool is_injective(const TensorView& view, const MapsShape& shape, Layout layout) {
  std::int64_t pixels = 1;
  for (std::int64_t extent : shape.spatial) pixels *= extent;
  const bool channels_last = layout == Layout::channels_last;
  const std::int64_t inner = channels_last ? shape.channels : pixels;
  const std::int64_t outer = channels_last ? pixels : shape.channels;
  const std::int64_t outer_stride = channels_last ? view.pixel_stride : view.channel_stride;
  if (outer > 1 && outer_stride < inner) return false;
  const std::int64_t span = (outer - 1) * outer_stride + inner;
  return shape.batch <= 1 || view.sample_stride >= span;
}

/// The bytes from the first to the last element of an array that is not empty.
struct Bytes {
  std::intptr_t begin, end;
};

Bytes bytes_of(const py::array& array) {
  const auto address = reinterpret_cast<std::intptr_t>(array.data());
  Bytes bytes{address, address + static_cast<std::intptr_t>(array.itemsize())};
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    const std::intptr_t reach = (array.shape()[i] - 1) * array.strides()[i];
    (reach < 0 ? bytes.begin : bytes.end) += reach;
  }
  return bytes;
}

bool shares_elements(const py::array& a, const py::array& b) {
  if (a.size() == 0 || b.size() == 0) return false;
  const Bytes of_a = bytes_of(a);
  const Bytes of_b = bytes_of(b);
  if (of_a.end <= of_b.begin || of_b.end <= of_a.begin) return false;
  const py::module_ numpy = py::module_::import("numpy");
  // The exact answer can take exponential time; give up early and call it sharing.
  constexpr std::int64_t kMaxWork = 1000000;
  try {
    return py::cast<bool>(numpy.attr("shares_memory")(a, b, kMaxWork));
  } catch (py::error_already_set& error) {
    if (error.matches(PyExc_RuntimeError)) return true;  // numpy.exceptions.TooHardError
    throw;
  }
}

}  // namespace

std::string shape_text(ShapeView shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  if (shape.size() == 1) text += ",";
  text += ")";
  return text;
}

ShapeView shape_of(const py::array& array) {
  static_assert(sizeof(py::ssize_t) == sizeof(std::int64_t));
  return {reinterpret_cast<const std::int64_t*>(array.shape()),
          static_cast<std::size_t>(array.ndim())};
}

namespace {

/// The type number of an exact ndarray in native byte order, or -1.
int plain_type(py::handle object) noexcept {
  const auto& numpy = py::detail::npy_api::get();
  if (Py_TYPE(object.ptr()) != numpy.PyArray_Type_) return -1;
  const auto* descriptor = py::detail::array_proxy(object.ptr())->descr;
  constexpr char kForeign = std::endian::native == std::endian::little ? '>' : '<';
  const auto* fields = py::detail::array_descriptor_proxy(
      reinterpret_cast<const PyObject*>(descriptor));
  return fields->byteorder == kForeign ? -1 : fields->type_num;
}

}  // namespace

std::optional<DType> plain_dtype(py::handle object) noexcept {
  const int type = plain_type(object);
  if (type == py::detail::npy_api::NPY_FLOAT_) return DType::float32;
  if (type == py::detail::npy_api::NPY_DOUBLE_) return DType::float64;
  return std::nullopt;
}

py::array require_array(py::handle object, const char* argument) {
  if (plain_dtype(object)) return py::reinterpret_borrow<py::array>(object);
  const std::string name = argument;
  if (!py::isinstance<py::array>(object) || is_masked(object)) {
    type_error(name + " is a " + type_name(object) +
               "; it must be a numpy.ndarray of float32 or float64");
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  const py::dtype dtype = array.dtype();
  const bool floating = dtype.kind() == 'f' && (dtype.itemsize() == 4 || dtype.itemsize() == 8);
  if (!floating) {
    type_error(name + " has dtype " + py::cast<std::string>(py::str(dtype)) +
               "; supported are float32 and float64");
  }
  if (!py::cast<bool>(dtype.attr("isnative"))) {
    type_error(name + " has byte order '" + std::string(1, dtype.byteorder()) +
               "'; it must be native: use " + name + ".astype(" + name +
               ".dtype.newbyteorder('='))");
  }
  return array;
}

py::array require_indices(py::handle object, const char* argument) {
  if (plain_type(object) == py::detail::npy_api::NPY_INT64_) {
    return py::reinterpret_borrow<py::array>(object);
  }
  const std::string name = argument;
  if (!py::isinstance<py::array>(object) || is_masked(object)) {
    type_error(name + " is a " + type_name(object) + "; it must be a numpy.ndarray of int64");
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  const py::dtype dtype = array.dtype();
  if (dtype.kind() != 'i' || dtype.itemsize() != 8 || !py::cast<bool>(dtype.attr("isnative"))) {
    type_error(name + " has dtype " + py::cast<std::string>(py::str(dtype)) +
               "; it must be int64 of native byte order");
  }
  return array;
}

std::optional<py::array> optional_array(py::handle object, const char* argument) {
  if (object.is_none()) return std::nullopt;
  return require_array(object, argument);
}

DType dtype_of(const py::array& array) {
  return array.itemsize() == 4 ? DType::float32 : DType::float64;
}

void require_dtype(const py::array& array, DType dtype, const char* argument, const char* like) {
  if (dtype_of(array) != dtype) {
    type_error(std::string(argument) + " has dtype " + name(dtype_of(array)) + "; " + like +
               " has " + name(dtype) + ", and all floating arrays of a call share one dtype");
  }
}

void require_shape(const py::array& array, ShapeView shape, const char* argument) {
  const ShapeView actual = shape_of(array);
  if (!std::ranges::equal(actual, shape)) {
    value_error(std::string(argument) + " has shape " + shape_text(actual) + "; it must be " +
                shape_text(shape));
  }
}

Shape maps_shape(Layout layout, bool unbatched, std::int64_t batch, std::int64_t channels,
                 const Shape& spatial) {
  Shape shape;
  if (!unbatched) shape.push_back(batch);
  if (layout == Layout::channels_first) shape.push_back(channels);
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  if (layout == Layout::channels_last) shape.push_back(channels);
  return shape;
}

MapsShape parse_maps_shape(ShapeView shape, Layout layout, int nd, const char* argument) {
  const auto rank = static_cast<int>(shape.size());
  if (rank != nd + 1 && rank != nd + 2) {
    value_error(std::string(argument) + " has " + std::to_string(rank) + " axes; it must have " +
                std::to_string(nd + 2) + ", or " + std::to_string(nd + 1) +
                " for one sample without a batch axis");
  }
  MapsShape result;
  result.unbatched = rank == nd + 1;
  auto at = shape.begin();
  result.batch = result.unbatched ? 1 : *at++;
  if (layout == Layout::channels_first) result.channels = *at++;
  result.spatial.assign(at, at + nd);
  if (layout == Layout::channels_last) result.channels = shape.back();
  return result;
}

InputMaps input_maps(const py::array& array, Layout layout, int nd) {
  if (const auto view = view_of(array, layout, nd)) return {array, *view};
  const py::array copy = contiguous(array);
  return {copy, *view_of(copy, layout, nd)};
}

namespace {

/// How to copy an array that is one of the other data format, seen through moved axes; nothing for
/// any other.
std::optional<Transposition> transposition_of(const py::array& array) {
  const auto item = static_cast<std::int64_t>(array.itemsize());
  if (reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(item) != 0) {
    return std::nullopt;
  }
  std::vector<AxisStride> axes;  // neighbours that are one walk are one
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    const std::int64_t extent = array.shape()[i], stride = array.strides()[i];
    if (extent == 0 || stride % item != 0) return std::nullopt;
    if (extent == 1) continue;
    if (!axes.empty() && axes.back().stride == extent * stride / item) {
      axes.back() = {axes.back().extent * extent, stride / item};
    } else {
      axes.push_back({extent, stride / item});
    }
  }
  if (axes.size() == 2) axes.insert(axes.begin(), {1, 0});
  if (axes.size() != 3 || axes[1].stride != 1) return std::nullopt;
  return Transposition{axes[0].extent, axes[1].extent, axes[2].extent, axes[0].stride,
                       axes[2].stride};
}

}  // namespace

py::array contiguous(const py::array& array) {
  if (is_plain(array)) return array;
  const auto dtype = plain_dtype(array);
  if (const auto shape = dtype ? transposition_of(array) : std::nullopt) {
    py::array copy = new_array(*dtype, shape_of(array));
    void* data = copy.mutable_data();
    const Unlocked unlocked;
    transpose(*dtype, *shape, array.data(), data, default_threads());
    return copy;
  }
  const py::module_ numpy = py::module_::import("numpy");
  return py::cast<py::array>(numpy.attr("array")(array, py::arg("order") = "C",
                                                 py::arg("copy") = true, py::arg("subok") = false));
}

Output::Output(py::handle out, ShapeView shape, DType dtype, std::span<const py::object> inputs)
    : result_(out.is_none() ? new_array(dtype, shape) : require_array(out, "out")),
      written_(result_),
      ours_(out.is_none()) {
  if (ours_) return;
  if (dtype_of(result_) != dtype) {
    type_error("out has dtype " + std::string(name(dtype_of(result_))) + "; it must be " +
               name(dtype));
  }
  require_shape(result_, shape, "out");
  if (!result_.writeable()) value_error("out is read-only; it must be writable");
  for (const py::object& input : inputs) {
    if (shares_elements(result_, py::reinterpret_borrow<py::array>(input))) {
      value_error("out shares elements with an input; it must not overlap any");
    }
  }
}

void Output::write_elsewhere() { written_ = new_array(dtype_of(result_), shape_of(result_)); }

TensorView Output::maps(Layout layout, int nd) {
  const auto view = view_of(written_, layout, nd);
  if (ours_) return *view;
  if (view && is_injective(*view, parse_maps_shape(shape_of(written_), layout, nd, "out"), layout)) {
    return *view;
  }
  write_elsewhere();
  return *view_of(written_, layout, nd);
}

void* Output::data() {
  if (!is_plain(written_)) write_elsewhere();
  return written_.mutable_data();
}

py::array Output::finish() {
  if (!written_.is(result_)) py::module_::import("numpy").attr("copyto")(result_, written_);
  return result_;
}

py::array new_array(DType dtype, ShapeView shape) {
  const auto& numpy = py::detail::npy_api::get();
  const int number = dtype == DType::float32 ? py::detail::npy_api::NPY_FLOAT_
                                             : py::detail::npy_api::NPY_DOUBLE_;
  std::optional<AlignedArrays> aligned;
  if (is_large(shape)) aligned.emplace();
  PyObject* array = numpy.PyArray_NewFromDescr_(
      numpy.PyArray_Type_, numpy.PyArray_DescrFromType_(number), static_cast<int>(shape.size()),
      reinterpret_cast<const Py_intptr_t*>(shape.data()), nullptr, nullptr, 0, nullptr);
  if (array == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(array);
}

Shape shape_argument(const py::tuple& extents) {
  Shape shape;
  for (py::handle extent : extents) shape.push_back(py::cast<std::int64_t>(extent));
  return shape;
}

}  // namespace convolith
