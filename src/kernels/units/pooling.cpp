#include "kernels/exports.hpp"
#include "kernels/pooling.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {

constexpr PoolingKernels<float> pooling_float32 = {.max = pool_max<float>, .sum = pool_sum<float>};
constexpr PoolingKernels<double> pooling_float64 = {.max = pool_max<double>,
                                                    .sum = pool_sum<double>};

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
