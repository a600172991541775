#include "kernels/exports.hpp"
#include "kernels/fft.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr FftKernels<T> fft_kernels() {
  return {
      .scratch_size = fft_scratch_size<T>,
      .forward = fft_forward<T>,
      .inverse = fft_inverse<T>,
      .depthwise = fft_depthwise<T>,
      .weights = fft_weights<T>,
      .product = fft_product<T>,
  };
}

}  // namespace

constexpr FftKernels<float> fft_float32 = fft_kernels<float>();
constexpr FftKernels<double> fft_float64 = fft_kernels<double>();

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
