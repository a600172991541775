// Compiled once per ISA, with that ISA's flags and CONVOLITH_ISA_NAMESPACE set to its name. It
// exports one table and nothing else.

#include "kernels/direct.inl.hpp"
#include "kernels/elementwise.inl.hpp"
#include "kernels/gemm.inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/peak.inl.hpp"
#include "kernels/pooling.inl.hpp"
#include "kernels/weight_gradient.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr Kernels<T> kernels_of() {
  return {
      .lanes = kLanes<T>,
      .tile_rows = kTileRows,
      .tile_columns = kTileColumns<T>,
      .gemm_tile = gemm_tile<T>,
      .pack_panel = pack_panel<T>,
      .gather_channels_last = gather_channels_last<T>,
      .gather_channels_first = gather_channels_first<T>,
      .gather_depthwise = gather_depthwise<T>,
      .weight_gradient_channels_last = weight_gradient_channels_last<T>,
      .weight_gradient_channels_first = weight_gradient_channels_first<T>,
      .gradient_block = kGradientBlock,
      .weight_gradient_depthwise = weight_gradient_depthwise<T>,
      .epilogue = epilogue<T>,
      .add = add<T>,
      .sum = sum<T>,
      .pooling = {.max = pool_max<T>, .sum = pool_sum<T>},
      .fma_rounds = fma_rounds<T>,
  };
}

}  // namespace

extern const KernelTable kernel_table;
constexpr KernelTable kernel_table = {
    .isa = CONVOLITH_ISA_STRING,
    .vector_bytes = kVectorBytes,
    .float32 = kernels_of<float>(),
    .float64 = kernels_of<double>(),
};

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
