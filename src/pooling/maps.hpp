#pragma once

#include <algorithm>
#include <cstdint>

#include "arithmetic.hpp"
#include "convolith/pooling.hpp"
#include "runtime/threads.hpp"

namespace convolith {

/// A batch of maps cut into pieces of work: blocks of channels, and rows of each.
struct MapGrid {
  std::int64_t batch, channels;
  std::int64_t block;  ///< channels of a piece
  std::int64_t rows;

  std::int64_t blocks() const noexcept { return divide_up(channels, block); }
  std::int64_t pieces() const noexcept { return batch * blocks() * rows; }

  /// Calls body(sample, first channel, channels, first row, last row + 1, thread), each thread
  /// taking as many rows at once as it can.
  template <class Body>
  void run(int threads, const Body& body) const noexcept {
    const std::int64_t grain = std::max<std::int64_t>(1, pieces() / (8 * threads));
    parallel_ranges(threads, pieces(), grain, [&](Range range, int thread) {
      while (range.begin < range.end) {
        const std::int64_t map = range.begin / rows;
        const std::int64_t row = range.begin % rows;
        const std::int64_t end = std::min(rows, row + range.end - range.begin);
        const std::int64_t channel = map % blocks() * block;
        body(map / blocks(), channel, std::min(block, channels - channel), row, end, thread);
        range.begin += end - row;
      }
    });
  }
};

/// Fewer threads for work (in elements visited) that would not repay a fork and a join.
inline int worthwhile_threads(int threads, std::int64_t work) noexcept {
  constexpr std::int64_t kWorkOfThread = 16384;
  return static_cast<int>(std::min<std::int64_t>(threads, 1 + work / kWorkOfThread));
}

/// Channels of a block so that about `wanted` blocks of channels come out, in whole cache lines.
inline std::int64_t channel_block(std::int64_t channels, std::int64_t wanted) noexcept {
  constexpr std::int64_t kLine = 16;
  const std::int64_t each = channels / std::max<std::int64_t>(1, wanted);
  return std::clamp<std::int64_t>(each / kLine * kLine, std::min(kLine, channels), channels);
}

/// Pieces of work on rows of maps that are independent. In channels_last a row's channels touch,
/// and rows are cut; otherwise whole maps are, so that threads write to lines of their own, unless
/// there are too few. Calls body(sample, first channel, channels, first row, last row + 1).
template <class Body>
void for_map_rows(std::int64_t batch, std::int64_t channels, std::int64_t rows,
                  bool channels_touch, int threads, const Body& body) noexcept {
  if (!channels_touch && batch * channels >= 4 * threads) {
    const std::int64_t block = std::clamp<std::int64_t>(batch * channels / (4 * threads), 1, channels);
    MapGrid{batch, channels, block, 1}.run(
        threads, [&](std::int64_t n, std::int64_t c, std::int64_t count, std::int64_t,
                     std::int64_t, int) { body(n, c, count, 0, rows); });
    return;
  }
  const std::int64_t wanted = 4 * threads / (batch * rows) + 1;
  const std::int64_t block = channels_touch ? channel_block(channels, wanted)
                                            : divide_up(channels, wanted);
  MapGrid{batch, channels, block, rows}.run(
      threads, [&](std::int64_t n, std::int64_t c, std::int64_t count, std::int64_t begin,
                   std::int64_t end, int) { body(n, c, count, begin, end); });
}

/// Pieces of work for gradients that scatter: whole planes, of several channels where they touch.
inline MapGrid gradient_grid(const PoolProblem& problem, int threads) noexcept {
  const std::int64_t wanted = threads == 1 ? 1 : divide_up(4 * threads, problem.batch);
  const bool channels_touch = problem.layout == Layout::channels_last;
  return {problem.batch, problem.channels,
          channels_touch ? channel_block(problem.channels, wanted) : 1, 1};
}

/// Zeros the pixels [begin, end) of a block of channels.
template <class T>
void zero_pixels(T* maps, std::int64_t pixel_stride, std::int64_t channels, std::int64_t begin,
                 std::int64_t end) noexcept {
  if (pixel_stride == channels) {
    std::fill_n(maps + begin * channels, (end - begin) * channels, T(0));
  } else {
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      std::fill_n(maps + pixel * pixel_stride, channels, T(0));
    }
  }
}

/// The gradient of one block of channels, to which windows add. Where more than 256 windows
/// could add to one element, they add to a partial sum that is folded in every 256 outputs.
template <class T>
class GradientPlane {
 public:
  static constexpr std::int64_t kChain = 256;

  /// `partial` holds pixels * channels elements, or is null.
  GradientPlane(T* dx, std::int64_t pixel_stride, std::int64_t channels, std::int64_t pixels,
                T* partial) noexcept
      : dx_(dx), pixel_stride_(pixel_stride), channels_(channels), partial_(partial) {
    if (partial != nullptr) {
      std::fill_n(partial, pixels * channels, T(0));
      zero_until(pixels);
    }
  }

  /// Sets the pixels before `end` to zero, unless they already were.
  void zero_until(std::int64_t end) noexcept {
    if (end <= zeroed_) return;
    zero_pixels(dx_, pixel_stride_, channels_, zeroed_, end);
    zeroed_ = end;
  }

  void add(std::int64_t pixel, std::int64_t channel, T value) noexcept {
    if (partial_ == nullptr) {
      dx_[pixel * pixel_stride_ + channel] += value;
    } else {
      low_ = std::min(low_, pixel);
      high_ = std::max(high_, pixel + 1);
      partial_[pixel * channels_ + channel] += value;
    }
  }

  /// To be called after each output pixel.
  void next_output() noexcept {
    if (partial_ != nullptr && ++outputs_ % kChain == 0) fold();
  }

  void fold() noexcept {
    for (std::int64_t pixel = low_; pixel < high_; ++pixel) {
      for (std::int64_t c = 0; c < channels_; ++c) {
        dx_[pixel * pixel_stride_ + c] += partial_[pixel * channels_ + c];
        partial_[pixel * channels_ + c] = 0;
      }
    }
    low_ = INT64_MAX;
    high_ = 0;
  }

 private:
  T* dx_;
  std::int64_t pixel_stride_, channels_;
  T* partial_;
  std::int64_t zeroed_ = 0;
  std::int64_t low_ = INT64_MAX, high_ = 0;
  std::int64_t outputs_ = 0;
};

}  // namespace convolith
