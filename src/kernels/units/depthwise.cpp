#include "kernels/depthwise.inl.hpp"
#include "kernels/exports.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr DepthwiseKernels<T> depthwise_kernels = {
    .roll_rows = {depthwise_roll_rows(3), depthwise_roll_rows(5), depthwise_roll_rows(7)},
    .kernel_in_place = kKernelInPlace,
    .roll = depthwise_roll<T>,
    .blocks = depthwise_blocks<T>,
    .rows = depthwise_rows<T>,
    .flat = depthwise_flat<T>,
};

}  // namespace

constexpr DepthwiseKernels<float> depthwise_float32 = depthwise_kernels<float>;
constexpr DepthwiseKernels<double> depthwise_float64 = depthwise_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
