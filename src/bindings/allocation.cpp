#include "bindings/allocation.hpp"

#include <cstdint>
#include <cstring>

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/numpy.h>

#include "runtime/block_cache.hpp"

namespace py = pybind11;

namespace convolith {
namespace {

void* allocate(void* /*context*/, std::size_t bytes) { return array_blocks().take(bytes); }

void* allocate_zeros(void* /*context*/, std::size_t count, std::size_t size) {
  if (size != 0 && count > SIZE_MAX / size) return nullptr;
  void* data = array_blocks().take(count * size);
  if (data != nullptr) std::memset(data, 0, count * size);
  return data;
}

void* reallocate(void* /*context*/, void* data, std::size_t bytes) {
  return array_blocks().resize(data, bytes);
}

void release(void* /*context*/, void* data, std::size_t /*bytes*/) { array_blocks().give(data); }

/// PyDataMem_Handler of NumPy's C interface.
struct Handler {
  char name[127];
  std::uint8_t version;
  struct {
    void* context;
    void* (*allocate)(void*, std::size_t);
    void* (*allocate_zeros)(void*, std::size_t, std::size_t);
    void* (*reallocate)(void*, void*, std::size_t);
    void (*release)(void*, void*, std::size_t);
  } allocator;
};

Handler handler{
    "convolith", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};

struct HandlerSwitch {
  PyObject* (*set)(PyObject*);  ///< PyDataMem_SetHandler: returns the one before
  PyObject* ours;
};

const HandlerSwitch& handlers() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<HandlerSwitch> storage;
  return storage
      .call_once_and_store_result([] {
        constexpr int kSetHandler = 304;  // since NumPy 1.22, whose C interface only grows
        const auto capsule = py::cast<py::capsule>(
            py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API"));
        auto** const table = capsule.get_pointer<void*>();
        PyObject* const ours = PyCapsule_New(&handler, "mem_handler", nullptr);
        if (ours == nullptr) throw py::error_already_set();
        return HandlerSwitch{reinterpret_cast<PyObject* (*)(PyObject*)>(table[kSetHandler]), ours};
      })
      .get_stored();
}

}  // namespace

AlignedArrays::AlignedArrays()
    : context_(py::reinterpret_steal<py::object>(PyContext_CopyCurrent())) {
  if (!context_) throw py::error_already_set();
  const HandlerSwitch& handler_switch = handlers();
  PyContext_Enter(context_.ptr());
  PyObject* const previous = handler_switch.set(handler_switch.ours);
  if (previous == nullptr) {
    py::error_already_set error;
    PyContext_Exit(context_.ptr());
    throw error;
  }
  Py_DECREF(previous);
}

AlignedArrays::~AlignedArrays() { PyContext_Exit(context_.ptr()); }

}  // namespace convolith
