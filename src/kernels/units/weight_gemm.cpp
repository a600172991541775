#include "kernels/exports.hpp"
#include "kernels/pixel_gradient.inl.hpp"
#include "kernels/weight_gemm.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr WeightGemmKernels<T> weight_gemm_kernels = {
    .tile = weight_gemm_tile<T>,
    .pack_rows = weight_gemm_pack_rows<T>,
    .pixel_taps = kPixelTaps,
    .pixel_channels = pixel_channels,
    .pixel_tile = pixel_gradient_tile<T>,
};

}  // namespace

constexpr WeightGemmKernels<float> weight_gemm_float32 = weight_gemm_kernels<float>;
constexpr WeightGemmKernels<double> weight_gemm_float64 = weight_gemm_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
