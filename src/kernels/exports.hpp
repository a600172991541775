#pragma once

// What the files of units/ export: constant tables, nothing else. The kernel table points to the
// others, so that each family of kernels compiles on its own.

#include "kernels/kernel_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {

extern const KernelTable kernel_table;
extern const ColumnSumsKernels<float> column_sums_float32;
extern const ColumnSumsKernels<double> column_sums_float64;
extern const DepthwiseKernels<float> depthwise_float32;
extern const DepthwiseKernels<double> depthwise_float64;
extern const FftKernels<float> fft_float32;
extern const FftKernels<double> fft_float64;
extern const GroupedKernels<float> grouped_float32;
extern const GroupedKernels<double> grouped_float64;
extern const NarrowGradientKernels<float> narrow_gradient_float32;
extern const NarrowGradientKernels<double> narrow_gradient_float64;
extern const PoolingKernels<float> pooling_float32;
extern const PoolingKernels<double> pooling_float64;
extern const TrainingKernels<float> training_float32;
extern const TrainingKernels<double> training_float64;
extern const WeightGemmKernels<float> weight_gemm_float32;
extern const WeightGemmKernels<double> weight_gemm_float64;
extern const WinogradKernels<float> winograd_float32;
extern const WinogradKernels<double> winograd_float64;
extern const WinogradGradientKernels<float> winograd_gradient_float32;
extern const WinogradGradientKernels<double> winograd_gradient_float64;

}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
