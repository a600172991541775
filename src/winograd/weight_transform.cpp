#include "winograd/weight_transform.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "phases.hpp"

namespace convolith {

template <class T>
void WeightTransform<T>::run(const T* weight, std::int64_t group, std::int64_t panel,
                             const Range& channels, T* transformed,
                             std::int64_t frequency_stride) const noexcept {
  const bool adjoint = is_adjoint(problem_);
  const std::int64_t columns = kernels_.tile_columns;
  const std::int64_t taps = problem_.taps();
  const std::int64_t out_stride = taps * problem_.in_channels_per_group();
  constexpr std::int64_t kBufferElements = WinogradGeometry::kMostTaps * kMostColumns;
  alignas(kAlignment) T buffer[kBufferElements];
  const std::int64_t chunk = kBufferElements / (taps * columns);
  const std::int64_t first = panel * columns;
  const auto valid = static_cast<int>(std::min(columns, geometry_.produced - first));
  const T* from = weight + group * problem_.out_channels_per_group() * out_stride +
                  first * (adjoint ? taps : out_stride);

  WinogradWeight<T> part{};
  part.channel_stride = taps * columns;
  part.lanes = static_cast<int>(columns);
  part.frequency_stride = frequency_stride;
  const auto& axes = geometry_.axes;
  std::int64_t strides[kSpatialAxes];
  strides[2] = columns;
  strides[1] = strides[2] * axes[2].taps;
  strides[0] = strides[1] * axes[1].taps;
  std::int64_t origin = 0;
  if (adjoint) {  // turned round
    origin = (taps - 1) * columns;
    for (std::int64_t& stride : strides) stride = -stride;
  }
  part.column_stride = strides[geometry_.column_axis];
  part.row_stride = geometry_.square() ? strides[geometry_.row_axis] : 0;

  for (std::int64_t c = channels.begin; c < channels.end; c += chunk) {
    part.channels = std::min(chunk, channels.end - c);
    if (adjoint) {
      for (std::int64_t i = 0; i < part.channels; ++i) {
        // Channels lie too far apart for hardware prefetchers.
        constexpr std::int64_t kAhead = 4, kLine = kAlignment / sizeof(T);
        for (std::int64_t e = 0; c + i + kAhead < channels.end && e < valid * taps; e += kLine) {
          __builtin_prefetch(from + (c + i + kAhead) * out_stride + e);
        }
        kernels_.pack_panel(static_cast<int>(columns), valid, taps, from + (c + i) * out_stride,
                            taps, 1, buffer + i * taps * columns);
      }
    } else {
      kernels_.pack_panel(static_cast<int>(columns), valid, part.channels * taps, from + c * taps,
                          out_stride, 1, buffer);
    }
    for (std::int64_t tap = 0; tap < geometry_.reduced_taps; ++tap) {
      const auto at = geometry_.reduced_tap(tap);
      part.taps = buffer + origin + at[0] * strides[0] + at[1] * strides[1] + at[2] * strides[2];
      part.transformed = transformed + (tap * tap_row_ + c - channels.begin) * columns;
      form_.weight(part);
    }
  }
}

template class WeightTransform<float>;
template class WeightTransform<double>;

}  // namespace convolith
