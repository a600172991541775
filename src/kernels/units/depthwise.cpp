#include "kernels/depthwise.inl.hpp"
#include "kernels/exports.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr DepthwiseKernels<T> depthwise_kernels = {
    .block_rows = {depthwise_block_rows(3), depthwise_block_rows(5), depthwise_block_rows(7)},
    .block_columns = kDepthwiseColumns,
    .blocks = depthwise_blocks<T>,
    .rows = depthwise_rows<T>,
    .flat = depthwise_flat<T>,
};

}  // namespace

constexpr DepthwiseKernels<float> depthwise_float32 = depthwise_kernels<float>;
constexpr DepthwiseKernels<double> depthwise_float64 = depthwise_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
