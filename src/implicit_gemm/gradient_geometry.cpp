#include "implicit_gemm/gradient_geometry.hpp"

#include <algorithm>

#include "arithmetic.hpp"

namespace convolith {
namespace {

/// A kernel of one tap that reads each pixel once, in order, may take all pixels as one row.
std::array<Window, kSpatialAxes> flattened(const ConvProblem& problem) {
  std::array<Window, kSpatialAxes> windows = problem.windows;
  for (const Window& w : windows) {
    if (w.kernel != 1 || w.stride != 1 || w.before != 0 || w.input != w.output) return windows;
  }
  windows[2].input = windows[2].output = problem.output_pixels();
  for (int axis : {0, 1}) windows[axis].input = windows[axis].output = 1;
  return windows;
}

}  // namespace

GradientGeometry::GradientGeometry(const ConvProblem& problem)
    : windows_(flattened(problem)), padding_mode_(problem.padding_mode) {
  for (int axis = 0; axis < kSpatialAxes; ++axis) {
    const Window& w = windows_[axis];
    std::vector<std::int64_t> offsets;
    for (std::int64_t t = 0; t < w.kernel; ++t) offsets.push_back(offset(axis, t));
    const std::int64_t typical[] = {1, 4, 16};
    axes_[axis] = StripAxis(std::move(offsets), w.stride, std::min(w.output, typical[axis]));
  }
}

bool GradientGeometry::pointwise() const noexcept {
  return std::ranges::all_of(windows_, [](const Window& w) {
    return w.kernel == 1 && w.stride == 1 && w.before == 0 && w.after == 0;
  });
}

bool GradientGeometry::taps_touch() const noexcept {
  return windows_[2].kernel > 1 && axes_[2].place(offset(2, 1)) == axes_[2].place(offset(2, 0)) + 1;
}

void GradientGeometry::take_spans(std::int64_t lines) noexcept { lines_ = lines; }

std::int64_t GradientGeometry::lists() const noexcept {
  const std::int64_t kernel_rows = windows_[0].kernel * windows_[1].kernel;
  return spans() ? kernel_rows / lines_ : kernel_rows * windows_[2].kernel;
}

/// Of the source of an output under a tap, from the output's number times the stride.
std::int64_t GradientGeometry::offset(int axis, std::int64_t tap) const noexcept {
  return tap * windows_[axis].dilation - windows_[axis].before;
}

std::int64_t GradientGeometry::source_pixels(const PixelBlock& block) const noexcept {
  return block.planes * axes_[0].length(1) * axes_[1].length(block.rows) *
         axes_[2].length(block.columns);
}

std::int64_t GradientGeometry::line_pixels(const PixelBlock& block) const noexcept {
  return axes_[2].length(block.columns) * windows_[1].dilation;
}

std::int64_t GradientGeometry::coordinate(int axis, std::int64_t first,
                                          std::int64_t place) const noexcept {
  const StripAxis& strip = axes_[axis];
  const std::int64_t stride = windows_[axis].stride;
  if (strip.shared()) return first * stride + strip.offsets().front() + place;
  const std::int64_t count = strip.step();
  return (first + place / count) * stride + strip.offsets()[place % count];
}

/// Of the source under a tap of the output at (plane, row, tap.begin) of a block.
std::int64_t GradientGeometry::source_at(const OperandStrides& operand, const PixelBlock& block,
                                         const Tap& tap, std::int64_t plane,
                                         std::int64_t row) const noexcept {
  if (operand.packed) {
    const std::int64_t depth = plane * axes_[0].length(1) + axes_[0].place(tap.offsets[0]);
    const std::int64_t line = depth * axes_[1].length(block.rows) + row * axes_[1].step() +
                              axes_[1].place(tap.offsets[1]);
    return (line * axes_[2].length(block.columns) + tap.begin * axes_[2].step() +
            axes_[2].place(tap.offsets[2])) *
           operand.pixel;
  }
  const std::int64_t outputs[] = {(block.plane + plane) % windows_[0].output, block.row + row,
                                  block.column + tap.begin};
  std::int64_t pixel = 0;
  for (int axis = 0; axis < kSpatialAxes; ++axis) {
    const Window& w = windows_[axis];
    pixel = pixel * w.input + outputs[axis] * w.stride + tap.offsets[axis];
  }
  return (block.plane + plane) / windows_[0].output * operand.sample + pixel * operand.pixel;
}

std::int64_t GradientGeometry::output_at(const OperandStrides& operand, const PixelBlock& block,
                                         const Tap& tap, std::int64_t plane,
                                         std::int64_t row) const noexcept {
  if (operand.packed) {
    return ((plane * block.rows + row) * block.columns + tap.begin) * operand.pixel;
  }
  const std::int64_t number = block.plane + plane;
  const std::int64_t line = (number % windows_[0].output * windows_[1].output + block.row + row);
  return number / windows_[0].output * operand.sample +
         (line * windows_[2].output + block.column + tap.begin) * operand.pixel;
}

std::int64_t GradientGeometry::output_at(const OperandStrides& output,
                                         const PixelBlock& block) const noexcept {
  return output_at(output, block, Tap{}, 0, 0);
}

std::int64_t GradientGeometry::source_step(const OperandStrides& source) const noexcept {
  return source.pixel * (source.packed ? axes_[2].step() : windows_[2].stride);
}

std::int64_t GradientGeometry::list_runs(const OperandStrides& source_strides,
                                         const OperandStrides& output_strides,
                                         const PixelBlock& block, std::int64_t list, bool swapped,
                                         PixelRun* runs) const noexcept {
  Tap tap{};
  const std::int64_t w = spans() ? 0 : list % windows_[2].kernel;
  list = spans() ? list * lines_ : list / windows_[2].kernel;
  tap.offsets = {offset(0, list / windows_[1].kernel), offset(1, list % windows_[1].kernel),
                 offset(2, w)};
  tap.end = block.columns;
  if (clips() && !spans()) {
    const Window& width = windows_[2];
    tap.begin = std::clamp(divide_up(-tap.offsets[2], width.stride) - block.column, std::int64_t{0},
                           block.columns);
    tap.end = std::clamp(divide_up(width.input - tap.offsets[2], width.stride) - block.column,
                         tap.begin, block.columns);
  }
  if (tap.begin == tap.end) return 0;
  const auto is_padding = [&](int axis, std::int64_t output) {
    const std::int64_t at = output * windows_[axis].stride + tap.offsets[axis];
    return clips() && (at < 0 || at >= windows_[axis].input);
  };
  const std::int64_t pixels = tap.end - tap.begin;
  const std::int64_t source_length = pixels * source_step(source_strides);
  const std::int64_t output_length = pixels * output_strides.pixel;
  std::int64_t count = 0, next_source = 0, next_output = 0;
  for (std::int64_t plane = 0; plane < block.planes; ++plane) {
    if (is_padding(0, (block.plane + plane) % windows_[0].output)) continue;
    for (std::int64_t row = 0; row < block.rows; ++row) {
      if (!several_lines() && is_padding(1, block.row + row)) continue;
      const std::int64_t source = source_at(source_strides, block, tap, plane, row);
      const std::int64_t output = output_at(output_strides, block, tap, plane, row);
      if (count > 0 && source == next_source && output == next_output) {
        runs[count - 1].count += pixels;
      } else {
        runs[count++] = {swapped ? output : source, swapped ? source : output, pixels};
      }
      next_source = source + source_length;
      next_output = output + output_length;
    }
  }
  return count;
}

}  // namespace convolith
