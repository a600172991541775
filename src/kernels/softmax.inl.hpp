#pragma once

// Softmax, its logarithm and cross-entropy. Lanes are the elements of one distribution, or, where
// those lie apart, neighbouring distributions.

#include "kernels/activation.inl.hpp"
#include "kernels/training_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// A sum without a chain of more than 256 additions (for 2^24 addends; then it grows slowly).
template <class T>
struct ChainedSum {
  static constexpr int kChain = 256;
  Vec<T> value = zero<T>(), blocks = zero<T>(), total = zero<T>();
  int in_value = 0, in_blocks = 0;

  CONVOLITH_INLINE void add(Vec<T> v) {
    value = value + v;
    if (++in_value < kChain) return;
    blocks = blocks + value;
    value = zero<T>();
    in_value = 0;
    if (++in_blocks < kChain) return;
    total = total + blocks;
    blocks = zero<T>();
    in_blocks = 0;
  }
  CONVOLITH_INLINE Vec<T> result() const { return total + (blocks + value); }
};

/// Elements of one distribution: vectors of neighbours, reduced to one value in all lanes.
template <class T>
struct AlongRow {
  std::int64_t count;

  template <class Body>
  CONVOLITH_INLINE void each(const Body& body) const {
    for_vectors<T>(count, [&](std::int64_t i, int lanes)
                              CONVOLITH_INLINE_LAMBDA { body(i, i, lanes); });
  }
  CONVOLITH_INLINE static Vec<T> load_or(const T* p, int lanes, Vec<T> fill) {
    return lanes == kLanes<T> ? load(p) : load_between(p, 0, lanes, fill);
  }
  CONVOLITH_INLINE static Vec<T> add_up(Vec<T> v) { return broadcast(sum_of_lanes<T>(v)); }
  CONVOLITH_INLINE static Vec<T> greatest(Vec<T> v) {
    CONVOLITH_UNROLL(4)
    for (int half = kLanes<T> / 2; half > 0; half /= 2) {
      v = max_keeping_nan<T>(interleave_low<T>(v, v), interleave_high<T>(v, v));
    }
    return broadcast<T>(v[0]);
  }
};

/// Elements of kLanes distributions at a time, one to a lane.
template <class T>
struct AcrossRows {
  std::int64_t count, stride;
  int lanes;

  template <class Body>
  CONVOLITH_INLINE void each(const Body& body) const {
    if (lanes == kLanes<T>) {
      for (std::int64_t j = 0; j < count; ++j) body(j * stride, j, kLanes<T>);
    } else {
      for (std::int64_t j = 0; j < count; ++j) body(j * stride, j, lanes);
    }
  }
  CONVOLITH_INLINE static Vec<T> load_or(const T* p, int lanes, Vec<T>) {
    return load_upto(p, lanes);
  }
  CONVOLITH_INLINE static Vec<T> add_up(Vec<T> v) { return v; }
  CONVOLITH_INLINE static Vec<T> greatest(Vec<T> v) { return v; }
};

/// Calls body(walk, first distribution, distributions).
template <class T, class Body>
CONVOLITH_INLINE void for_distributions(std::int64_t stacked, std::int64_t count,
                                        std::int64_t stride, const Body& body) {
  if (stride == 1) {
    body(AlongRow<T>{count}, std::int64_t{0}, 1);
    return;
  }
  for (std::int64_t i = 0; i < stacked; i += kLanes<T>) {
    const int lanes = stacked - i < kLanes<T> ? static_cast<int>(stacked - i) : kLanes<T>;
    body(AcrossRows<T>{count, stride, lanes}, i, lanes);
  }
}

template <class T, class Walk>
CONVOLITH_INLINE Vec<T> greatest_element(const Walk& walk, const T* x) {
  const Vec<T> least = broadcast(-static_cast<T>(__builtin_inf()));
  Vec<T> greatest = least;
  walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
    greatest = max_keeping_nan<T>(greatest, Walk::load_or(x + at, lanes, least));
  });
  return Walk::greatest(greatest);
}

/// The sum of e^(x - greatest); `kept`, unless null, gets the addends.
template <class T, class Walk>
CONVOLITH_INLINE Vec<T> sum_of_powers(const Walk& walk, const T* x, Vec<T> greatest, T* kept) {
  const Vec<T> least = broadcast(-static_cast<T>(__builtin_inf()));
  ChainedSum<T> sum;
  walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
    const Vec<T> power = exponential<T>(Walk::load_or(x + at, lanes, least) - greatest);
    if (kept != nullptr) store_upto<T>(kept + at, power, lanes);
    sum.add(power);
  });
  return Walk::add_up(sum.result());
}

template <class T>
void softmax(const SoftmaxPass<T>& pass) {
  for_distributions<T>(
      pass.stacked, pass.count, pass.stride, [&](const auto& walk, std::int64_t first, int) {
        const T* x = pass.x + first;
        T* y = pass.y + first;
        const Vec<T> greatest = greatest_element(walk, x);
        const Vec<T> sum = sum_of_powers(walk, x, greatest, pass.logarithm ? nullptr : y);
        if (pass.logarithm) {
          const Vec<T> log_of_sum = logarithm<T>(sum);
          walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
            store_upto<T>(y + at, (load_upto(x + at, lanes) - greatest) - log_of_sum, lanes);
          });
        } else {
          const Vec<T> share = broadcast<T>(T(1)) / sum;
          walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
            store_upto<T>(y + at, load_upto(y + at, lanes) * share, lanes);
          });
        }
      });
}

template <class T>
void softmax_gradient(const SoftmaxPass<T>& pass) {
  for_distributions<T>(
      pass.stacked, pass.count, pass.stride, [&](const auto& walk, std::int64_t first, int) {
        const T* y = pass.x + first;
        const T* dy = pass.dy + first;
        T* dx = pass.y + first;
        ChainedSum<T> sum;
        walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
          const Vec<T> g = load_upto(dy + at, lanes);
          sum.add(pass.logarithm ? g : g * load_upto(y + at, lanes));
        });
        const Vec<T> total = walk.add_up(sum.result());
        walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
          const Vec<T> g = load_upto(dy + at, lanes);
          const Vec<T> of_y = load_upto(y + at, lanes);
          store_upto<T>(dx + at,
                        pass.logarithm ? g - exponential<T>(of_y) * total : of_y * (g - total),
                        lanes);
        });
      });
}

/// The classes of kLanes targets, or of one in all lanes.
template <class T>
struct Targets {
  alignas(kVectorBytes) T logit[kLanes<T>];   ///< x of the target
  alignas(kVectorBytes) T weight[kLanes<T>];  ///< (1 - smoothing) of its weight; 0: ignored
  alignas(kVectorBytes) T kept[kLanes<T>];    ///< 1, or 0: ignored
};

template <class T>
void cross_entropy(const CrossEntropyPass<T>& pass) {
  const T share = pass.smoothing / static_cast<T>(pass.count);
  const bool smooth = pass.smoothing > 0;
  const bool along = pass.stride == 1;
  for_distributions<T>(
      pass.stacked, pass.count, pass.stride,
      [&](const auto& walk, std::int64_t first, int distributions) {
        const T* x = pass.x + first;
        Targets<T> targets = {};
        bool any = false;
        for (int i = 0; i < distributions; ++i) {
          const std::int64_t target = pass.target[first + i];
          if (target == pass.ignored) continue;
          any = true;
          targets.kept[i] = 1;
          targets.logit[i] = x[i + target * pass.stride];
          targets.weight[i] = (1 - pass.smoothing) * (pass.weight ? pass.weight[target] : T(1));
        }
        Vec<T> logit = load<T>(targets.logit);
        Vec<T> weight = load<T>(targets.weight);
        Vec<T> kept = load<T>(targets.kept);
        if (along) {
          logit = broadcast(targets.logit[0]);
          weight = broadcast(targets.weight[0]);
          kept = broadcast(targets.kept[0]);
        }
        const Mask<T> is_kept = (Mask<T>)(kept > zero<T>());
        T* dx = pass.loss != nullptr ? nullptr : pass.dx + first;
        if (!any) {
          if (dx == nullptr) {
            store_upto<T>(pass.loss + first, zero<T>(), distributions);
          } else {
            walk.each([&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
              store_upto<T>(dx + at, zero<T>(), lanes);
            });
          }
          return;
        }
        const Vec<T> greatest = greatest_element(walk, x);
        const Vec<T> sum = sum_of_powers(walk, x, greatest, dx);
        const auto weight_of = [&](std::int64_t j, int lanes) CONVOLITH_INLINE_LAMBDA {
          if (pass.weight == nullptr) return broadcast(share);
          if (along) return broadcast(share) * load_upto(pass.weight + j, lanes);
          return broadcast(share * pass.weight[j]);
        };
        if (dx == nullptr) {
          const Vec<T> log_of_sum = logarithm<T>(sum);
          Vec<T> loss = weight * (log_of_sum - (logit - greatest));
          if (smooth) {
            ChainedSum<T> rest;
            walk.each([&](std::int64_t at, std::int64_t j, int lanes) CONVOLITH_INLINE_LAMBDA {
              const Vec<T> log_share = log_of_sum - (load_upto(x + at, lanes) - greatest);
              const Vec<T> term = weight_of(j, lanes) * log_share;
              if (!along || lanes == kLanes<T>) {
                rest.add(term);
              } else {
                alignas(kVectorBytes) T valid[kLanes<T>] = {};
                store_partial<T>(valid, term, lanes);
                rest.add(load<T>(valid));
              }
            });
            loss = loss + walk.add_up(rest.result());
          }
          store_upto<T>(pass.loss + first, select<T>(is_kept, loss, zero<T>()), distributions);
          return;
        }
        const Vec<T> scale = along || pass.one_scale
                                 ? broadcast(pass.scale[pass.one_scale ? 0 : first])
                                 : load_upto(pass.scale + first, distributions);
        const Vec<T> factor =
            (weight + broadcast(share * (smooth ? pass.weight_sum : T(0)))) / sum;
        walk.each([&](std::int64_t at, std::int64_t j, int lanes) CONVOLITH_INLINE_LAMBDA {
          Vec<T> g = load_upto(dx + at, lanes) * factor;
          if (smooth) g = g - weight_of(j, lanes);
          store_upto<T>(dx + at, select<T>(is_kept, scale * g, zero<T>()), lanes);
        });
        for (int i = 0; i < distributions; ++i) {
          const std::int64_t target = pass.target[first + i];
          if (target == pass.ignored) continue;
          const T its_scale = pass.scale[pass.one_scale ? 0 : first + i];
          dx[i + target * pass.stride] -= its_scale * targets.weight[i];
        }
      });
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
