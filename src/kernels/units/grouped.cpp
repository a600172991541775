#include "kernels/exports.hpp"
#include "kernels/grouped.inl.hpp"
#include "kernels/stride_two.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr GroupedKernels<T> grouped_kernels = {
    .block_rows = kGroupedBlockRows,
    .block_columns = kGroupedBlockColumns,
    .channel_block = kGroupedChannelBlock,
    .blocks = grouped_blocks<T>,
    .rows = grouped_rows<T>,
    .stride_two =
        {
            .block_pairs = kStrideTwoPairs,
            .plane_channels = kStrideTwoChannels,
            .blocks = stride_two_blocks<T>,
            .plane = stride_two_plane<T>,
        },
};

}  // namespace

constexpr GroupedKernels<float> grouped_float32 = grouped_kernels<float>;
constexpr GroupedKernels<double> grouped_float64 = grouped_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
