// Gathering and scattering by indices: max unpooling, and gradients of chosen elements.

#include <cstdint>
#include <string>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/error.hpp"
#include "convolith/pooling.hpp"
#include "pooling/geometry.hpp"
#include "pooling/gradient.hpp"
#include "pooling/maps.hpp"
#include "runtime/scratch.hpp"

namespace convolith {
namespace {

/// Maps with their indices: `points` elements per map, of which each names a pixel of a plane.
struct Choice {
  Layout layout;
  std::int64_t batch, channels;
  std::int64_t points, plane;

  MapGrid grid(int threads) const noexcept {
    const std::int64_t wanted = threads == 1 ? 1 : divide_up(4 * threads, batch);
    const bool channels_touch = layout == Layout::channels_last;
    return {batch, channels, channels_touch ? channel_block(channels, wanted) : 1, 1};
  }
  int team(int threads) const noexcept {
    return worthwhile_threads(threads, batch * channels * (points + plane));
  }

  /// Calls body(sample, first channel, channels, thread) for pieces that are whole maps.
  template <class Body>
  void run(int threads, const Body& body) const noexcept {
    const int threads_used = team(threads);
    grid(threads_used).run(threads_used, [&](std::int64_t n, std::int64_t c, std::int64_t count,
                                             std::int64_t, std::int64_t, int thread) {
      body(n, c, count, thread);
    });
  }

  void check(const Maps<std::int64_t>& indices, int threads) const {
    struct Place {
      bool found = false;
      std::int64_t n = 0, c = 0, point = 0;
    };
    std::vector<Place> places(static_cast<std::size_t>(team(threads)));
    run(threads, [&](std::int64_t n, std::int64_t first, std::int64_t count, int thread) {
      Place& place = places[static_cast<std::size_t>(thread)];
      for (std::int64_t point = 0; point < points && !place.found; ++point) {
        for (std::int64_t c = first; c < first + count && !place.found; ++c) {
          const std::int64_t index = indices.sample(n, c)[point * indices.pixel_stride];
          if (index < 0 || index >= plane) place = {true, n, c, point};
        }
      }
    });
    for (const Place& place : places) {
      if (!place.found) continue;
      const std::int64_t index =
          indices.sample(place.n, place.c)[place.point * indices.pixel_stride];
      throw InvalidArgument("indices holds " + std::to_string(index) + " (sample " +
                            std::to_string(place.n) + ", channel " + std::to_string(place.c) +
                            ", element " + std::to_string(place.point) +
                            "); indices must lie in 0 to " + std::to_string(plane - 1));
    }
  }
};

template <class T>
void backward_indices(const PoolProblem& problem, const Maps<T>& dy,
                      const Maps<std::int64_t>& indices, const Maps<T>& dx, int threads) {
  const Choice choice{problem.layout, problem.batch, problem.channels, problem.output_pixels(),
                      problem.input_pixels()};
  choice.check(indices, threads);
  const bool long_chains = PoolWindows(problem).most_readers() > GradientPlane<T>::kChain;
  const int team = choice.team(threads);
  const std::int64_t partial_size = long_chains ? choice.plane * choice.grid(team).block : 0;
  const Scratch scratch(static_cast<std::size_t>(partial_size * team) * sizeof(T));
  choice.run(threads, [&](std::int64_t n, std::int64_t first, std::int64_t count, int thread) {
    T* const partial = static_cast<T*>(scratch.data()) + partial_size * thread;
    GradientPlane<T> gradient(dx.sample(n, first), dx.pixel_stride, count, choice.plane,
                              long_chains ? partial : nullptr);
    gradient.zero_until(choice.plane);
    for (std::int64_t point = 0; point < choice.points; ++point) {
      for (std::int64_t c = 0; c < count; ++c) {
        gradient.add(indices.sample(n, first + c)[point * indices.pixel_stride], c,
                     dy.sample(n, first + c)[point * dy.pixel_stride]);
      }
      gradient.next_output();
    }
    gradient.fold();
  });
}

Choice choice_of(const UnpoolProblem& problem) {
  return {problem.layout, problem.batch, problem.channels, problem.pooled_pixels(),
          problem.unpooled_pixels()};
}

template <class T>
void unpool_typed(const Choice& choice, const Maps<T>& x, const Maps<std::int64_t>& indices,
                  const Maps<T>& y, int threads) {
  choice.run(threads, [&](std::int64_t n, std::int64_t first, std::int64_t count, int) {
    zero_pixels(y.sample(n, first), y.pixel_stride, count, 0, choice.plane);
    for (std::int64_t point = 0; point < choice.points; ++point) {
      for (std::int64_t c = first; c < first + count; ++c) {
        const std::int64_t index = indices.sample(n, c)[point * indices.pixel_stride];
        y.sample(n, c)[index * y.pixel_stride] = x.sample(n, c)[point * x.pixel_stride];
      }
    }
  });
}

template <class T>
void unpool_backward_typed(const Choice& choice, const Maps<T>& dy,
                           const Maps<std::int64_t>& indices, const Maps<T>& dx, int threads) {
  choice.run(threads, [&](std::int64_t n, std::int64_t first, std::int64_t count, int) {
    for (std::int64_t point = 0; point < choice.points; ++point) {
      for (std::int64_t c = first; c < first + count; ++c) {
        const std::int64_t index = indices.sample(n, c)[point * indices.pixel_stride];
        dx.sample(n, c)[point * dx.pixel_stride] = dy.sample(n, c)[index * dy.pixel_stride];
      }
    }
  });
}

}  // namespace

void pool_backward_indices(const PoolProblem& problem, const TensorView& dy,
                           const TensorView& indices, const TensorView& dx, int threads) {
  if (problem.batch == 0) return;
  if (gathers_choices(problem)) {
    gather_chosen(problem, dy, indices, dx, threads);
    return;
  }
  const Maps<std::int64_t> at = typed<std::int64_t>(indices);
  if (problem.dtype == DType::float32) {
    backward_indices(problem, typed<float>(dy), at, typed<float>(dx), threads);
  } else {
    backward_indices(problem, typed<double>(dy), at, typed<double>(dx), threads);
  }
}

void unpool(const UnpoolProblem& problem, const TensorView& x, const TensorView& indices,
            const TensorView& y, int threads) {
  if (problem.batch == 0) return;
  const Choice choice = choice_of(problem);
  const Maps<std::int64_t> at = typed<std::int64_t>(indices);
  choice.check(at, threads);
  if (problem.dtype == DType::float32) {
    unpool_typed(choice, typed<float>(x), at, typed<float>(y), threads);
  } else {
    unpool_typed(choice, typed<double>(x), at, typed<double>(y), threads);
  }
}

void unpool_backward(const UnpoolProblem& problem, const TensorView& dy,
                     const TensorView& indices, const TensorView& dx, int threads) {
  if (problem.batch == 0) return;
  const Choice choice = choice_of(problem);
  const Maps<std::int64_t> at = typed<std::int64_t>(indices);
  choice.check(at, threads);
  if (problem.dtype == DType::float32) {
    unpool_backward_typed(choice, typed<float>(dy), at, typed<float>(dx), threads);
  } else {
    unpool_backward_typed(choice, typed<double>(dy), at, typed<double>(dx), threads);
  }
}

}  // namespace convolith
