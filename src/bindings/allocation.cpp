#include "bindings/allocation.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

#include <pybind11/gil_safe_call_once.h>
#include <pybind11/numpy.h>

#include "convolith/algorithm.hpp"

namespace py = pybind11;

namespace convolith {
namespace {

/// From this size on NumPy asks for huge pages too.
constexpr std::size_t kHugeBytes = std::size_t{4} << 20;
constexpr std::size_t kPage = 4096;

void* allocate(void* /*context*/, std::size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, bytes) != 0) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (bytes >= kHugeBytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const std::uintptr_t begin = (address + kPage - 1) / kPage * kPage;
    madvise(reinterpret_cast<void*>(begin), address + bytes - begin, MADV_HUGEPAGE);
  }
#endif
  return data;
}

void* allocate_zeros(void* context, std::size_t count, std::size_t size) {
  if (size != 0 && count > SIZE_MAX / size) return nullptr;
  void* data = allocate(context, count * size);
  if (data != nullptr) std::memset(data, 0, count * size);
  return data;
}

void* reallocate(void* /*context*/, void* data, std::size_t bytes) {
  return std::realloc(data, bytes);
}

void release(void* /*context*/, void* data, std::size_t /*bytes*/) { std::free(data); }

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
        return HandlerSwitch{reinterpret_cast<PyObject* (*)(PyObject*)>(table[kSetHandler]),
                             PyCapsule_New(&handler, "mem_handler", nullptr)};
      })
      .get_stored();
}

}  // namespace

AlignedArrays::AlignedArrays() : previous_(handlers().set(handlers().ours)) {
  if (previous_ == nullptr) throw py::error_already_set();
}

AlignedArrays::~AlignedArrays() {
  Py_XDECREF(handlers().set(previous_));
  Py_DECREF(previous_);
}

}  // namespace convolith
