#include "bias_gradient.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

/// Channels are neighbours: adds whole pixels, halving the range until a chain is short enough.
template <class T>
class PixelSum {
 public:
  PixelSum(const Kernels<T>& kernels, const Maps<const T>& maps, std::int64_t pixels,
           std::int64_t channels)
      : kernels_(kernels), maps_(maps), pixels_(pixels), channels_(channels) {}

  /// Adds pixels [begin, end) of the flattened batch to `sum`; `spare` holds one sum a level.
  void add(std::int64_t begin, std::int64_t end, T* sum, T* spare) const noexcept {
    if (end - begin <= kMaxChain / 2) {
      for (std::int64_t p = begin; p < end; ++p) {
        kernels_.add(channels_, maps_.sample(p / pixels_, 0) + p % pixels_ * maps_.pixel_stride,
                     sum);
      }
      return;
    }
    const std::int64_t middle = begin + (end - begin) / 2;
    for (const Range half : {Range{begin, middle}, Range{middle, end}}) {
      std::fill(spare, spare + channels_, T(0));
      add(half.begin, half.end, spare, spare + channels_);
      kernels_.add(channels_, spare, sum);
    }
  }

  static std::int64_t levels(std::int64_t count) noexcept {
    std::int64_t levels = 1;
    for (; count > kMaxChain / 2; count = divide_up(count, 2)) ++levels;
    return levels;
  }

 private:
  const Kernels<T>& kernels_;
  Maps<const T> maps_;
  std::int64_t pixels_, channels_;
};

template <class T>
void sum_channels_last(const Kernels<T>& kernels, const Maps<const T>& maps, std::int64_t batch,
                       std::int64_t channels, std::int64_t pixels, T* sums, int threads) {
  constexpr std::int64_t kBlock = 64;  // channels: a cache line or more of every pixel
  const std::int64_t levels = PixelSum<T>::levels(batch * pixels);
  std::vector<T> spare(static_cast<std::size_t>(threads * levels * kBlock));
  parallel_for(threads, divide_up(channels, kBlock), [&](std::int64_t block, int thread) {
    const std::int64_t first = block * kBlock;
    const std::int64_t count = std::min(kBlock, channels - first);
    Maps<const T> part = maps;
    part.data += first;
    std::fill(sums + first, sums + first + count, T(0));
    PixelSum<T>(kernels, part, pixels, count)
        .add(0, batch * pixels, sums + first, spare.data() + thread * levels * kBlock);
  });
}

template <class T>
void sum_channels_first(const Kernels<T>& kernels, const Maps<const T>& maps, std::int64_t batch,
                        std::int64_t channels, std::int64_t pixels, T* sums, int threads) {
  std::vector<T> planes(static_cast<std::size_t>(batch * channels));
  parallel_for(threads, channels, [&](std::int64_t c, int) {
    T* of_channel = planes.data() + c * batch;
    for (std::int64_t n = 0; n < batch; ++n) {
      of_channel[n] = kernels.sum(pixels, maps.sample(n, c), 1);
    }
    sums[c] = kernels.sum(batch, of_channel, 1);
  });
}

template <class T>
void sum_typed(Layout layout, const TensorView& maps, std::int64_t batch, std::int64_t channels,
               std::int64_t pixels, void* sums, int threads) {
  const Machine machine = describe_machine(isa_in_use());
  const auto sum = layout == Layout::channels_last ? sum_channels_last<T> : sum_channels_first<T>;
  sum(kernels_for<T>(machine), typed<const T>(maps), batch, channels, pixels,
      static_cast<T*>(sums), threads);
}

}  // namespace

void sum_over_batch_and_pixels(DType dtype, Layout layout, const TensorView& maps,
                               std::int64_t batch, std::int64_t channels, std::int64_t pixels,
                               void* sums, int threads) {
  const auto sum = dtype == DType::float32 ? sum_typed<float> : sum_typed<double>;
  sum(layout, maps, batch, channels, pixels, sums, threads);
}

}  // namespace convolith
