#include "bias_gradient.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

/// Rows of `count` numbers, `stride` apart, the rows of a sample together: adds them, halving the
/// range until a chain is short enough.
template <class T>
class RowSum {
 public:
  RowSum(const Kernels<T>& kernels, const Maps<const T>& maps, std::int64_t rows,
         std::int64_t stride, std::int64_t count)
      : kernels_(kernels), maps_(maps), rows_(rows), stride_(stride), count_(count) {}

  /// Adds rows [begin, end) of the flattened batch to `sum`; `spare` holds one sum a level.
  void add(std::int64_t begin, std::int64_t end, T* sum, T* spare) const noexcept {
    if (end - begin <= kMaxChain / 2) {
      for (std::int64_t r = begin; r < end; ++r) {
        kernels_.add(count_, maps_.sample(r / rows_, 0) + r % rows_ * stride_, sum);
      }
      return;
    }
    const std::int64_t middle = begin + (end - begin) / 2;
    for (const Range half : {Range{begin, middle}, Range{middle, end}}) {
      std::fill(spare, spare + count_, T(0));
      add(half.begin, half.end, spare, spare + count_);
      kernels_.add(count_, spare, sum);
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
  std::int64_t rows_, stride_, count_;
};

/// Pixels whose channels are neighbours. Where few channels leave no gap between pixels, several
/// pixels make one row, and their sums are added at the end.
template <class T>
void sum_channels_last(const Kernels<T>& kernels, const Maps<const T>& maps, std::int64_t batch,
                       std::int64_t channels, std::int64_t pixels, T* sums, int threads) {
  constexpr std::int64_t kBlock = 256;  // numbers of a row that are summed together
  constexpr std::int64_t kMostPixels = 128, kMostParts = 16, kFewestRows = 64;
  const bool dense = maps.pixel_stride == channels;
  const std::int64_t together = dense ? std::clamp<std::int64_t>(kBlock / channels, 1,
                                                                 std::min(kMostPixels, pixels))
                                      : 1;
  const std::int64_t width = together * channels;
  const std::int64_t rows = pixels / together;  // of a sample
  const std::int64_t blocks = divide_up(width, kBlock);
  const std::int64_t parts = std::clamp<std::int64_t>(batch * rows / kFewestRows, 1, kMostParts);
  const std::int64_t levels = RowSum<T>::levels(divide_up(batch * rows, parts));
  std::vector<T> part_sums(static_cast<std::size_t>(parts * width));
  std::vector<T> spare(static_cast<std::size_t>(threads * levels * kBlock));
  parallel_for(threads, parts * blocks, [&](std::int64_t index, int thread) {
    const std::int64_t first = index % blocks * kBlock;
    const std::int64_t part = index / blocks;
    const Range range =
        Range::share(batch * rows, static_cast<int>(part), static_cast<int>(parts));
    Maps<const T> from = maps;
    from.data += first;
    RowSum<T>(kernels, from, rows, together * maps.pixel_stride,
              std::min(kBlock, width - first))
        .add(range.begin, range.end, part_sums.data() + part * width + first,
             spare.data() + thread * levels * kBlock);
  });
  for (std::int64_t part = 1; part < parts; ++part) {
    kernels.add(width, part_sums.data() + part * width, part_sums.data());
  }
  std::fill(sums, sums + channels, T(0));
  for (std::int64_t p = 0; p < together; ++p) {
    kernels.add(channels, part_sums.data() + p * channels, sums);
  }
  // Pixels at the end of every sample that fill no row.
  const std::int64_t rest = pixels - rows * together;
  if (rest == 0) return;
  std::vector<T> rest_sums(static_cast<std::size_t>(channels * (1 + RowSum<T>::levels(batch * rest))));
  Maps<const T> from = maps;
  from.data += rows * together * maps.pixel_stride;
  RowSum<T>(kernels, from, rest, maps.pixel_stride, channels)
      .add(0, batch * rest, rest_sums.data(), rest_sums.data() + channels);
  kernels.add(channels, rest_sums.data(), sums);
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
