#include "taps.hpp"

#include <algorithm>
#include <numeric>

#include "arithmetic.hpp"

namespace convolith {

void Runs::append(std::int64_t begin, std::int64_t end, std::int64_t step, std::int64_t most,
                  std::int64_t source_step) {
  if (begin >= end) return;
  const std::int64_t each = (end - begin) / step;
  const std::int64_t longer = (end - begin) % step;
  stretches_.push_back({{begin, step, most, source_step}, each, longer, size_});
  size_ += longer * divide_up(each + 1, most) + (step - longer) * divide_up(each, most);
}

Run Runs::operator[](std::int64_t index) const noexcept {
  const Stretch* stretch = stretches_.data() + stretches_.size() - 1;
  while (index < stretch->first_index) --stretch;
  index -= stretch->first_index;
  Run run = stretch->first;
  std::int64_t destinations = stretch->each + 1;
  std::int64_t runs = divide_up(destinations, run.count);
  const std::int64_t in_longer = stretch->longer * runs;
  if (index >= in_longer) {
    index -= in_longer;
    run.begin += stretch->longer;
    destinations = stretch->each;
    runs = divide_up(destinations, run.count);
  }
  const std::int64_t skipped = index % runs * run.count;
  run.begin += index / runs + skipped * run.step;
  run.count = std::min(run.count, destinations - skipped);
  return run;
}

AxisGather::AxisGather(const Window& window, PaddingMode mode, bool adjoint)
    : window_(window), mode_(mode), adjoint_(adjoint), most_taps_(bound_taps()) {}

std::int64_t AxisGather::bound_taps() const noexcept {
  const Window& w = window_;
  if (!adjoint_) {
    return mode_ == PaddingMode::zeros ? std::min(w.kernel, divide_up(w.input, w.dilation))
                                       : w.kernel;
  }
  // The taps of one residue of the stride are stride / common apart, their sources
  // dilation / common.
  const std::int64_t common = std::gcd(w.stride, w.dilation);
  const std::int64_t readers = std::min(divide_up(w.kernel, w.stride / common),
                                        divide_up(w.output, w.dilation / common));
  const bool folds_before = mode_ != PaddingMode::zeros && w.before > 0;
  const bool folds_after = mode_ != PaddingMode::zeros && w.after > 0;
  if (mode_ != PaddingMode::replicate) return readers * (1 + folds_before + folds_after);
  // The edges take in their margin: a tap reads both no oftener than once a stride.
  const std::int64_t margin =
      w.input == 1 ? w.before + w.after : std::max(w.before, w.after);
  return w.kernel * std::min(w.output, divide_up(margin + 1, w.stride));
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
      // By outputs and their taps: a margin may be longer than all that is read of it.
      if (i == 0) {
        for (std::int64_t o = 0; o < w.output; ++o) {
          const std::int64_t first = o * w.stride - w.before;
          if (first >= 0) break;
          for (std::int64_t t = 0; t < w.kernel && first + t * w.dilation < 0; ++t) visit(t, o);
        }
      }
      if (i == last) {
        for (std::int64_t o = w.output - 1; o >= 0; --o) {
          const std::int64_t first = o * w.stride - w.before;
          if (first + (w.kernel - 1) * w.dilation <= last) break;
          for (std::int64_t t = w.kernel - 1; t >= 0 && first + t * w.dilation > last; --t) {
            visit(t, o);
          }
        }
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
  // Only margins that fold back come out of order.
  if (adjoint_ && mode_ != PaddingMode::zeros) {
    std::sort(taps, end, [](const AxisTap& a, const AxisTap& b) {
      return a.tap != b.tap ? a.tap < b.tap : a.source < b.source;
    });
  }
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

Runs AxisGather::runs(std::int64_t most) const {
  const Interior inside = interior();
  Runs runs;
  // Destinations without taps, of which wide padding makes many, are runs too.
  constexpr std::int64_t kMostEmpty = 1 << 20;
  const auto append_border = [&](std::int64_t begin, std::int64_t end) {
    std::int64_t first_reached = begin;
    std::int64_t past_input = end;
    if (!adjoint_ && mode_ == PaddingMode::zeros) {
      const std::int64_t reach = window_.effective_kernel() - 1;
      first_reached =
          std::clamp(divide_up(window_.before - reach, window_.stride), begin, end);
      past_input = std::clamp(divide_up(window_.input + window_.before, window_.stride),
                              first_reached, end);
    }
    runs.append(begin, first_reached, 1, kMostEmpty, 1);
    runs.append(first_reached, past_input, 1, 1, 1);
    runs.append(past_input, end, 1, kMostEmpty, 1);
  };
  append_border(0, inside.begin);
  runs.append(inside.begin, inside.end, adjoint_ ? window_.stride : 1, most,
              adjoint_ ? 1 : window_.stride);
  append_border(inside.end, destinations());
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

double share_inside(const Window& window) noexcept {
  const auto outputs = static_cast<double>(window.output);
  const auto stride = static_cast<double>(window.stride);
  double inside = 0;
  for (std::int64_t t = 0; t < window.kernel; ++t) {
    const auto offset = static_cast<double>(t * window.dilation - window.before);
    const double end = std::min(outputs, (static_cast<double>(window.input) - offset) / stride);
    inside += std::max(0.0, end - std::max(0.0, -offset / stride));
  }
  return inside / (outputs * static_cast<double>(window.kernel));
}

}  // namespace convolith
