#include "kernels/column_sums.inl.hpp"
#include "kernels/exports.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr ColumnSumsKernels<T> column_sums_kernels = {
    .largest = kColumnSumsKernel,
    .largest_together = kColumnSumsTogether,
    .largest_in_turn = kColumnSumsInTurn,
    .outputs = kColumnSumsOutputs,
    .run = column_sums<T>,
    .run_in_turn = column_sums_in_turn<T>,
};

}  // namespace

constexpr ColumnSumsKernels<float> column_sums_float32 = column_sums_kernels<float>;
constexpr ColumnSumsKernels<double> column_sums_float64 = column_sums_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
