#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "convolith/types.hpp"
#include "convolith/window.hpp"

namespace convolith {

/// Problems of every rank live in three spatial axes; the leading ones have extent 1 and kernel 1.
inline constexpr int kSpatialAxes = 3;

const char* name(Direction) noexcept;
const char* name(DType) noexcept;
const char* name(Layout) noexcept;
const char* name(PaddingMode) noexcept;
const char* name(Activation) noexcept;
const char* name(Numerics) noexcept;

/// The enumerator called `text`; InvalidArgument listing the legal names, under `argument`.
template <class Enum>
Enum parse_name(std::string_view text, const char* argument);

std::size_t size_of(DType) noexcept;

/// out = activation(convolution + bias + residual), where out is the tensor that the direction
/// writes. backward_weight has no epilogue.
struct Epilogue {
  bool bias = false;
  bool residual = false;
  Activation activation = Activation::none;
  double slope = 0.01;  ///< of leaky_relu, for negative arguments

  bool empty() const noexcept {
    return !bias && !residual && activation == Activation::none;
  }
  bool operator==(const Epilogue&) const = default;
};

/// What a caller says; the spatial arrays hold `rank` entries from index 0.
struct ConvSpec {
  Direction direction = Direction::forward;
  DType dtype = DType::float32;
  Layout layout = Layout::channels_first;
  int rank = 2;
  bool batched = true;  ///< whether the arrays have a batch axis: messages count axes
  std::int64_t batch = 1;
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  std::int64_t groups = 1;
  std::array<WindowSpec, kSpatialAxes> windows{};
  PaddingMode padding_mode = PaddingMode::zeros;
  Epilogue epilogue{};
};

/// A convolution, whole: every number describes the forward convolution
///   y[n, k, o] = sum over c, t of x[n, c, o * stride + t * dilation - before] * weight[k, c, t];
/// the direction says which of x, y and weight is computed from the other two. Transposed
/// convolution is backward_input with an epilogue. Values of this type are always legal.
class ConvProblem {
 public:
  /// The array axis of spatial axis i, as messages name it.
  static int array_axis(int i, Layout layout, bool batched) noexcept {
    return i + (layout == Layout::channels_first ? 1 : 0) + (batched ? 1 : 0);
  }

  /// Checks meaning: positive extents, groups that divide, kernels that fit, 64-bit sizes.
  static ConvProblem make(const ConvSpec& spec);

  /// The text form, such as "conv2d n8 c64 i56x56 k128 f3x3 s2 p1 channels_last".
  static ConvProblem parse(std::string_view text);
  std::string str() const;

  Direction direction;
  DType dtype;
  Layout layout;
  PaddingMode padding_mode;
  int rank;
  std::int64_t batch;
  std::int64_t in_channels;
  std::int64_t out_channels;
  std::int64_t groups;
  std::array<Window, kSpatialAxes> windows;  ///< axes 3 - rank and up are the problem's own
  Epilogue epilogue;

  std::int64_t in_channels_per_group() const noexcept { return in_channels / groups; }
  std::int64_t out_channels_per_group() const noexcept { return out_channels / groups; }
  std::int64_t input_pixels() const noexcept;   ///< of one sample and channel
  std::int64_t output_pixels() const noexcept;
  std::int64_t taps() const noexcept;           ///< kernel elements of one channel
  std::int64_t x_size() const noexcept { return batch * in_channels * input_pixels(); }
  std::int64_t y_size() const noexcept { return batch * out_channels * output_pixels(); }
  std::int64_t weight_size() const noexcept {
    return out_channels * in_channels_per_group() * taps();
  }
  /// 2 * multiply-adds of the direct method, padding counted.
  double flops() const noexcept;

  bool operator==(const ConvProblem&) const = default;

 private:
  ConvProblem() = default;
};

}  // namespace convolith
