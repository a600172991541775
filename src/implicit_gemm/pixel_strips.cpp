#include "implicit_gemm/pixel_strips.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "taps.hpp"

namespace convolith {

/// Channels do not follow one another at a power of two: against conflicts in L1.
template <class T>
std::int64_t PixelStrips<T>::residue_pixels(std::int64_t destinations) const noexcept {
  const auto& offsets = columns_.offsets();
  const std::int64_t reach = offsets.empty() ? 0 : (offsets.back() - offsets.front()) / step_;
  constexpr std::int64_t kSpread = 256 / sizeof(T);
  const std::int64_t pixels =
      round_up(round_up(destinations, kernels_.lanes) + reach, std::int64_t{kernels_.lanes});
  return step_ * pixels % kSpread == 0 ? pixels + kernels_.lanes : pixels;
}

template <class T>
std::int64_t PixelStrips<T>::elements(std::int64_t destinations) const noexcept {
  return channels_ * step_ * residue_pixels(destinations);
}

template <class T>
void PixelStrips<T>::pack(const Maps<const T>& source, const T* line, std::int64_t first,
                          std::int64_t count, T* strip) const noexcept {
  const auto& offsets = columns_.offsets();
  if (offsets.empty()) return;
  const std::int64_t start = first * step_ + offsets.front();
  for (std::int64_t residue = 0; residue < step_; ++residue, strip += residue_) {
    // Pixel j of the residue comes from j * step + offset.
    const std::int64_t offset = start + residue;
    std::int64_t pixels = 0;
    for (const std::int64_t tap : offsets) {
      const std::int64_t shift = tap - offsets.front();
      if (shift % step_ == residue) pixels = count + shift / step_;
    }
    if (pixels == 0) continue;
    const std::int64_t read = pixels + round_up(count, kernels_.lanes) - count;
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-offset, step_), 0, pixels);
    const std::int64_t end =
        line == nullptr ? begin : std::clamp(divide_up(extent_ - offset, step_), begin, pixels);
    if (begin < end) {
      pack_pixels(source, line + (offset + begin * step_) * source.pixel_stride, end - begin,
                  strip + begin);
    }
    pad(source, line, offset, {0, begin}, strip);
    const bool zeros = line == nullptr || padding_mode_ == PaddingMode::zeros;
    if (!zeros) pad(source, line, offset, {end, pixels}, strip);
    clear({zeros ? end : pixels, read}, strip);
  }
}

/// Pixels of a residue that are padding; the first pixel comes from `offset`.
template <class T>
void PixelStrips<T>::pad(const Maps<const T>& source, const T* line, std::int64_t offset,
                         const Range& pixels, T* strip) const noexcept {
  if (line == nullptr || padding_mode_ == PaddingMode::zeros) {
    clear(pixels, strip);
    return;
  }
  const std::int64_t channel = step_ * residue_;
  for (std::int64_t j = pixels.begin; j < pixels.end; ++j) {
    const std::int64_t at = padded_source(offset + j * step_, extent_, padding_mode_);
    for (std::int64_t c = 0; c < channels_; ++c) {
      strip[c * channel + j] = line[at * source.pixel_stride + c * source.channel_stride];
    }
  }
}

template <class T>
void PixelStrips<T>::clear(const Range& pixels, T* strip) const noexcept {
  if (pixels.begin == pixels.end) return;
  kernels_.clear_rows(channels_, pixels.end - pixels.begin, strip + pixels.begin, step_ * residue_);
}

/// `count` pixels of all channels, the step apart in the source, pixels together.
template <class T>
void PixelStrips<T>::pack_pixels(const Maps<const T>& source, const T* from, std::int64_t count,
                                 T* to) const noexcept {
  const std::int64_t step = step_ * source.pixel_stride;
  const std::int64_t channel = step_ * residue_;
  if (channels_last_ && channels_ > 1) {
    kernels_.split_channels(count, channels_, from, step, source.channel_stride, to, channel);
    return;
  }
  for (std::int64_t c = 0; c < channels_; ++c) {
    kernels_.copy_strided(count, from + c * source.channel_stride, step, to + c * channel);
  }
}

template class PixelStrips<float>;
template class PixelStrips<double>;

}  // namespace convolith
