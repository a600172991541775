#include "kernels/exports.hpp"
#include "kernels/grouped.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr GroupedKernels<T> grouped_kernels = {
    .block_rows = kGroupedBlockRows,
    .block_columns = kGroupedBlockColumns,
    .channel_block = kGroupedChannelBlock,
    .blocks = grouped_blocks<T>,
    .rows = grouped_rows<T>,
};

}  // namespace

constexpr GroupedKernels<float> grouped_float32 = grouped_kernels<float>;
constexpr GroupedKernels<double> grouped_float64 = grouped_kernels<double>;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
