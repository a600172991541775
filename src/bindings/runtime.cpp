#include <array>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/unlocked.hpp"
#include "gemm/gemm.hpp"
#include "runtime/block_cache.hpp"
#include "runtime/cpu.hpp"
#include "runtime/measure.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace convolith {
namespace {

thread_local Numerics thread_numerics = Numerics::fast;

py::dict config() {
  const KernelTable& isa = isa_in_use();
  const Machine machine = describe_machine(isa);
  py::list compiled, available;
  for (const char* name : compiled_isas()) compiled.append(name);
  for (const KernelTable* table : available_isas()) available.append(table->isa);
  return py::dict(
      "version"_a = CONVOLITH_VERSION,
#if defined(__clang__)
      "compiler"_a = "Clang " __clang_version__,
#else
      "compiler"_a = "GCC " __VERSION__,
#endif
      "isas_compiled"_a = compiled, "isas_available"_a = available, "isa"_a = isa.isa,
      "vector_bytes"_a = isa.vector_bytes, "threads"_a = default_threads(),
      "hardware_threads"_a = hardware_threads(), "openmp"_a = openmp_runtime(),
      "l1_bytes"_a = machine.l1_bytes, "l2_bytes"_a = machine.l2_bytes,
      "l3_bytes"_a = machine.l3_bytes, "cuda"_a = false);
}

template <class T>
void multiply(const py::array& a, const py::array& b, T* c, int threads) {
  const auto operand = [](const py::array& matrix) {
    constexpr auto kItem = static_cast<std::int64_t>(sizeof(T));
    return GemmOperand<T>{static_cast<const T*>(matrix.data()), matrix.strides(0) / kItem,
                          matrix.strides(1) / kItem};
  };
  const GemmOperand<T> left = operand(a);
  const GemmOperand<T> right = operand(b);
  const std::int64_t m = a.shape(0), k = a.shape(1), n = b.shape(1);
  const Unlocked unlocked;
  const Gemm<T> gemm(m, n, k, describe_machine(isa_in_use()), threads);
  const Scratch workspace(gemm.workspace_bytes());
  gemm.run(left, right, c, n, false, nullptr, workspace.data());
}

/// Itself where kernels can walk its strides, else a copy.
py::array walkable(const py::array& matrix) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(matrix.data()) %
                           static_cast<std::uintptr_t>(matrix.itemsize()) == 0;
  const bool whole = matrix.strides(0) % matrix.itemsize() == 0 &&
                     matrix.strides(1) % matrix.itemsize() == 0;
  return aligned && whole ? matrix : contiguous(matrix);
}

py::array gemm(py::handle a_object, py::handle b_object, int threads, py::handle out) {
  const py::array a = require_array(a_object, "a");
  const py::array b = require_array(b_object, "b");
  const DType dtype = dtype_of(a);
  require_dtype(b, dtype, "b", "a");
  for (const auto& [matrix, argument] : {std::pair{&a, "a"}, std::pair{&b, "b"}}) {
    if (matrix->ndim() != 2 || matrix->size() == 0) {
      throw py::value_error(std::string(argument) + " has shape " + shape_text(shape_of(*matrix)) +
                            "; it must be a matrix that is not empty");
    }
  }
  if (a.shape(1) != b.shape(0)) {
    throw py::value_error("a has " + std::to_string(a.shape(1)) + " columns and b has " +
                          std::to_string(b.shape(0)) + " rows; they must agree");
  }
  const std::array<std::int64_t, 2> shape{a.shape(0), b.shape(1)};
  const std::array<py::object, 2> inputs{a, b};
  Output output(out, shape, dtype, inputs);
  const auto run = dtype == DType::float32
                       ? [](const py::array& left, const py::array& right, void* c, int team) {
                           multiply(left, right, static_cast<float*>(c), team);
                         }
                       : [](const py::array& left, const py::array& right, void* c, int team) {
                           multiply(left, right, static_cast<double*>(c), team);
                         };
  run(walkable(a), walkable(b), output.data(), resolve_threads(threads));
  return output.finish();
}

}  // namespace

Numerics default_numerics() noexcept { return thread_numerics; }

void bind_runtime(py::module_& module) {
  module.def("config", &config);
  module.def("default_threads", &default_threads);
  module.attr("MOST_THREADS") = kMostThreads;
  module.def("set_default_threads", &set_default_threads, "threads"_a);
  module.def("thread_override", &thread_override);
  module.def("set_thread_override", &set_thread_override, "threads"_a);
  module.def("default_numerics", [] { return name(default_numerics()); });
  module.def(
      "set_thread_numerics",
      [](const std::string& mode) { thread_numerics = parse_name<Numerics>(mode, "numerics"); },
      "mode"_a);
  module.def("gemm", &gemm, "a"_a, "b"_a, "threads"_a = 0, "out"_a = py::none(),
             "Matrix product of two float32 or float64 matrices.");
  module.def(
      "measure_peak",
      [](const std::string& dtype, int threads) {
        const auto parsed = parse_name<DType>(dtype, "dtype");
        const int team = resolve_threads(threads);
        const Unlocked unlocked;
        return measure_peak(parsed, team);
      },
      "dtype"_a = "float32", "threads"_a = 0,
      "Flops a second of independent multiply-adds in registers.");
  module.def(
      "measure_copy",
      [](std::size_t bytes, int threads) {
        const int team = resolve_threads(threads);
        const Unlocked unlocked;
        return measure_copy(bytes, team);
      },
      "bytes"_a, "threads"_a = 0, "Bytes a second, read and written, of copying that many bytes.");
  module.def("kept_bytes", [] { return array_blocks().kept_bytes(); },
             "Memory of former results that waits for the next.");
  module.def("release_memory", [] { array_blocks().clear(); },
             "Give the memory of former results back to the system.");
  module.def(
      "set_poison",
      [](bool on, bool subnormal) {
        set_poison(!on ? Poison::none : subnormal ? Poison::subnormal : Poison::nan);
      },
      "on"_a, "subnormal"_a = false,
      "Fill workspaces and packed weights with NaN, or with subnormal numbers, before they are "
      "granted: for tests.");
}

}  // namespace convolith
