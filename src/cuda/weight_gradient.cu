#include "cuda/weight_gradient.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "cuda/device.hpp"
#include "cuda/kernels/simt_gemm.cuh"
#include "cuda/launch.hpp"
#include "cuda/parts.cuh"
#include "cuda/patches.hpp"

namespace convolith::cuda {
namespace {

/// What of a tile's slice a thread loads: neighbouring threads have neighbouring lines (rows or
/// columns) where channels touch, neighbouring pixels where those do.
template <class Gemm, int kLines, bool kChannelsTouch>
struct SliceShare {
  static constexpr int kAlong = kChannelsTouch ? kLines : Gemm::kDepth;
  static constexpr int kStep = Gemm::kThreads / kAlong;  ///< of what they are not along
  static constexpr int kDepthSlots = kChannelsTouch ? Gemm::kDepth / kStep : 1;
  static constexpr int kDepthStep = kChannelsTouch ? kStep : Gemm::kDepth;
  static constexpr int kLineSlots = kChannelsTouch ? 1 : kLines / kStep;
  static constexpr int kLineStep = kChannelsTouch ? kLines : kStep;

  int line, depth;

  __device__ SliceShare() {
    const auto thread = static_cast<int>(threadIdx.x);
    line = kChannelsTouch ? thread % kAlong : thread / kAlong;
    depth = kChannelsTouch ? thread / kAlong : thread % kAlong;
  }

  template <class T, class Number>
  __device__ void store(const T (&held)[kDepthSlots * kLineSlots], Number* slice,
                        int pitch) const {
#pragma unroll
    for (int d = 0; d < kDepthSlots; ++d) {
#pragma unroll
      for (int i = 0; i < kLineSlots; ++i) {
        slice[(depth + d * kDepthStep) * pitch + line + i * kLineStep] =
            widen(held[d * kLineSlots + i]);
      }
    }
  }
};

/// Rows of the product: output channels, of dy.
template <class T, class Gemm, bool kChannelsTouch>
class GradientRows {
  using Share = SliceShare<Gemm, Gemm::kRows, kChannelsTouch>;

 public:
  __device__ GradientRows(const PatchGeometry& g, const Maps<const T>& dy, int group,
                          int first_row, int begin, int end)
      : g_(g), dy_(dy), left_(end - begin - share_.depth) {
    walk_.start(g, begin + share_.depth);
    for (int i = 0; i < Share::kLineSlots; ++i) {
      const int row = first_row + share_.line + i * Share::kLineStep;
      channel_[i] = row < g.out_channels ? group * g.out_channels + row : -1;
    }
  }

  __device__ void load() {
#pragma unroll
    for (int d = 0; d < Share::kDepthSlots; ++d) {
      const std::int64_t pixel =
          walk_.sample * dy_.sample_stride + walk_.pixel(g_) * dy_.pixel_stride;
#pragma unroll
      for (int i = 0; i < Share::kLineSlots; ++i) {
        held_[d * Share::kLineSlots + i] =
            left_ > 0 && channel_[i] >= 0 ? dy_.data[pixel + channel_[i] * dy_.channel_stride]
                                          : T{};
      }
      walk_.advance(g_, Share::kDepthStep);
      left_ -= Share::kDepthStep;
    }
  }
  __device__ void store(Wide<T>* slice) const { share_.store(held_, slice, Gemm::kRowPitch); }

 private:
  const PatchGeometry& g_;
  const Maps<const T>& dy_;
  Share share_;
  int left_;
  PixelWalk walk_;
  std::int64_t channel_[Share::kLineSlots];
  T held_[Share::kDepthSlots * Share::kLineSlots];
};

/// Columns of the product: (tap, input channel), of x.
template <class T, class Gemm, bool kChannelsTouch>
class PatchColumns {
  using Share = SliceShare<Gemm, Gemm::kColumns, kChannelsTouch>;

 public:
  __device__ PatchColumns(const PatchGeometry& g, const Maps<const T>& x, int group,
                          int first_column, int begin, int end)
      : g_(g), x_(x), left_(end - begin - share_.depth) {
    walk_.start(g, begin + share_.depth);
    for (int i = 0; i < Share::kLineSlots; ++i) {
      const int column = first_column + share_.line + i * Share::kLineStep;
      taps_[i] = patch_tap(g, column < g.columns() ? column : 0);
      channel_[i] = column < g.columns() ? group * g.in_channels + column % g.in_channels : -1;
    }
  }

  __device__ void load() {
#pragma unroll
    for (int d = 0; d < Share::kDepthSlots; ++d) {
#pragma unroll
      for (int i = 0; i < Share::kLineSlots; ++i) {
        const std::int64_t pixel =
            left_ > 0 && channel_[i] >= 0 ? walk_.source(g_, taps_[i]) : -1;
        held_[d * Share::kLineSlots + i] =
            pixel >= 0 ? x_.data[walk_.sample * x_.sample_stride + pixel * x_.pixel_stride +
                                 channel_[i] * x_.channel_stride]
                       : T{};
      }
      walk_.advance(g_, Share::kDepthStep);
      left_ -= Share::kDepthStep;
    }
  }
  __device__ void store(Wide<T>* slice) const { share_.store(held_, slice, Gemm::kColumnPitch); }

 private:
  const PatchGeometry& g_;
  const Maps<const T>& x_;
  Share share_;
  int left_;
  PixelWalk walk_;
  PatchTap taps_[Share::kLineSlots];
  std::int64_t channel_[Share::kLineSlots];
  T held_[Share::kDepthSlots * Share::kLineSlots];
};

template <class T>
using GemmFor = SimtGemm<Wide<T>, sizeof(T) == 8 ? 64 : 128, false>;

template <class T, bool kChannelsTouch>
__global__ void __launch_bounds__(256)
    multiply(const __grid_constant__ PatchGeometry g, const __grid_constant__ Maps<const T> dy,
             const __grid_constant__ Maps<const T> x, int pixels_of_part, Wide<T>* parts) {
  using Gemm = GemmFor<T>;
  const int row_tiles = (g.out_channels + Gemm::kRows - 1) / Gemm::kRows;
  const int column_tiles = (g.columns() + Gemm::kColumns - 1) / Gemm::kColumns;
  int tile = static_cast<int>(blockIdx.x);
  const int first_row = tile % row_tiles * Gemm::kRows;
  tile /= row_tiles;
  const int first_column = tile % column_tiles * Gemm::kColumns;
  tile /= column_tiles;
  const int group = tile % g.groups;
  const int part = tile / g.groups;
  const int begin = part * pixels_of_part;
  const int end = begin + pixels_of_part < g.terms() ? begin + pixels_of_part : g.terms();

  GradientRows<T, Gemm, kChannelsTouch> rows(g, dy, group, first_row, begin, end);
  PatchColumns<T, Gemm, kChannelsTouch> columns(g, x, group, first_column, begin, end);
  const int steps = end > begin ? (end - begin + Gemm::kDepth - 1) / Gemm::kDepth : 0;
  const Wide<T>* const sums = Gemm::run(rows, columns, steps);
  Gemm::for_each_element([&](int row, int column) {
    if (first_row + row >= g.out_channels || first_column + column >= g.columns()) return;
    const std::int64_t line = (std::int64_t{part} * g.groups + group) * g.out_channels +
                              first_row + row;
    parts[line * g.columns() + first_column + column] = sums[row * Gemm::kResultPitch + column];
  });
}

template <class T>
class WeightGradient final : public Execution {
 public:
  WeightGradient(const ConvProblem& problem, const Device& device)
      : problem_(problem),
        geometry_(patch_geometry(problem)),
        tiles_(divide_up(geometry_.out_channels, GemmFor<T>::kRows) *
               divide_up(geometry_.columns(), GemmFor<T>::kColumns) * geometry_.groups),
        // Enough blocks for the device, and parts long enough to be worth adding up.
        parts_(geometry_.terms(), divide_up(2 * device.multiprocessors, tiles_), 512,
               geometry_.terms() + 1, GemmFor<T>::kDepth) {}

  std::size_t workspace_bytes() const noexcept override {
    return static_cast<std::size_t>(parts_.count * problem_.weight_size()) * sizeof(Wide<T>);
  }

  void run(const ConvArguments& arguments, const void*, void* workspace) const noexcept override {
    if (problem_.layout == Layout::channels_last) {
      multiply_parts<true>(arguments, static_cast<Wide<T>*>(workspace));
    } else {
      multiply_parts<false>(arguments, static_cast<Wide<T>*>(workspace));
    }
    enqueue_add_parts<T>(geometry_, parts_.count, workspace, arguments.weight);
  }

 private:
  template <bool kChannelsTouch>
  void multiply_parts(const ConvArguments& arguments, Wide<T>* parts) const {
    using Gemm = GemmFor<T>;
    const auto steps = static_cast<int>(divide_up(parts_.pixels, Gemm::kDepth));
    launch(multiply<T, kChannelsTouch>, static_cast<unsigned>(tiles_ * parts_.count), Gemm::kThreads,
           Gemm::shared_bytes(steps), geometry_, typed<const T>(arguments.y),
           typed<const T>(arguments.x), static_cast<int>(parts_.pixels), parts);
  }

  ConvProblem problem_;
  PatchGeometry geometry_;
  std::int64_t tiles_;
  Parts parts_;
};

}  // namespace

std::unique_ptr<const Execution> make_weight_gradient(const ConvProblem& problem,
                                                      const Machine& machine) {
  return with_type(problem.dtype, [&](auto zero) -> std::unique_ptr<const Execution> {
    return std::make_unique<WeightGradient<decltype(zero)>>(problem, *machine.device);
  });
}

}  // namespace convolith::cuda
