#include "kernels/activation.inl.hpp"
#include "kernels/exports.hpp"
#include "kernels/normalization.inl.hpp"
#include "kernels/optimizer.inl.hpp"
#include "kernels/softmax.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr TrainingKernels<T> training_kernels = {
    .activation = activation_pass<T>,
    .activation_gradient = activation_gradient<T>,
    .moments_of_planes = moments_of_planes<T>,
    .moments_of_rows = moments_of_rows<T>,
    .merge_moments = merge_moments,
    .normalize_planes = normalize<T, ChannelPlane>,
    .normalize_rows = normalize<T, ChannelRow>,
    .gradient_sums_of_planes = gradient_sums_of_planes<T>,
    .gradient_sums_of_rows = gradient_sums_of_rows<T>,
    .gradient_of_planes = norm_gradient<T, ChannelPlane>,
    .gradient_of_rows = norm_gradient<T, ChannelRow>,
    .softmax = softmax<T>,
    .softmax_gradient = softmax_gradient<T>,
    .cross_entropy = cross_entropy<T>,
    .sgd = sgd<T>,
    .adam = adam<T>,
};

}  // namespace

constexpr TrainingKernels<float> training_float32 = training_kernels<float>;
constexpr TrainingKernels<double> training_float64 = training_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
