#include <algorithm>
#include <initializer_list>
#include <string>

#include "convolith/error.hpp"
#include "convolith/pooling.hpp"

namespace convolith {
namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

void require_at_least(const char* argument, std::int64_t value, std::int64_t least,
                      const std::string& where = {}) {
  if (value < least) {
    throw InvalidArgument(std::string(argument) + " is " + text(value) + where +
                          "; it must be at least " + text(least));
  }
}

/// The first spatial axis of an array, for messages.
int first_axis(Layout layout, bool batched) {
  return (layout == Layout::channels_first ? 1 : 0) + (batched ? 1 : 0);
}

template <class Spec>
void check_extents(const Spec& spec) {
  if (spec.rank < 1 || spec.rank > kSpatialAxes) {
    throw InvalidArgument("rank is " + text(spec.rank) + "; it must be 1, 2 or 3");
  }
  require_at_least("batch", spec.batch, 0);
  require_at_least("channels", spec.channels, 1);
}

/// Padding of more than half the window could leave a window without any element.
void check_padding(const WindowSpec& window, int axis) {
  if (window.rule != PaddingRule::explicit_amounts) return;
  require_at_least("kernel_size", window.kernel, 1, " on axis " + text(axis));
  require_at_least("dilation", window.dilation, 1, " on axis " + text(axis));
  const std::int64_t effective =
      checked_add(checked_multiply(window.dilation, window.kernel - 1, "dilation * (kernel - 1)"),
                  1, "effective kernel");
  for (std::int64_t amount : {window.before, window.after}) {
    if (amount > effective / 2) {
      std::string kernel = "kernel " + text(window.kernel);
      if (window.dilation != 1) {
        kernel += " (dilation " + text(window.dilation) + ": effective " + text(effective) + ")";
      }
      throw InvalidArgument("padding is " + text(amount) + " on axis " + text(axis) +
                            "; pooling allows at most half the " + kernel + ", " +
                            text(effective / 2));
    }
  }
}

void check_bytes(const char* what, std::initializer_list<std::int64_t> factors) {
  std::int64_t product = 1;
  for (std::int64_t factor : factors) product = checked_multiply(product, factor, what);
}

}  // namespace

PoolProblem PoolProblem::make(const PoolSpec& spec) {
  check_extents(spec);
  PoolProblem problem;
  problem.op = spec.op;
  problem.dtype = spec.dtype;
  problem.layout = spec.layout;
  problem.rank = spec.rank;
  problem.batch = spec.batch;
  problem.channels = spec.channels;
  problem.adaptive = spec.adaptive;
  problem.count_include_pad = spec.count_include_pad;
  problem.divisor_override = spec.divisor_override;
  problem.norm_type = spec.norm_type;
  for (int i = 0; i < spec.rank; ++i) {
    const int axis = first_axis(spec.layout, spec.batched) + i;
    const WindowSpec& given = spec.windows[i];
    Window& window = problem.windows[kSpatialAxes - spec.rank + i];
    if (spec.adaptive) {
      const std::string where = " on axis " + text(axis);
      require_at_least("input extent", given.input, 1, where);
      require_at_least("output_size", given.output, 1, where);
      checked_multiply(given.input, given.output, "input extent * output_size");
      window.input = given.input;
      window.output = given.output;
    } else {
      check_padding(given, axis);
      window = make_window(given, axis, spec.rounding);
    }
  }
  if (spec.divisor_override && *spec.divisor_override == 0) {
    throw InvalidArgument("divisor_override is 0; it must be any other integer");
  }
  if (!(spec.norm_type > 0)) {
    throw InvalidArgument("norm_type is " + std::to_string(spec.norm_type) +
                          "; it must be greater than 0");
  }

  const auto& w = problem.windows;
  const auto bytes = static_cast<std::int64_t>(size_of(spec.dtype));
  check_bytes("size of x in bytes",
              {spec.batch, spec.channels, w[0].input, w[1].input, w[2].input, bytes});
  check_bytes("size of indices in bytes",
              {spec.batch, spec.channels, w[0].output, w[1].output, w[2].output, 8});
  check_bytes("pixels of x", {w[0].input, w[1].input, w[2].input});
  check_bytes("pixels of y", {w[0].output, w[1].output, w[2].output});
  // Kernels keep distances within a window, padding included, in lanes as wide as the elements.
  constexpr std::int64_t kMostPixels = std::int64_t{1} << 30;
  if (spec.op == PoolOp::max && spec.dtype == DType::float32 &&
      problem.input_pixels() > kMostPixels) {
    throw Unsupported("max pooling of float32 takes at most " + text(kMostPixels) +
                      " pixels per channel; x has " + text(problem.input_pixels()) +
                      " (float64 has no such limit)");
  }
  return problem;
}

std::int64_t PoolProblem::input_pixels() const noexcept {
  return windows[0].input * windows[1].input * windows[2].input;
}

std::int64_t PoolProblem::output_pixels() const noexcept {
  return windows[0].output * windows[1].output * windows[2].output;
}

UnpoolProblem UnpoolProblem::make(const UnpoolSpec& spec) {
  check_extents(spec);
  UnpoolProblem problem;
  problem.dtype = spec.dtype;
  problem.layout = spec.layout;
  problem.rank = spec.rank;
  problem.batch = spec.batch;
  problem.channels = spec.channels;
  problem.pooled = problem.unpooled = {1, 1, 1};
  for (int i = 0; i < spec.rank; ++i) {
    const int axis = first_axis(spec.layout, spec.batched) + i;
    const std::string where = " on axis " + text(axis);
    const WindowSpec& window = spec.windows[i];
    require_at_least("input extent", window.input, 1, where);
    require_at_least("kernel_size", window.kernel, 1, where);
    require_at_least("stride", window.stride, 1, where);
    std::int64_t extent = 0;
    if (window.rule == PaddingRule::same || window.rule == PaddingRule::same_lower) {
      extent = checked_multiply(window.input, window.stride, "input * stride");
    } else {
      extent = checked_multiply(window.input - 1, window.stride, "(input - 1) * stride");
      extent = checked_add(extent, window.kernel, "(input - 1) * stride + kernel");
      if (window.rule == PaddingRule::explicit_amounts) {
        require_at_least("padding", window.before, 0, where);
        require_at_least("padding", window.after, 0, where);
        check_padding(window, axis);
        extent -= window.before + window.after;
      }
    }
    if (spec.output_size) {
      const std::int64_t asked = (*spec.output_size)[i];
      // extent - stride < asked < extent + stride
      if (asked < 1 || asked <= extent - window.stride || asked - window.stride >= extent) {
        throw InvalidArgument("output_size is " + text(asked) + where + "; it must lie in " +
                              text(std::max<std::int64_t>(1, extent - window.stride + 1)) + " to " +
                              text(checked_add(extent, window.stride - 1, "output extent")));
      }
      extent = asked;
    }
    if (extent < 1) {
      throw InvalidArgument("the unpooled extent comes out as " + text(extent) + where +
                            ": padding is too large for the input and kernel");
    }
    problem.pooled[kSpatialAxes - spec.rank + i] = window.input;
    problem.unpooled[kSpatialAxes - spec.rank + i] = extent;
  }
  const auto bytes = static_cast<std::int64_t>(size_of(spec.dtype));
  const auto& in = problem.pooled;
  const auto& out = problem.unpooled;
  check_bytes("size of indices in bytes", {spec.batch, spec.channels, in[0], in[1], in[2], 8});
  check_bytes("size of y in bytes", {spec.batch, spec.channels, out[0], out[1], out[2], bytes});
  check_bytes("pixels of x", {in[0], in[1], in[2]});
  check_bytes("pixels of y", {out[0], out[1], out[2]});
  return problem;
}

}  // namespace convolith
