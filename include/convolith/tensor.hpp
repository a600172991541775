#pragma once

#include <cstdint>

namespace convolith {

/// A batch of feature maps. The spatial axes of one sample collapse to one axis of pixels, and
/// either neighbouring pixels (channels_first) or neighbouring channels (channels_last) touch.
/// Strides count elements; the dtype and the extents stand in the problem.
struct TensorView {
  void* data = nullptr;
  std::int64_t sample_stride = 0;
  std::int64_t channel_stride = 0;
  std::int64_t pixel_stride = 0;
};

/// The same, typed and read or written as T says.
template <class T>
struct Maps {
  T* data = nullptr;
  std::int64_t sample_stride = 0;
  std::int64_t channel_stride = 0;
  std::int64_t pixel_stride = 0;

  T* sample(std::int64_t n, std::int64_t channel) const noexcept {
    return data + n * sample_stride + channel * channel_stride;
  }
};

template <class T>
Maps<T> typed(const TensorView& view) noexcept {
  return {static_cast<T*>(view.data), view.sample_stride, view.channel_stride, view.pixel_stride};
}

}  // namespace convolith
