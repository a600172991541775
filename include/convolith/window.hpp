#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace convolith {

/// How the padding of an axis was asked for.
enum class PaddingRule : std::uint8_t { explicit_amounts, valid, same, same_lower };

/// Which extent an output has when the last window only partly fits.
enum class Rounding : std::uint8_t { floor, ceil };

/// One axis of a sliding window, as a caller describes it.
struct WindowSpec {
  std::int64_t input = 1;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t before = 0;  ///< read where rule is explicit_amounts
  std::int64_t after = 0;
  PaddingRule rule = PaddingRule::explicit_amounts;
  std::int64_t output = 0;  ///< 0: as many as fit; a smaller number leaves the last windows out
};

/// One axis of a sliding window, checked and resolved: output o reads the inputs
/// o * stride + t * dilation - before for the taps t in [0, kernel).
struct Window {
  std::int64_t input = 1;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t before = 0;
  std::int64_t after = 0;
  std::int64_t output = 1;

  /// Distance from the first to the last tap, both included.
  std::int64_t effective_kernel() const noexcept { return dilation * (kernel - 1) + 1; }

  /// Windows that fit into the padded input; the only copy of the output-size formula.
  std::int64_t fitting_windows() const noexcept {
    return (input + before + after - effective_kernel()) / stride + 1;
  }

  bool operator==(const Window&) const = default;
};

/// Resolves the padding rule and computes the output extent.
/// Throws InvalidArgument or Overflow; `axis` is the array axis that messages name.
Window make_window(const WindowSpec& spec, int axis, Rounding rounding = Rounding::floor);

/// The window whose adjoint maps an axis of extent `transposed_input` to the output of a transposed
/// convolution: its `input` is that output's extent and its `output` is `transposed_input`.
/// The `input` and `output` of the argument are ignored. "same" gives transposed_input * stride.
WindowSpec transposed_window(WindowSpec spec, std::int64_t transposed_input,
                             std::int64_t output_padding, std::optional<std::int64_t> output_size,
                             int axis);

/// a * b and a + b; Overflow naming `what` where 64 bits do not hold the result.
std::int64_t checked_multiply(std::int64_t a, std::int64_t b, const char* what);
std::int64_t checked_add(std::int64_t a, std::int64_t b, const char* what);

}  // namespace convolith
