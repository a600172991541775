#include "taps.hpp"

#include <algorithm>

#include "arithmetic.hpp"

namespace convolith {
std::int64_t padded_source(std::int64_t q, std::int64_t input, PaddingMode mode) noexcept {
  if (q >= 0 && q < input) return q;
  switch (mode) {
    case PaddingMode::zeros: return -1;
    case PaddingMode::reflect: return q < 0 ? -q : 2 * (input - 1) - q;
    case PaddingMode::replicate: return q < 0 ? 0 : input - 1;
    case PaddingMode::circular: return q < 0 ? q + input : q - input;
  }
  return -1;
}

AxisGather::AxisGather(const Window& window, PaddingMode mode, bool adjoint)
    : window_(window), mode_(mode), adjoint_(adjoint) {
  for (const Run& run : runs(destinations())) {
    std::int64_t taps = 0;
    for_each_tap(run.begin, [&](std::int64_t, std::int64_t) { ++taps; });
    most_taps_ = std::max(most_taps_, taps);
  }
}

template <class Visit>
void AxisGather::for_each_tap(std::int64_t destination, const Visit& visit) const noexcept {
  const Window& w = window_;
  if (!adjoint_) {
    for (std::int64_t t = 0; t < w.kernel; ++t) {
      const std::int64_t q = destination * w.stride + t * w.dilation - w.before;
      const std::int64_t source = padded_source(q, w.input, mode_);
      if (source >= 0) visit(t, source);
    }
    return;
  }
  // Output o reads the padded coordinate q = o * stride + t * dilation - before.
  const auto visit_readers_of = [&](std::int64_t q) {
    for (std::int64_t t = 0; t < w.kernel; ++t) {
      const std::int64_t distance = q + w.before - t * w.dilation;
      if (distance < 0) break;
      if (distance % w.stride == 0 && distance / w.stride < w.output) {
        visit(t, distance / w.stride);
      }
    }
  };
  const std::int64_t i = destination;
  const std::int64_t last = w.input - 1;
  visit_readers_of(i);
  switch (mode_) {
    case PaddingMode::zeros: break;
    case PaddingMode::reflect:
      if (i > 0 && i <= w.before) visit_readers_of(-i);
      if (i < last && last - i <= w.after) visit_readers_of(2 * last - i);
      break;
    case PaddingMode::replicate:
      if (i == 0) {
        for (std::int64_t q = -w.before; q < 0; ++q) visit_readers_of(q);
      }
      if (i == last) {
        for (std::int64_t q = last + 1; q <= last + w.after; ++q) visit_readers_of(q);
      }
      break;
    case PaddingMode::circular:
      if (i >= w.input - w.before) visit_readers_of(i - w.input);
      if (i < w.after) visit_readers_of(i + w.input);
      break;
  }
}

std::int64_t AxisGather::taps_at(std::int64_t destination, AxisTap* taps) const noexcept {
  AxisTap* end = taps;
  for_each_tap(destination, [&](std::int64_t tap, std::int64_t source) { *end++ = {tap, source}; });
  std::sort(taps, end, [](const AxisTap& a, const AxisTap& b) {
    return a.tap != b.tap ? a.tap < b.tap : a.source < b.source;
  });
  return end - taps;
}

AxisGather::Interior AxisGather::interior() const noexcept {
  const Window& w = window_;
  const std::int64_t reach = w.effective_kernel() - 1;
  Interior result{};
  if (!adjoint_) {
    // All taps inside the input: o * stride - before >= 0 and ... + reach <= input - 1.
    result.begin = divide_up(w.before, w.stride);
    const std::int64_t room = w.input - 1 + w.before - reach;
    result.end = room < 0 ? 0 : std::min(w.output, room / w.stride + 1);
  } else {
    // Every reader of the right phase exists, and nothing folds back onto the coordinate.
    result.begin = std::max<std::int64_t>(0, reach - w.before);
    result.end = std::min(w.input, w.output * w.stride - w.before);
    if (mode_ != PaddingMode::zeros) {
      const bool circular = mode_ == PaddingMode::circular;
      result.begin = std::max(result.begin, (circular ? w.after : w.before) + 1);
      result.end = std::min(result.end, w.input - (circular ? w.before : w.after) - 1);
    }
  }
  result.begin = std::min(result.begin, destinations());
  result.end = std::max(result.begin, result.end);
  return result;
}

std::vector<Run> AxisGather::runs(std::int64_t most) const {
  const Interior inside = interior();
  std::vector<Run> runs;
  // Destinations without taps, of which wide padding makes many, are runs too.
  constexpr std::int64_t kMostEmpty = 1 << 20;
  const auto add_border = [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      std::int64_t count = 1;
      if (!adjoint_ && mode_ == PaddingMode::zeros) {
        const std::int64_t reach = window_.effective_kernel() - 1;
        const std::int64_t first_reached = divide_up(window_.before - reach, window_.stride);
        const std::int64_t past_input =
            divide_up(window_.input + window_.before, window_.stride);
        if (begin < first_reached) count = std::min({first_reached, end, begin + kMostEmpty}) - begin;
        if (begin >= past_input) count = std::min(end, begin + kMostEmpty) - begin;
      }
      runs.push_back({begin, 1, count, 1});
      begin += count;
    }
  };
  add_border(0, inside.begin);
  const std::int64_t step = adjoint_ ? window_.stride : 1;
  const std::int64_t source_step = adjoint_ ? 1 : window_.stride;
  for (std::int64_t phase = 0; phase < step && inside.begin + phase < inside.end; ++phase) {
    std::int64_t begin = inside.begin + phase;
    std::int64_t left = divide_up(inside.end - begin, step);
    while (left > 0) {
      const std::int64_t count = std::min(left, most);
      runs.push_back({begin, step, count, source_step});
      begin += count * step;
      left -= count;
    }
  }
  add_border(inside.end, destinations());
  return runs;
}

Gather::Gather(const ConvProblem& problem, bool adjoint)
    : axes_{AxisGather(problem.windows[0], problem.padding_mode, adjoint),
            AxisGather(problem.windows[1], problem.padding_mode, adjoint),
            AxisGather(problem.windows[2], problem.padding_mode, adjoint)},
      kernel_height_(problem.windows[1].kernel),
      kernel_width_(problem.windows[2].kernel) {}

std::int64_t Gather::most_taps() const noexcept {
  return axes_[0].most_taps() * axes_[1].most_taps() * axes_[2].most_taps();
}

std::size_t Gather::scratch_bytes() const noexcept {
  const std::int64_t axis_taps =
      axes_[0].most_taps() + axes_[1].most_taps() + axes_[2].most_taps();
  return aligned_bytes<Tap>(most_taps()) + aligned_bytes<AxisTap>(axis_taps);
}

std::int64_t Gather::list_taps(std::int64_t row, const Run& run, const TapStrides& strides,
                               void* scratch) const noexcept {
  auto* taps = static_cast<Tap*>(scratch);
  auto* depth = reinterpret_cast<AxisTap*>(static_cast<std::byte*>(scratch) +
                                           aligned_bytes<Tap>(most_taps()));
  AxisTap* height = depth + axes_[0].most_taps();
  AxisTap* width = height + axes_[1].most_taps();
  const std::int64_t depth_taps = axes_[0].taps_at(row / axes_[1].destinations(), depth);
  const std::int64_t height_taps = axes_[1].taps_at(row % axes_[1].destinations(), height);
  const std::int64_t width_taps = axes_[2].taps_at(run.begin, width);
  std::int64_t count = 0;
  for (std::int64_t d = 0; d < depth_taps; ++d) {
    for (std::int64_t h = 0; h < height_taps; ++h) {
      for (std::int64_t w = 0; w < width_taps; ++w) {
        const std::int64_t pixel =
            (depth[d].source * axes_[1].sources() + height[h].source) * axes_[2].sources() +
            width[w].source;
        const std::int64_t tap =
            (depth[d].tap * kernel_height_ + height[h].tap) * kernel_width_ + width[w].tap;
        taps[count++] = {pixel * strides.source_pixel + tap * strides.source_tap,
                         tap * strides.weight_tap};
      }
    }
  }
  return count;
}

}  // namespace convolith
