#include "kernels/exports.hpp"
#include "kernels/winograd_gradient.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr WinogradGradientKernels<T> winograd_gradient_kernels = {
    .square = {winograd_gradient<T, 2, 3>(), winograd_gradient<T, 4, 3>(),
               winograd_gradient<T, 6, 3>(), winograd_gradient<T, 2, 5>(),
               winograd_gradient<T, 4, 5>()},
};

}  // namespace

constexpr WinogradGradientKernels<float> winograd_gradient_float32 =
    winograd_gradient_kernels<float>;
constexpr WinogradGradientKernels<double> winograd_gradient_float64 =
    winograd_gradient_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
