#include "convolith/window.hpp"

#include <algorithm>
#include <limits>

#include "arithmetic.hpp"
#include "convolith/error.hpp"

namespace convolith {
namespace {

std::string on_axis(int axis) { return " on axis " + std::to_string(axis); }

std::string number(const char* name, std::int64_t value) {
  return std::string(name) + " is " + std::to_string(value);
}

void require_at_least(const char* name, std::int64_t value, std::int64_t least, int axis) {
  if (value < least) {
    throw InvalidArgument(number(name, value) + on_axis(axis) + "; it must be at least " +
                          std::to_string(least));
  }
}

void check_positive(const WindowSpec& spec, int axis) {
  require_at_least("kernel", spec.kernel, 1, axis);
  require_at_least("stride", spec.stride, 1, axis);
  require_at_least("dilation", spec.dilation, 1, axis);
  if (spec.rule == PaddingRule::explicit_amounts) {
    require_at_least("padding", spec.before, 0, axis);
    require_at_least("padding", spec.after, 0, axis);
  }
}

std::int64_t effective_kernel(const WindowSpec& spec) {
  return checked_add(checked_multiply(spec.dilation, spec.kernel - 1, "dilation * (kernel - 1)"), 1,
                     "dilation * (kernel - 1) + 1");
}

}  // namespace

std::int64_t checked_multiply(std::int64_t a, std::int64_t b, const char* what) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    throw Overflow(std::string(what) + ": " + std::to_string(a) + " * " + std::to_string(b) +
                   " does not fit 64 bits");
  }
  return result;
}

std::int64_t checked_add(std::int64_t a, std::int64_t b, const char* what) {
  std::int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) {
    throw Overflow(std::string(what) + ": " + std::to_string(a) + " + " + std::to_string(b) +
                   " does not fit 64 bits");
  }
  return result;
}

Window make_window(const WindowSpec& spec, int axis, Rounding rounding) {
  require_at_least("input extent", spec.input, 1, axis);
  check_positive(spec, axis);
  const std::int64_t effective = effective_kernel(spec);

  Window window{spec.input, spec.kernel, spec.stride, spec.dilation, 0, 0, 0};
  if (spec.rule == PaddingRule::explicit_amounts) {
    window.before = spec.before;
    window.after = spec.after;
  } else if (spec.rule != PaddingRule::valid) {
    // out = ceil(n / s); total = max(0, (out - 1) * s + effective - n)
    const std::int64_t output = (spec.input - 1) / spec.stride + 1;
    const std::int64_t reach =
        checked_add((output - 1) * spec.stride, effective, "(output - 1) * stride + kernel");
    const std::int64_t total = std::max<std::int64_t>(0, reach - spec.input);
    const bool odd_at_start = spec.rule == PaddingRule::same_lower;
    window.before = odd_at_start ? total - total / 2 : total / 2;
    window.after = total - window.before;
  }

  const std::int64_t padded =
      checked_add(checked_add(spec.input, window.before, "input + padding"), window.after,
                  "input + padding");
  // Beyond the padded input every stride, and of a single tap every dilation, is as good as any
  // other; these multiply without overflow.
  const std::int64_t farthest = std::max<std::int64_t>(padded, INT32_MAX);
  window.stride = std::min(spec.stride, farthest);
  if (spec.kernel == 1) window.dilation = std::min(spec.dilation, farthest);

  // In ceil mode the formula rules even where the window outgrows the input.
  if (effective > padded && rounding == Rounding::floor) {
    std::string kernel = "kernel " + std::to_string(spec.kernel);
    if (spec.dilation != 1) {
      kernel += " (dilation " + std::to_string(spec.dilation) + ": effective " +
                std::to_string(effective) + ")";
    }
    throw InvalidArgument(kernel + " is larger than padded input " + std::to_string(padded) +
                          on_axis(axis));
  }
  const std::int64_t slack = padded - effective;
  if (rounding == Rounding::floor) {
    window.output = window.fitting_windows();
  } else {
    // ceil(slack / s) + 1, less the last window if it would begin beyond n + before
    window.output = divide_up(slack, window.stride) + 1;
    if (window.output > divide_up(spec.input + window.before, window.stride)) {
      --window.output;
    }
    if (window.output < 1) {
      throw InvalidArgument("kernel " + std::to_string(spec.kernel) +
                            " leaves no output: padded input is " + std::to_string(padded) +
                            on_axis(axis));
    }
  }
  if (spec.output != 0) {
    if (spec.output < 1 || spec.output > window.output) {
      throw InvalidArgument(number("output extent", spec.output) + on_axis(axis) +
                            "; the windows that fit are " + std::to_string(window.output));
    }
    window.output = spec.output;
  }
  return window;
}

WindowSpec transposed_window(WindowSpec spec, std::int64_t transposed_input,
                             std::int64_t output_padding, std::optional<std::int64_t> output_size,
                             int axis) {
  require_at_least("input extent", transposed_input, 1, axis);
  check_positive(spec, axis);
  const bool same = spec.rule == PaddingRule::same || spec.rule == PaddingRule::same_lower;
  require_at_least("output_padding", output_padding, 0, axis);
  const std::int64_t limit = std::max(spec.stride, spec.dilation);
  if (output_padding >= limit && !output_size) {
    throw InvalidArgument(number("output_padding", output_padding) + on_axis(axis) +
                          "; it must be smaller than stride " + std::to_string(spec.stride) +
                          " or dilation " + std::to_string(spec.dilation));
  }
  if (same && output_padding != 0) {
    throw InvalidArgument(number("output_padding", output_padding) + on_axis(axis) +
                          "; with padding 'same' it must be 0 (give output_size instead)");
  }

  // The least extent that the forward window maps to transposed_input.
  std::int64_t least = 0;
  std::int64_t greatest = 0;
  const std::int64_t steps =
      checked_multiply(transposed_input - 1, spec.stride, "(input - 1) * stride");
  if (same) {
    least = steps + 1;
    greatest = checked_add(steps, spec.stride, "input * stride");
  } else {
    if (spec.rule == PaddingRule::valid) spec.before = spec.after = 0;
    // (n - 1) * s - before - after + d * (k - 1) + 1
    least = checked_add(steps, effective_kernel(spec), "(input - 1) * stride + kernel");
    least = checked_add(least, -checked_add(spec.before, spec.after, "padding"), "output extent");
    greatest = checked_add(least, limit - 1, "output extent");
  }
  spec.input = same ? greatest : checked_add(least, output_padding, "output extent");
  if (output_size) {
    if (*output_size < least || *output_size > greatest) {
      throw InvalidArgument(number("output_size", *output_size) + on_axis(axis) +
                            "; it must lie in " + std::to_string(least) + " to " +
                            std::to_string(greatest));
    }
    spec.input = *output_size;
  }
  if (spec.input < 1) {
    throw InvalidArgument("the transposed output extent comes out as " +
                          std::to_string(spec.input) + on_axis(axis) +
                          ": padding is too large for the input and kernel");
  }
  // Where the dilation exceeds the stride, output_padding may add room for further windows.
  spec.output = transposed_input;
  return spec;
}

}  // namespace convolith
