#include "gemm/matmul.hpp"

#include <algorithm>
#include <cstddef>

#include "gemm/gemm.hpp"
#include "gemm/thin_product.hpp"
#include "runtime/cpu.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

/// Products of fewer operations do not repay a fork and a join.
constexpr double kBriefFlops = 1e6;

template <class T>
GemmOperand<T> factor_of(const MatmulFactor& factor, std::int64_t offset) noexcept {
  return {static_cast<const T*>(factor.data) + offset, factor.row_stride, factor.column_stride};
}

template <class T>
void run_typed(const MatmulProblem& problem, int threads) {
  const std::int64_t m = problem.a.rows, n = problem.b.columns, k = problem.a.columns;
  std::int64_t products = 1;
  for (const StackAxis& axis : problem.stack) products *= axis.extent;
  if (m == 0 || n == 0 || products == 0) return;
  TileEpilogue<T> epilogue{};
  epilogue.bias = static_cast<const T*>(problem.bias);
  epilogue.bias_axis = problem.bias != nullptr ? BiasAxis::columns : BiasAxis::none;
  epilogue.activation = problem.activation;
  epilogue.slope = static_cast<T>(problem.slope);
  const bool fused = problem.bias != nullptr || problem.activation != Activation::none;
  const Machine machine = describe_machine(isa_in_use());
  T* c = static_cast<T*>(problem.c);
  if (k == 0) {
    std::fill_n(c, products * m * n, T(0));
    constexpr std::int64_t kColumns = 1 << 20;  // kernels count them in int
    for (std::int64_t row = 0; fused && row < products * m; ++row) {
      TileEpilogue<T> part = epilogue;
      for (std::int64_t j = 0; j < n; j += kColumns) {
        kernels_for<T>(machine).epilogue(part, 1, static_cast<int>(std::min(kColumns, n - j)),
                                         c + row * n + j, 0, 1);
        if (part.bias != nullptr) part.bias += kColumns;
      }
    }
    return;
  }
  const int team = problem.flops() < kBriefFlops ? 1 : threads;
  const ThinProduct<T> thin(m, n, k, machine, team);
  const Gemm<T> gemm(m, n, k, machine, team);
  const bool is_thin = thin.supports(factor_of<T>(problem.a, 0), factor_of<T>(problem.b, 0));
  const Scratch workspace(is_thin ? thin.workspace_bytes() : gemm.workspace_bytes());
  for (std::int64_t i = 0; i < products; ++i) {
    std::int64_t a_offset = 0, b_offset = 0, rest = i;
    for (auto axis = problem.stack.rbegin(); axis != problem.stack.rend(); ++axis) {
      a_offset += rest % axis->extent * axis->a_stride;
      b_offset += rest % axis->extent * axis->b_stride;
      rest /= axis->extent;
    }
    const GemmOperand<T> a = factor_of<T>(problem.a, a_offset);
    const GemmOperand<T> b = factor_of<T>(problem.b, b_offset);
    if (is_thin) {
      thin.run(a, b, c + i * m * n, fused ? &epilogue : nullptr, workspace.data());
    } else {
      gemm.run(a, b, c + i * m * n, n, false, fused ? &epilogue : nullptr, workspace.data());
    }
  }
}

}  // namespace

double MatmulProblem::flops() const noexcept {
  double flops = 2.0 * static_cast<double>(a.rows) * static_cast<double>(b.columns) *
                 static_cast<double>(a.columns);
  for (const StackAxis& axis : stack) flops *= static_cast<double>(axis.extent);
  return flops;
}

void matmul(const MatmulProblem& problem, int threads) {
  const auto run = problem.dtype == DType::float32 ? run_typed<float> : run_typed<double>;
  run(problem, threads);
}

}  // namespace convolith
