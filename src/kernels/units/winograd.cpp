#include "kernels/exports.hpp"
#include "kernels/winograd.inl.hpp"
#include "kernels/winograd_product.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr WinogradKernels<T> winograd_kernels() {
  return {
      .square = {winograd_square<T, 2, 3>(), winograd_square<T, 4, 3>(), winograd_square<T, 6, 3>(),
                 winograd_square<T, 2, 5>(), winograd_square<T, 4, 5>()},
      .line = {winograd_line<T, 2, 3>(), winograd_line<T, 4, 3>(), winograd_line<T, 6, 3>(),
               winograd_line<T, 2, 5>(), winograd_line<T, 4, 5>()},
      .product = winograd_product<T>,
      .store_strip = store_strip<T>,
  };
}

}  // namespace

constexpr WinogradKernels<float> winograd_float32 = winograd_kernels<float>();
constexpr WinogradKernels<double> winograd_float64 = winograd_kernels<double>();

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
