// Compiled once per ISA, as every file of this folder: the table, with the kernels of dense
// convolution and the small ones that everything uses.

#include "kernels/direct.inl.hpp"
#include "kernels/elementwise.inl.hpp"
#include "kernels/exports.hpp"
#include "kernels/gemm.inl.hpp"
#include "kernels/interleaving.inl.hpp"
#include "kernels/patches.inl.hpp"
#include "kernels/peak.inl.hpp"
#include "kernels/pixel_tile.inl.hpp"
#include "kernels/weight_gradient.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
constexpr Kernels<T> kernels_of(
    const ColumnSumsKernels<T>& column_sums, const DepthwiseKernels<T>& depthwise,
    const FftKernels<T>& fft, const GroupedKernels<T>& grouped,
    const NarrowGradientKernels<T>& narrow_gradient, const PoolingKernels<T>& pooling,
    const TrainingKernels<T>& training, const WeightGemmKernels<T>& weight_gemm,
    const WinogradKernels<T>& winograd, const WinogradGradientKernels<T>& winograd_gradient) {
  return {
      .lanes = kLanes<T>,
      .tile_rows = kTileRows,
      .overlapping_rows = kOverlappingRows,
      .tile_columns = kTileColumns<T>,
      .paired_rows = kPairedRows,
      .gemm_tile = gemm_tile<T>,
      .pixel_shape = pixel_shape<T>,
      .pixel_tile = pixel_tile<T>,
      .interleaved_channels = kMostInterleaved<T>,
      .thin_rows = kThinRows,
      .gemm_offsets_tile = gemm_offsets_tile<T>,
      .dot_products = dot_products<T>,
      .pack_panel = pack_panel<T>,
      .copy_segments = copy_segments<T>,
      .drain_streams = drain_streams,
      .clear_rows = clear_rows<T>,
      .copy_strided = copy_strided<T>,
      .transpose = transpose_matrix<T>,
      .split_channels = split_channels<T>,
      .pack_taps = pack_taps<T>,
      .gather_channels_last = gather_channels_last<T>,
      .gather_terms_channels_last = gather_terms_channels_last<T>,
      .gather_channels_first = gather_channels_first<T>,
      .gather_depthwise = gather_depthwise<T>,
      .weight_gradient_channels_last = weight_gradient_channels_last<T>,
      .weight_gradient_channels_first = weight_gradient_channels_first<T>,
      .gradient_block = kGradientBlock,
      .weight_gradient_depthwise = weight_gradient_depthwise<T>,
      .epilogue = epilogue<T>,
      .add = add<T>,
      .sum = sum<T>,
      .column_sums = &column_sums,
      .depthwise = &depthwise,
      .fft = &fft,
      .grouped = &grouped,
      .narrow_gradient = &narrow_gradient,
      .pooling = &pooling,
      .training = &training,
      .weight_gemm = &weight_gemm,
      .winograd = &winograd,
      .winograd_gradient = &winograd_gradient,
      .fma_rounds = fma_rounds<T>,
  };
}

}  // namespace

constexpr KernelTable kernel_table = {
    .isa = CONVOLITH_ISA_STRING,
    .vector_bytes = kVectorBytes,
    .float32 = kernels_of<float>(column_sums_float32, depthwise_float32, fft_float32,
                                 grouped_float32, narrow_gradient_float32, pooling_float32,
                                 training_float32, weight_gemm_float32, winograd_float32,
                                 winograd_gradient_float32),
    .float64 = kernels_of<double>(column_sums_float64, depthwise_float64, fft_float64,
                                  grouped_float64, narrow_gradient_float64, pooling_float64,
                                  training_float64, weight_gemm_float64, winograd_float64,
                                  winograd_gradient_float64),
};

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
