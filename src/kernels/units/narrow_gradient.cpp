#include "kernels/exports.hpp"
#include "kernels/narrow_gradient.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr NarrowGradientKernels<T> narrow_gradient_kernels = {
    .most_rows = kNarrowRows,
    .most_columns = kNarrowColumns,
    .most_sums = kNarrowSums,
    .most_rolled_sums = kNarrowRolledSums,
    .channels = {Narrow<T, 1>::run, Narrow<T, 2>::run, Narrow<T, 4>::run, Narrow<T, 8>::run},
};

}  // namespace

constexpr NarrowGradientKernels<float> narrow_gradient_float32 = narrow_gradient_kernels<float>;
constexpr NarrowGradientKernels<double> narrow_gradient_float64 = narrow_gradient_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
