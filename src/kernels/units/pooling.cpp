#include "kernels/exports.hpp"
#include "kernels/pooling.inl.hpp"
#include "kernels/pooling_gradient.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr PoolingKernels<T> pooling_kernels = {
    .max = pool_max<T>,
    .sum = pool_sum<T>,
    .gradient = pool_gradient<T>,
    .narrow = narrow_indices<T>,
};

}  // namespace

constexpr PoolingKernels<float> pooling_float32 = pooling_kernels<float>;
constexpr PoolingKernels<double> pooling_float64 = pooling_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
