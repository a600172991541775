#pragma once

// Pixels of few channels: to streams of one channel each, and back.

#include "kernels/patches.inl.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// A vector of kStreams interleaved streams, number kPart: so_far with the lanes that come from
/// stream number kStream.
template <class T, int kStreams, int kPart, int kStream, int... kLane>
CONVOLITH_INLINE Vec<T> merge(Vec<T> so_far, Vec<T> stream, Numbers<kLane...>) {
  return shuffle<T, ((kPart * kLanes<T> + kLane) % kStreams == kStream
                         ? kLanes<T> + (kPart * kLanes<T> + kLane) / kStreams
                     : kStream == 1 ? (kPart * kLanes<T> + kLane) / kStreams
                                    : kLane)...>(so_far, stream);
}

template <class T, int kStreams, int kPart, int kStream = 1>
CONVOLITH_INLINE Vec<T> interleaved(const Vec<T> (&streams)[kStreams], Vec<T> so_far) {
  if constexpr (kStream < kStreams) {
    return interleaved<T, kStreams, kPart, kStream + 1>(
        streams, merge<T, kStreams, kPart, kStream>(so_far, streams[kStream], LaneNumbers<T>()));
  } else {
    return so_far;
  }
}

/// Stores the first `count` pixels of kChannels streams, channel by channel.
template <class T, int kChannels, int kPart = 0>
CONVOLITH_INLINE void store_interleaved(const Vec<T> (&streams)[kChannels], T* to, int count) {
  if constexpr (kPart < kChannels) {
    const int left = count * kChannels - kPart * kLanes<T>;
    if (left <= 0) return;
    store_upto<T>(to + kPart * kLanes<T>, interleaved<T, kChannels, kPart>(streams, streams[0]),
                  left);
    store_interleaved<T, kChannels, kPart + 1>(streams, to, count);
  }
}

/// n streams take n (n - 1) shuffles: up to here no more than squares that are transposed.
template <class T>
constexpr int kMostInterleaved = kLanes<T> >= 16  ? 8
                                 : kLanes<T> >= 8 ? 6
                                 : kLanes<T> >= 4 ? 3
                                                  : 2;

/// Lanes of stream number kStream out of kStreams interleaved ones: so_far with those that lie in
/// vector number kPart.
template <class T, int kStreams, int kStream, int kPart, int... kLane>
CONVOLITH_INLINE Vec<T> pick(Vec<T> so_far, Vec<T> part, Numbers<kLane...>) {
  return shuffle<T, ((kLane * kStreams + kStream) / kLanes<T> == kPart
                         ? kLanes<T> + (kLane * kStreams + kStream) % kLanes<T>
                     : kPart == 1 ? (kLane * kStreams + kStream) % kLanes<T>
                                  : kLane)...>(so_far, part);
}

template <class T, int kStreams, int kStream, int kPart = 1>
CONVOLITH_INLINE Vec<T> stream_of(const Vec<T> (&parts)[kStreams], Vec<T> so_far) {
  if constexpr (kPart < kStreams) {
    return stream_of<T, kStreams, kStream, kPart + 1>(
        parts, pick<T, kStreams, kStream, kPart>(so_far, parts[kPart], LaneNumbers<T>()));
  } else {
    return so_far;
  }
}

template <class T, int kStreams, int kStream = 0>
CONVOLITH_INLINE void store_streams(const Vec<T> (&parts)[kStreams], T* to, std::int64_t stride,
                                    int count) {
  if constexpr (kStream < kStreams) {
    store_upto<T>(to + kStream * stride, stream_of<T, kStreams, kStream>(parts, parts[0]), count);
    store_streams<T, kStreams, kStream + 1>(parts, to, stride, count);
  }
}

template <class T>
struct SplitChannels {
  template <int kChannels>
  struct Rows {
    static void run(std::int64_t pixels, const T* source, T* destination, std::int64_t stride) {
      Vec<T> parts[kChannels];
      std::int64_t i = 0;
      for (; i + kLanes<T> <= pixels; i += kLanes<T>) {
        CONVOLITH_UNROLL(8)
        for (int p = 0; p < kChannels; ++p) {
          parts[p] = load(source + i * kChannels + p * kLanes<T>);
        }
        store_streams<T, kChannels>(parts, destination + i, stride, kLanes<T>);
      }
      if (i == pixels) return;
      const auto count = static_cast<int>(pixels - i);
      CONVOLITH_UNROLL(8)
      for (int p = 0; p < kChannels; ++p) {
        const int left = count * kChannels - p * kLanes<T>;
        parts[p] = left > 0 ? load_upto(source + i * kChannels + p * kLanes<T>, left) : zero<T>();
      }
      store_streams<T, kChannels>(parts, destination + i, stride, count);
    }
  };
};

template <class T>
void split_channels(std::int64_t pixels, std::int64_t channels, const T* source,
                    std::int64_t pixel_stride, std::int64_t channel_stride, T* destination,
                    std::int64_t destination_stride) {
  if (channel_stride == 1 && pixel_stride == channels && channels <= kMostInterleaved<T>) {
    ForRows<SplitChannels<T>::template Rows, kMostInterleaved<T>>::run(
        static_cast<int>(channels), pixels, source, destination, destination_stride);
    return;
  }
  transpose_matrix(pixels, channels, source, pixel_stride, channel_stride, destination,
                   destination_stride, std::int64_t{1});
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
