#include "transposition.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

template <class T>
void transpose_typed(const Transposition& shape, const void* source, void* destination,
                     int threads) noexcept {
  // A piece is as many rows as a source line holds, or a few of these.
  constexpr std::int64_t kPieceRows = 64, kPieceElements = 16384;
  const Kernels<T>& kernels = kernels_for<T>(describe_machine(isa_in_use()));
  const std::int64_t pieces = divide_up(shape.rows, kPieceRows);
  const std::int64_t elements = shape.batch * shape.rows * shape.columns;
  const int team = static_cast<int>(std::min<std::int64_t>(threads, 1 + elements / kPieceElements));
  parallel_for(team, shape.batch * pieces, [&](std::int64_t index, int) {
    const std::int64_t n = index / pieces, first = index % pieces * kPieceRows;
    const std::int64_t rows = std::min(kPieceRows, shape.rows - first);
    kernels.transpose(
        shape.columns, rows, static_cast<const T*>(source) + n * shape.batch_stride + first,
        shape.column_stride, 1,
        static_cast<T*>(destination) + (n * shape.rows + first) * shape.columns, shape.columns, 1);
  });
}

}  // namespace

void transpose(DType dtype, const Transposition& shape, const void* source, void* destination,
               int threads) noexcept {
  const auto run = dtype == DType::float32 ? transpose_typed<float> : transpose_typed<double>;
  run(shape, source, destination, threads);
}

}  // namespace convolith
