#pragma once

// Normalization of channels: their moments, the affine map with what is fused into it, and the
// gradient of both. Sums are of blocks about a shift, merged in double precision after Chan, Golub
// & LeVeque (Technical Report 222, Yale, 1979).

#include "kernels/activation.inl.hpp"
#include "kernels/training_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// A coefficient of the elements of a row: one for all, as of a plane; or one for each.
template <class T>
struct ChannelPlane {
  Vec<T> value;
  CONVOLITH_INLINE explicit ChannelPlane(const T* p) : value(broadcast(*p)) {}
  CONVOLITH_INLINE Vec<T> at(std::int64_t, int) const { return value; }
};
template <class T>
struct ChannelRow {
  const T* values;
  CONVOLITH_INLINE explicit ChannelRow(const T* p) : values(p) {}
  CONVOLITH_INLINE Vec<T> at(std::int64_t i, int lanes) const {
    return load_upto(values + i, lanes);
  }
};

// ---- forward -------------------------------------------------------------------------------

template <class T, template <class> class Coefficient>
void normalize(const NormRows<T>& n) {
  const Vec<T> slope = broadcast(n.slope);
  with_activation(n.activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    const Coefficient<T> mean(n.mean), scale(n.scale), bias(n.bias);
    const WrittenRows<T> written(n.y, n.y_stride, n.past_caches);
    for (std::int64_t r = 0; r < n.rows; ++r) {
      const T* x = n.x + r * n.x_stride;
      T* y = n.y + r * n.y_stride;
      const auto mapped = [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
        return multiply_add(load_upto(x + i, lanes) - mean.at(i, lanes), scale.at(i, lanes),
                            bias.at(i, lanes));
      };
      if (n.residual == nullptr) {
        for_vectors<T>(n.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
          written.write(y + i, activate<T, kActivation>(mapped(i, lanes), slope), lanes);
        });
      } else {
        const T* residual = n.residual + r * n.residual_stride;
        for_vectors<T>(n.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
          const Vec<T> sum = mapped(i, lanes) + load_upto(residual + i, lanes);
          written.write(y + i, activate<T, kActivation>(sum, slope), lanes);
        });
      }
    }
    written.finish();
  });
}

// ---- moments -------------------------------------------------------------------------------
//
// With a shift that is an element of the block, sum d^2 is at most 1 + n times the squares about
// the mean: subtracting n mean(d)^2 costs at most log2(n) bits, and few where data are ordinary.

constexpr std::int64_t kPlaneBlock = 2048;  // elements
constexpr std::int64_t kRowBlock = 256;     // elements of each channel
constexpr int kSumVectors = 4;

CONVOLITH_INLINE void merge_moment(double count, double& mean, double& squares, double from_count,
                                   double from_mean, double from_squares) {
  const double all = count + from_count;
  const double distance = from_mean - mean;
  mean += distance * (from_count / all);
  squares += from_squares + distance * distance * (count * (from_count / all));
}

inline void merge_moments(std::int64_t channels, Moments& into, const Moments& from) {
  for (std::int64_t c = 0; c < channels; ++c) {
    merge_moment(into.count, into.mean[c], into.squares[c], from.count, from.mean[c],
                 from.squares[c]);
  }
  into.count += from.count;
}

/// Two sums over the elements of one channel, block by block.
template <class T>
struct PairOfSums {
  Vec<T> first[kSumVectors], second[kSumVectors];

  CONVOLITH_INLINE PairOfSums() { clear(); }
  CONVOLITH_INLINE void clear() {
    for (int v = 0; v < kSumVectors; ++v) first[v] = second[v] = zero<T>();
  }
  /// Adds what pair(i, lanes, a, b) gives for the elements [0, count) of a run.
  template <class Pair>
  CONVOLITH_INLINE void add(std::int64_t count, const Pair& pair) {
    std::int64_t i = 0;
    const auto take = [&](int v, std::int64_t at, int lanes) CONVOLITH_INLINE_LAMBDA {
      Vec<T> a, b, c;
      pair(at, lanes, a, b, c);
      first[v] = first[v] + a;
      second[v] = multiply_add(b, c, second[v]);
    };
    for (; i + kSumVectors * kLanes<T> <= count; i += kSumVectors * kLanes<T>) {
      CONVOLITH_UNROLL(4)
      for (int v = 0; v < kSumVectors; ++v) take(v, i + v * kLanes<T>, kLanes<T>);
    }
    for (; i + kLanes<T> <= count; i += kLanes<T>) take(0, i, kLanes<T>);
    if (i < count) take(1, i, static_cast<int>(count - i));
  }
  CONVOLITH_INLINE double first_total() const {
    return static_cast<double>(sum_of_lanes<T>((first[0] + first[1]) + (first[2] + first[3])));
  }
  CONVOLITH_INLINE double second_total() const {
    return static_cast<double>(sum_of_lanes<T>((second[0] + second[1]) + (second[2] + second[3])));
  }
};

/// Calls run(row, begin, count) for pieces of rows, and fold(elements) after every block of them.
template <class Run, class Fold>
CONVOLITH_INLINE void for_plane_blocks(std::int64_t rows, std::int64_t count, const Run& run,
                                       const Fold& fold) {
  std::int64_t pending = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < count;) {
      const std::int64_t room = kPlaneBlock - pending;
      const std::int64_t taken = count - i < room ? count - i : room;
      run(r, i, taken, pending == 0);
      i += taken;
      pending += taken;
      if (pending == kPlaneBlock) {
        fold(pending);
        pending = 0;
      }
    }
  }
  if (pending > 0) fold(pending);
}

/// One outlier of three is not the middle.
template <class T>
CONVOLITH_INLINE T middle_of(T a, T b, T c) {
  const T low = a < b ? a : b;
  const T high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

template <class T>
void moments_of_planes(std::int64_t rows, std::int64_t count, const T* x, std::int64_t row_stride,
                       Moments& moments) {
  PairOfSums<T> sums;
  T shift = 0;
  double all = 0, mean = 0, squares = 0;
  for_plane_blocks(
      rows, count,
      [&](std::int64_t r, std::int64_t begin, std::int64_t taken, bool first)
          CONVOLITH_INLINE_LAMBDA {
            const T* p = x + r * row_stride + begin;
            if (first) shift = middle_of(p[0], p[taken / 2], p[taken - 1]);
            const Vec<T> about = broadcast(shift);
            sums.add(taken, [&](std::int64_t i, int lanes, Vec<T>& a, Vec<T>& b, Vec<T>& c)
                                CONVOLITH_INLINE_LAMBDA {
                                  const Vec<T> element = lanes == kLanes<T>
                                                             ? load(p + i)
                                                             : load_between(p + i, 0, lanes, about);
                                  a = b = c = element - about;
                                });
          },
      [&](std::int64_t elements) CONVOLITH_INLINE_LAMBDA {
        const auto n = static_cast<double>(elements);
        const double sum = sums.first_total();
        const double block = sums.second_total() - sum * (sum / n);
        merge_moment(all, mean, squares, n, static_cast<double>(shift) + sum / n,
                     block < 0 ? 0 : block);
        all += n;
        sums.clear();
      });
  moments.count = all;
  moments.mean[0] = mean;
  moments.squares[0] = squares;
}

/// first[c] (+)= sum of a, second[c] (+)= sum of b c over rows [begin, begin + kRows).
template <int kRows, class T, class Pair>
CONVOLITH_INLINE void add_rows(std::int64_t begin, std::int64_t channels, bool accumulate,
                               T* first, T* second, const Pair& pair) {
  for_vectors<T>(channels, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
    Vec<T> sum = accumulate ? load_upto(first + i, lanes) : zero<T>();
    Vec<T> product = accumulate ? load_upto(second + i, lanes) : zero<T>();
    CONVOLITH_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      Vec<T> a, b, c;
      pair(begin + r, i, lanes, a, b, c);
      sum = sum + a;
      product = multiply_add(b, c, product);
    }
    store_upto<T>(first + i, sum, lanes);
    store_upto<T>(second + i, product, lanes);
  });
}

template <class T, class Pair>
CONVOLITH_INLINE void add_block_of_rows(std::int64_t begin, std::int64_t end,
                                        std::int64_t channels, T* first, T* second,
                                        const Pair& pair) {
  constexpr int kRows = 4;
  std::int64_t r = begin;
  for (; r + kRows <= end; r += kRows) {
    add_rows<kRows>(r, channels, r > begin, first, second, pair);
  }
  for (; r < end; ++r) add_rows<1>(r, channels, r > begin, first, second, pair);
}

template <class T>
void moments_of_rows(std::int64_t rows, std::int64_t channels, const T* x, std::int64_t row_stride,
                     T* spare, Moments& moments) {
  T* first = spare;
  T* second = spare + channels;
  moments.count = 0;
  for (std::int64_t c = 0; c < channels; ++c) moments.mean[c] = moments.squares[c] = 0;
  for (std::int64_t begin = 0; begin < rows; begin += kRowBlock) {
    const std::int64_t end = begin + kRowBlock < rows ? begin + kRowBlock : rows;
    const T* shift = x + begin * row_stride;
    add_block_of_rows(begin, end, channels, first, second,
                      [&](std::int64_t r, std::int64_t i, int lanes, Vec<T>& a, Vec<T>& b,
                          Vec<T>& c) CONVOLITH_INLINE_LAMBDA {
                        a = b = c = load_upto(x + r * row_stride + i, lanes) -
                                    load_upto(shift + i, lanes);
                      });
    const auto n = static_cast<double>(end - begin);
    for (std::int64_t c = 0; c < channels; ++c) {
      const double sum = first[c];
      const double block = second[c] - sum * (sum / n);
      merge_moment(moments.count, moments.mean[c], moments.squares[c], n, shift[c] + sum / n,
                   block < 0 ? 0 : block);
    }
    moments.count += n;
  }
}

// ---- gradient ------------------------------------------------------------------------------

/// Element i of row r: dy times the derivative of the activation, and x - mean. Outside the row
/// dy, and so g, is 0.
template <class T, Activation kActivation, bool kFromX, template <class> class Coefficient>
struct MapGradient {
  NormGradientRows<T> n;  ///< a copy, which stores cannot change
  Coefficient<T> mean, scale, bias;
  Vec<T> slope;
  Vec<T> g{}, distance{};

  CONVOLITH_INLINE explicit MapGradient(const NormGradientRows<T>& rows)
      : n(rows), mean(rows.mean), scale(rows.scale), bias(rows.bias), slope(broadcast(rows.slope)) {}

  CONVOLITH_INLINE void at(std::int64_t r, std::int64_t i, int lanes) {
    const Vec<T> dy = load_upto(n.dy + r * n.dy_stride + i, lanes);
    distance = load_upto(n.x + r * n.x_stride + i, lanes) - mean.at(i, lanes);
    if constexpr (kActivation == Activation::none) {
      g = dy;
    } else if constexpr (kFromX) {
      // The forward's very operations: a clamp falls on the same side.
      const Vec<T> mapped = multiply_add(distance, scale.at(i, lanes), bias.at(i, lanes));
      g = gradient_at_input<T, kActivation>(dy, mapped, slope);
    } else {
      const Vec<T> y = load_upto(n.y + r * n.y_stride + i, lanes);
      g = gradient_at_output<T, kActivation>(dy, y, slope);
    }
  }
};

/// Calls body(gradient) with the MapGradient that the rows ask for.
template <class T, template <class> class Coefficient, class Body>
CONVOLITH_INLINE void with_map_gradient(const NormGradientRows<T>& n, const Body& body) {
  with_activation(n.activation, [&](auto constant) {
    constexpr Activation kActivation = decltype(constant)::value;
    if (n.y != nullptr || kActivation == Activation::none) {
      body(MapGradient<T, kActivation, false, Coefficient>(n));
    } else {
      body(MapGradient<T, kActivation, true, Coefficient>(n));
    }
  });
}

template <class T>
void gradient_sums_of_planes(const NormGradientRows<T>& n, double* sums, double* products) {
  *sums = *products = 0;
  with_map_gradient<T, ChannelPlane>(n, [&](auto map) {
    PairOfSums<T> pair;
    for_plane_blocks(
        n.rows, n.count,
        [&](std::int64_t r, std::int64_t begin, std::int64_t taken, bool) CONVOLITH_INLINE_LAMBDA {
          pair.add(taken, [&](std::int64_t i, int lanes, Vec<T>& a, Vec<T>& b, Vec<T>& c)
                              CONVOLITH_INLINE_LAMBDA {
                                map.at(r, begin + i, lanes);
                                a = b = map.g;
                                c = map.distance;
                              });
        },
        [&](std::int64_t) CONVOLITH_INLINE_LAMBDA {
          *sums += pair.first_total();
          *products += pair.second_total();
          pair.clear();
        });
  });
}

template <class T>
void gradient_sums_of_rows(const NormGradientRows<T>& n, T* spare, double* sums,
                           double* products) {
  T* first = spare;
  T* second = spare + n.count;
  for (std::int64_t c = 0; c < n.count; ++c) sums[c] = products[c] = 0;
  with_map_gradient<T, ChannelRow>(n, [&](auto map) {
    for (std::int64_t begin = 0; begin < n.rows; begin += kRowBlock) {
      const std::int64_t end = begin + kRowBlock < n.rows ? begin + kRowBlock : n.rows;
      add_block_of_rows(begin, end, n.count, first, second,
                        [&](std::int64_t r, std::int64_t i, int lanes, Vec<T>& a, Vec<T>& b,
                            Vec<T>& c) CONVOLITH_INLINE_LAMBDA {
                          map.at(r, i, lanes);
                          a = b = map.g;
                          c = map.distance;
                        });
      for (std::int64_t c = 0; c < n.count; ++c) {
        sums[c] += first[c];
        products[c] += second[c];
      }
    }
  });
}

template <class T, template <class> class Coefficient>
void norm_gradient(const NormGradientRows<T>& n) {
  with_map_gradient<T, Coefficient>(n, [&](auto map) {
    const Coefficient<T> slope_of_x(n.slope_of_x), offset(n.offset);
    const WrittenRows<T> written(n.dx, n.dx_stride, n.past_caches);
    const WrittenRows<T> written_residual(n.dresidual, n.dresidual_stride, n.past_caches);
    for (std::int64_t r = 0; r < n.rows; ++r) {
      T* dx = n.dx + r * n.dx_stride;
      T* dresidual = n.dresidual == nullptr ? nullptr : n.dresidual + r * n.dresidual_stride;
      for_vectors<T>(n.count, [&](std::int64_t i, int lanes) CONVOLITH_INLINE_LAMBDA {
        map.at(r, i, lanes);
        if (dresidual != nullptr) written_residual.write(dresidual + i, map.g, lanes);
        const Vec<T> constant_part =
            multiply_add(slope_of_x.at(i, lanes), map.distance, offset.at(i, lanes));
        written.write(dx + i, multiply_add(map.scale.at(i, lanes), map.g, constant_part), lanes);
      });
    }
    written.finish();
  });
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
