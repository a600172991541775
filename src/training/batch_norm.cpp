#include <algorithm>
#include <cmath>

#include "arithmetic.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"
#include "training/kernels.hpp"
#include "training/training.hpp"

namespace convolith {
namespace {

/// How the elements are cut into pieces, whose sums are merged in order: channels_first by
/// channels and, where those are few, samples; channels_last by pixels.
struct Pieces {
  std::int64_t channels;  ///< groups of channels: all of them singly, or one of all
  std::int64_t parts;     ///< of the samples or pixels of each
  std::int64_t extent;    ///< samples or pixels

  explicit Pieces(const BatchNorm& problem) noexcept {
    constexpr std::int64_t kEnough = 32;       // pieces to share out
    constexpr std::int64_t kLeast = 64 * 1024;  // elements of a piece
    if (problem.layout == Layout::channels_first) {
      channels = problem.channels;
      extent = problem.batch;
      const std::int64_t elements = problem.batch * problem.pixels;
      parts = std::min({divide_up(kEnough, channels), extent,
                        std::max<std::int64_t>(1, elements / kLeast)});
    } else {
      channels = 1;
      extent = problem.batch * problem.pixels;
      parts = std::clamp<std::int64_t>(extent * problem.channels / kLeast, 1, kEnough);
      parts = std::min(parts, std::max<std::int64_t>(1, extent / 64));
    }
    parts = std::max<std::int64_t>(1, parts);
  }

  Range part(std::int64_t i) const noexcept {
    return Range::share(extent, static_cast<int>(i), static_cast<int>(parts));
  }
};

std::int64_t elements(const BatchNorm& problem) noexcept {
  return problem.batch * problem.channels * problem.pixels;
}

/// Arrays cut from one workspace.
class Carver {
 public:
  explicit Carver(void* data) noexcept : at_(static_cast<char*>(data)) {}
  template <class T>
  T* take(std::int64_t count) noexcept {
    T* result = reinterpret_cast<T*>(at_);
    at_ += aligned_bytes<T>(count);
    return result;
  }

 private:
  char* at_;
};

/// Rows of a view: the planes of a channel, or pixels of all channels (uniform over samples).
template <class T>
T* row(const Maps<T>& maps, bool planes, std::int64_t channel, std::int64_t index) noexcept {
  if (maps.data == nullptr) return nullptr;
  return planes ? maps.sample(index, channel) : maps.data + index * maps.pixel_stride;
}

template <class T>
std::int64_t row_stride(const Maps<T>& maps, bool planes) noexcept {
  return planes ? maps.sample_stride : maps.pixel_stride;
}

/// Calls body(begin, end) for blocks of rows, each thread's last one first: what a pass over them
/// has just read is still in cache.
template <class Body>
void for_rows_backwards(std::int64_t rows, std::int64_t channels, int threads, const Body& body) {
  constexpr std::int64_t kElements = 32 * 1024;
  const std::int64_t block = std::max<std::int64_t>(1, kElements / channels);
  parallel_for_backwards(threads, divide_up(rows, block), [&](std::int64_t i, int) {
    body(i * block, std::min(rows, (i + 1) * block));
  });
}

/// Calls map(channel, begin, end) for all samples of every channel in channels_first, and for all
/// pixels, of channel 0, in channels_last.
template <class Map>
void map_all(const BatchNorm& problem, int threads, const Map& map) {
  const std::int64_t channels = problem.channels, batch = problem.batch;
  if (problem.layout == Layout::channels_last) {
    for_rows_backwards(batch * problem.pixels, channels, threads,
                       [&](std::int64_t begin, std::int64_t end) { map(0, begin, end); });
  } else if (channels >= 4 * threads) {
    parallel_for(threads, channels, [&](std::int64_t c, int) { map(c, 0, batch); });
  } else {
    parallel_for(threads, channels * batch, [&](std::int64_t index, int) {
      map(index / batch, index % batch, index % batch + 1);
    });
  }
}

/// measure(group, part, spare) for every piece, merge(begin, end) of groups of channels, and then
/// map as above. `spare` has 2 * channels elements for each thread.
template <class T, class Measure, class Merge, class Map>
void measure_and_map(const BatchNorm& problem, const Pieces& pieces, int threads, T* spare,
                     const Measure& measure, const Merge& merge, const Map& map) {
  if (problem.layout == Layout::channels_first && pieces.parts == 1) {
    // A channel that has just been read is mapped while it is in cache.
    parallel_for(threads, problem.channels, [&](std::int64_t c, int) {
      measure(c, 0, spare);
      merge(c, c + 1);
      map(c, 0, problem.batch);
    });
    return;
  }
  const auto spare_size =
      static_cast<std::int64_t>(aligned_bytes<T>(2 * problem.channels) / sizeof(T));
  parallel_for(threads, pieces.channels * pieces.parts, [&](std::int64_t piece, int thread) {
    measure(piece / pieces.parts, piece % pieces.parts, spare + thread * spare_size);
  });
  merge(0, pieces.channels);
  map_all(problem, threads, map);
}

// ---- forward -------------------------------------------------------------------------------

template <class T>
class Forward {
 public:
  Forward(const BatchNorm& problem, const BatchNormArguments& arguments, int threads) noexcept
      : problem_(problem),
        arguments_(arguments),
        kernels_(training_kernels<T>()),
        pieces_(problem),
        planes_(problem.layout == Layout::channels_first),
        threads_(threads),
        x_(typed<const T>(arguments.x)),
        residual_(typed<const T>(arguments.residual)),
        y_(typed<T>(arguments.y)),
        past_caches_(results_past_caches<T>(elements(problem), residual_.data != nullptr ? 3 : 2)) {
  }

  std::size_t workspace_bytes() const noexcept {
    const std::int64_t channels = problem_.channels;
    return 2 * aligned_bytes<T>(channels) + 2 * aligned_bytes<double>(pieces_.parts * channels) +
           aligned_bytes<double>(pieces_.parts * pieces_.channels) +
           threads_ * aligned_bytes<T>(2 * channels);
  }

  void run(void* workspace) noexcept {
    Carver carver(workspace);
    const std::int64_t channels = problem_.channels;
    scale_ = carver.take<T>(channels);
    bias_ = carver.take<T>(channels);
    means_ = carver.take<double>(pieces_.parts * channels);
    squares_ = carver.take<double>(pieces_.parts * channels);
    counts_ = carver.take<double>(pieces_.parts * pieces_.channels);
    for (std::int64_t c = 0; c < channels; ++c) {
      bias_[c] = arguments_.bias ? static_cast<const T*>(arguments_.bias)[c] : T(0);
    }
    const auto map_rows = [&](std::int64_t channel, std::int64_t begin, std::int64_t end) {
      map(channel, begin, end);
    };
    if (!problem_.training) {
      for (std::int64_t c = 0; c < channels; ++c) {
        finish_channel(c, static_cast<const T*>(arguments_.running_mean)[c],
                       static_cast<double>(static_cast<const T*>(arguments_.running_var)[c]));
      }
      map_all(problem_, threads_, map_rows);
      return;
    }
    measure_and_map(
        problem_, pieces_, threads_, carver.take<T>(0),
        [&](std::int64_t group, std::int64_t part, T* spare) { measure(group, part, spare); },
        [&](std::int64_t begin, std::int64_t end) { merge(begin, end); }, map_rows);
  }

 private:
  Moments moments(std::int64_t group, std::int64_t part) const noexcept {
    const std::int64_t width = planes_ ? 1 : problem_.channels;
    const std::int64_t at = (group * pieces_.parts + part) * width;
    return {counts_[group * pieces_.parts + part], means_ + at, squares_ + at};
  }

  void measure(std::int64_t group, std::int64_t part, T* spare) noexcept {
    const Range range = pieces_.part(part);
    Moments result = moments(group, part);
    const T* first = row(x_, planes_, group, range.begin);
    const std::int64_t stride = row_stride(x_, planes_);
    if (planes_) {
      kernels_.moments_of_planes(range.end - range.begin, problem_.pixels, first, stride, result);
    } else {
      kernels_.moments_of_rows(range.end - range.begin, problem_.channels, first, stride, spare,
                               result);
    }
    counts_[group * pieces_.parts + part] = result.count;
  }

  /// The statistics of groups [begin, end) of channels.
  void merge(std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t width = planes_ ? 1 : problem_.channels;
    for (std::int64_t group = begin; group < end; ++group) {
      Moments all = moments(group, 0);
      for (std::int64_t part = 1; part < pieces_.parts; ++part) {
        kernels_.merge_moments(width, all, moments(group, part));
      }
      for (std::int64_t c = 0; c < width; ++c) {
        const double variance = all.squares[c] / all.count;
        finish_channel(group + c, all.mean[c], variance);
        update(group + c, all.mean[c], all.squares[c] / (all.count - 1));
      }
    }
  }

  void finish_channel(std::int64_t c, double mean, double variance) noexcept {
    const double inv_std = 1 / std::sqrt(variance + arguments_.eps);
    const double weight =
        arguments_.weight ? static_cast<double>(static_cast<const T*>(arguments_.weight)[c]) : 1.0;
    static_cast<T*>(arguments_.mean)[c] = static_cast<T>(mean);
    T& rounded = static_cast<T*>(arguments_.inv_std)[c];
    rounded = static_cast<T>(inv_std);
    scale_[c] = static_cast<T>(static_cast<double>(rounded) * weight);  // as the gradient has it
  }

  void update(std::int64_t c, double mean, double unbiased) noexcept {
    const auto blend = [&](void* running, double value) {
      if (running == nullptr) return;
      T& old = static_cast<T*>(running)[c];
      old = static_cast<T>((1 - arguments_.momentum) * static_cast<double>(old) +
                           arguments_.momentum * value);
    };
    blend(arguments_.running_mean, mean);
    blend(arguments_.running_var, unbiased);
  }

  void map(std::int64_t channel, std::int64_t begin, std::int64_t end) const noexcept {
    if (begin >= end) return;
    NormRows<T> rows{};
    rows.rows = end - begin;
    rows.count = planes_ ? problem_.pixels : problem_.channels;
    rows.x_stride = row_stride(x_, planes_);
    rows.residual_stride = row_stride(residual_, planes_);
    rows.y_stride = row_stride(y_, planes_);
    rows.x = row(x_, planes_, channel, begin);
    rows.residual = row(residual_, planes_, channel, begin);
    rows.y = row(y_, planes_, channel, begin);
    rows.mean = static_cast<const T*>(arguments_.mean) + channel;
    rows.scale = scale_ + channel;
    rows.bias = bias_ + channel;
    rows.activation = problem_.activation.activation;
    rows.slope = static_cast<T>(problem_.activation.slope);
    rows.past_caches = past_caches_;
    (planes_ ? kernels_.normalize_planes : kernels_.normalize_rows)(rows);
  }

  BatchNorm problem_;
  BatchNormArguments arguments_;
  const TrainingKernels<T>& kernels_;
  Pieces pieces_;
  bool planes_;
  int threads_;
  Maps<const T> x_, residual_;
  Maps<T> y_;
  bool past_caches_;
  T* scale_ = nullptr;
  T* bias_ = nullptr;
  double* means_ = nullptr;
  double* squares_ = nullptr;
  double* counts_ = nullptr;
};

// ---- gradient ------------------------------------------------------------------------------

template <class T>
class Backward {
 public:
  Backward(const BatchNorm& problem, const BatchNormGradients& arguments, int threads) noexcept
      : problem_(problem),
        arguments_(arguments),
        kernels_(training_kernels<T>()),
        pieces_(problem),
        planes_(problem.layout == Layout::channels_first),
        threads_(threads),
        dy_(typed<const T>(arguments.dy)),
        x_(typed<const T>(arguments.x)),
        y_(typed<const T>(arguments.y)),
        dx_(typed<T>(arguments.dx)),
        dresidual_(typed<T>(arguments.dresidual)),
        past_caches_(results_past_caches<T>(elements(problem), 3)) {}

  std::size_t workspace_bytes() const noexcept {
    const std::int64_t channels = problem_.channels;
    return 4 * aligned_bytes<T>(channels) + 2 * aligned_bytes<double>(pieces_.parts * channels) +
           threads_ * aligned_bytes<T>(2 * channels);
  }

  void run(void* workspace) noexcept {
    Carver carver(workspace);
    const std::int64_t channels = problem_.channels;
    scale_ = carver.take<T>(channels);
    bias_ = carver.take<T>(channels);
    slope_of_x_ = carver.take<T>(channels);
    offset_ = carver.take<T>(channels);
    sums_ = carver.take<double>(pieces_.parts * channels);
    products_ = carver.take<double>(pieces_.parts * channels);
    for (std::int64_t c = 0; c < channels; ++c) {
      const double inv_std = static_cast<const T*>(arguments_.inv_std)[c];
      const double weight =
          arguments_.weight ? static_cast<double>(static_cast<const T*>(arguments_.weight)[c]) : 1.0;
      scale_[c] = static_cast<T>(inv_std * weight);
      bias_[c] = arguments_.bias ? static_cast<const T*>(arguments_.bias)[c] : T(0);
    }
    const auto map_rows = [&](std::int64_t channel, std::int64_t begin, std::int64_t end) {
      map(channel, begin, end);
    };
    measure_and_map(
        problem_, pieces_, threads_, carver.take<T>(0),
        [&](std::int64_t group, std::int64_t part, T* spare) { measure(group, part, spare); },
        [&](std::int64_t begin, std::int64_t end) { merge(begin, end); }, map_rows);
  }

 private:
  NormGradientRows<T> rows(std::int64_t channel, std::int64_t begin,
                           std::int64_t end) const noexcept {
    NormGradientRows<T> rows{};
    rows.rows = end - begin;
    rows.count = planes_ ? problem_.pixels : problem_.channels;
    rows.x_stride = row_stride(x_, planes_);
    rows.y_stride = row_stride(y_, planes_);
    rows.dy_stride = row_stride(dy_, planes_);
    rows.dx_stride = row_stride(dx_, planes_);
    rows.dresidual_stride = row_stride(dresidual_, planes_);
    rows.dy = row(dy_, planes_, channel, begin);
    rows.x = row(x_, planes_, channel, begin);
    rows.y = row(y_, planes_, channel, begin);
    rows.dx = row(dx_, planes_, channel, begin);
    rows.dresidual = row(dresidual_, planes_, channel, begin);
    rows.mean = static_cast<const T*>(arguments_.mean) + channel;
    rows.bias = bias_ + channel;
    rows.scale = scale_ + channel;
    rows.slope_of_x = slope_of_x_ + channel;
    rows.offset = offset_ + channel;
    rows.activation = problem_.activation.activation;
    rows.slope = static_cast<T>(problem_.activation.slope);
    rows.past_caches = past_caches_;
    return rows;
  }

  void measure(std::int64_t group, std::int64_t part, T* spare) noexcept {
    const Range range = pieces_.part(part);
    const std::int64_t at = (group * pieces_.parts + part) * (planes_ ? 1 : problem_.channels);
    const NormGradientRows<T> part_rows = rows(group, range.begin, range.end);
    if (planes_) {
      kernels_.gradient_sums_of_planes(part_rows, sums_ + at, products_ + at);
    } else {
      kernels_.gradient_sums_of_rows(part_rows, spare, sums_ + at, products_ + at);
    }
  }

  /// With m elements a channel, xc = x - mean and s = inv_std:
  ///   dx = w s (g - sum(g) / m - xc s^2 sum(g xc) / m).
  void merge(std::int64_t begin, std::int64_t end) noexcept {
    const std::int64_t width = planes_ ? 1 : problem_.channels;
    const auto count = static_cast<double>(problem_.batch * problem_.pixels);
    for (std::int64_t group = begin; group < end; ++group) {
      for (std::int64_t c = 0; c < width; ++c) {
        double sum = 0, product = 0;
        for (std::int64_t part = 0; part < pieces_.parts; ++part) {
          sum += sums_[(group * pieces_.parts + part) * width + c];
          product += products_[(group * pieces_.parts + part) * width + c];
        }
        const std::int64_t channel = group + c;
        const double inv_std = static_cast<const T*>(arguments_.inv_std)[channel];
        const double scale = scale_[channel];
        static_cast<T*>(arguments_.dbias)[channel] = static_cast<T>(sum);
        static_cast<T*>(arguments_.dweight)[channel] = static_cast<T>(product * inv_std);
        slope_of_x_[channel] = problem_.training
                                   ? static_cast<T>(-scale * inv_std * inv_std * product / count)
                                   : T(0);
        offset_[channel] = problem_.training ? static_cast<T>(-scale * sum / count) : T(0);
      }
    }
  }

  void map(std::int64_t channel, std::int64_t begin, std::int64_t end) const noexcept {
    if (begin >= end) return;
    (planes_ ? kernels_.gradient_of_planes : kernels_.gradient_of_rows)(rows(channel, begin, end));
  }

  BatchNorm problem_;
  BatchNormGradients arguments_;
  const TrainingKernels<T>& kernels_;
  Pieces pieces_;
  bool planes_;
  int threads_;
  Maps<const T> dy_, x_, y_;
  Maps<T> dx_, dresidual_;
  bool past_caches_;
  T* scale_ = nullptr;
  T* bias_ = nullptr;
  T* slope_of_x_ = nullptr;
  T* offset_ = nullptr;
  double* sums_ = nullptr;
  double* products_ = nullptr;
};

template <class Pass, class Arguments>
void run_pass(const BatchNorm& problem, const Arguments& arguments, int threads) {
  Pass pass(problem, arguments, threads_for(2 * elements(problem), threads));
  const Scratch workspace(pass.workspace_bytes());
  pass.run(workspace.data());
}

}  // namespace

void batch_norm(const BatchNorm& problem, const BatchNormArguments& arguments, int threads) {
  const auto run = problem.dtype == DType::float32
                       ? run_pass<Forward<float>, BatchNormArguments>
                       : run_pass<Forward<double>, BatchNormArguments>;
  run(problem, arguments, threads);
}

void batch_norm_backward(const BatchNorm& problem, const BatchNormGradients& arguments,
                         int threads) {
  const auto run = problem.dtype == DType::float32
                       ? run_pass<Backward<float>, BatchNormGradients>
                       : run_pass<Backward<double>, BatchNormGradients>;
  run(problem, arguments, threads);
}

}  // namespace convolith
