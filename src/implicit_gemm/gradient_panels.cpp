#include "implicit_gemm/gradient_panels.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "taps.hpp"

namespace convolith {

Range panel_channels(std::int64_t panel, std::int64_t panels, std::int64_t channels) noexcept {
  return Range::share(channels, static_cast<int>(panel), static_cast<int>(panels));
}

template <class T>
void GradientPacking<T>::pack_source(const Maps<const T>& x, std::int64_t group_channel,
                                     const PixelBlock& block,
                                     const GradientPanels<T>& panels) const noexcept {
  const Window &depth = geometry_.windows()[0], &height = geometry_.windows()[1],
               &width = geometry_.windows()[2];
  const std::int64_t channel = group_channel + panels.first;
  const std::int64_t row_places = geometry_.axes()[1].length(block.rows);
  const std::int64_t column_places = geometry_.axes()[2].length(block.columns);
  T* strip = panels.data;
  for (std::int64_t plane = block.plane; plane < block.plane + block.planes; ++plane) {
    const T* sample = x.sample(plane / depth.output, channel);
    for (std::int64_t at = 0; at < geometry_.axes()[0].length(1); ++at) {
      const std::int64_t d = padded_source(geometry_.coordinate(0, plane % depth.output, at),
                                           depth.input, geometry_.padding_mode());
      for (std::int64_t row = 0; row < row_places; ++row) {
        const std::int64_t h = padded_source(geometry_.coordinate(1, block.row, row), height.input,
                                             geometry_.padding_mode());
        if (d >= 0 && h >= 0) {  // what is left out is never read
          pack_line(x, sample + (d * height.input + h) * width.input * x.pixel_stride, block,
                    panels, strip);
        } else if (geometry_.several_lines()) {
          std::fill(strip, strip + column_places * panels.width, T(0));
        }
        strip += column_places * panels.width;
      }
    }
  }
}

template <class T>
void GradientPacking<T>::pack_line(const Maps<const T>& x, const T* line, const PixelBlock& block,
                                   const GradientPanels<T>& panels, T* strip) const noexcept {
  const Window& width = geometry_.windows()[2];
  const StripAxis& axis = geometry_.axes()[2];
  // Places first, first + step, ... of the strip hold columns from, from + source_step, ...
  const auto pack_run = [&](std::int64_t from, std::int64_t source_step, std::int64_t first,
                            std::int64_t step, std::int64_t count) {
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-from, source_step), 0, count);
    const std::int64_t end =
        std::clamp<std::int64_t>(divide_up(width.input - from, source_step), begin, count);
    const auto pad = [&](std::int64_t j) {
      const std::int64_t column =
          padded_source(from + j * source_step, width.input, geometry_.padding_mode());
      T* to = strip + (first + j * step) * panels.width;
      if (column >= 0) {
        copy_pixels(x, line + column * x.pixel_stride, 1, 1, panels, to, panels.width);
      } else if (geometry_.spans()) {
        std::fill(to, to + panels.width, T(0));  // spans have one panel
      }
    };
    if (geometry_.spans() || !geometry_.clips()) {
      for (std::int64_t j = 0; j < begin; ++j) pad(j);
      for (std::int64_t j = end; j < count; ++j) pad(j);
    }
    if (begin < end) {
      copy_pixels(x, line + (from + begin * source_step) * x.pixel_stride, source_step, end - begin,
                  panels, strip + (first + begin * step) * panels.width, step * panels.width);
    }
  };
  const std::int64_t origin = block.column * width.stride;
  if (axis.shared()) {
    pack_run(origin + axis.offsets().front(), 1, 0, 1, axis.length(block.columns));
    return;
  }
  for (std::int64_t t = 0; t < axis.step(); ++t) {
    pack_run(origin + axis.offsets()[t], width.stride, t, axis.step(), block.columns);
  }
}

template <class T>
void GradientPacking<T>::pack_output(const Maps<const T>& y, std::int64_t group_channel,
                                     const PixelBlock& block,
                                     const GradientPanels<T>& panels) const noexcept {
  const std::int64_t channel = group_channel + panels.first;
  const std::int64_t height = geometry_.windows()[1].output, width = geometry_.windows()[2].output;
  const bool whole_rows = block.columns == width;
  const std::int64_t runs = whole_rows ? 1 : block.rows;
  const std::int64_t pixels = whole_rows ? block.rows * width : block.columns;
  T* to = panels.data;
  for (std::int64_t plane = block.plane; plane < block.plane + block.planes; ++plane) {
    const T* sample = y.sample(plane / geometry_.windows()[0].output, channel);
    for (std::int64_t row = 0; row < runs; ++row) {
      const std::int64_t pixel =
          (plane % geometry_.windows()[0].output * height + block.row + row) * width + block.column;
      copy_pixels(y, sample + pixel * y.pixel_stride, 1, pixels, panels, to, panels.width);
      to += pixels * panels.width;
    }
  }
}

template <class T>
void GradientPacking<T>::copy_pixels(const Maps<const T>& maps, const T* from, std::int64_t step,
                                     std::int64_t pixels, const GradientPanels<T>& panels, T* to,
                                     std::int64_t to_stride) const noexcept {
  if (maps.channel_stride == 1 && step == 1 && maps.pixel_stride == panels.width &&
      panels.channels == panels.width && panels.count == 1 && to_stride == panels.width) {
    std::copy(from, from + pixels * panels.width, to);
    return;
  }
  if (panels.count == 1 && to_stride == panels.width) {
    kernels_.pack_panel(static_cast<int>(panels.width), static_cast<int>(panels.channels), pixels,
                        from, maps.channel_stride, step * maps.pixel_stride, to);
    return;
  }
  if (maps.channel_stride == 1) {
    kernels_.weight_gemm->pack_rows(pixels, panels.channels, from, step * maps.pixel_stride,
                                    panels.count, to, panels.stride, to_stride);
    return;
  }
  for (std::int64_t n = 0; n < panels.count; ++n) {
    const Range channels = panel_channels(n, panels.count, panels.channels);
    kernels_.transpose(channels.end - channels.begin, pixels,
                       from + channels.begin * maps.channel_stride, maps.channel_stride,
                       step * maps.pixel_stride, to + n * panels.stride, to_stride, 1);
  }
}

template class GradientPacking<float>;
template class GradientPacking<double>;

}  // namespace convolith
