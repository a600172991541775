#pragma once

// Softmax, its logarithm and cross-entropy. Lanes are the elements of one distribution, or, where
// those lie apart, neighbouring distributions.

#include "kernels/activation.inl.hpp"
#include "kernels/training_table.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// Independent accumulators of a reduction.
constexpr int kChains = 4;

/// A sum whose chains have 256 additions (up to 2^26 addends; then they grow slowly).
template <class T>
struct ChainedSum {
  static constexpr int kChain = 256;
  Vec<T> value[kChains] = {}, blocks = zero<T>(), total = zero<T>();
  int in_value = 0, in_blocks = 0;

  CONVOLITH_INLINE void add(int chain, Vec<T> v) { value[chain] = value[chain] + v; }
  /// To be called after an addition to every chain.
  CONVOLITH_INLINE void next() {
    if (++in_value < kChain) return;
    blocks = blocks + last();
    for (int i = 0; i < kChains; ++i) value[i] = zero<T>();
    in_value = 0;
    if (++in_blocks < kChain) return;
    total = total + blocks;
    blocks = zero<T>();
    in_blocks = 0;
  }
  CONVOLITH_INLINE Vec<T> last() const { return (value[0] + value[1]) + (value[2] + value[3]); }
  CONVOLITH_INLINE Vec<T> result() const { return total + (blocks + last()); }
};

/// Elements of one distribution: vectors of neighbours, reduced to one value in all lanes.
/// body(offset, class of the first lane, lanes, chain)
template <class T>
struct AlongRow {
  std::int64_t count;

  template <class Body, class Next>
  CONVOLITH_INLINE void each(const Body& body, const Next& next) const {
    std::int64_t i = 0;
    for (; i + kChains * kLanes<T> <= count; i += kChains * kLanes<T>) {
      CONVOLITH_UNROLL(4)
      for (int chain = 0; chain < kChains; ++chain) {
        body(i + chain * kLanes<T>, i + chain * kLanes<T>, kLanes<T>, chain);
      }
      next();
    }
    CONVOLITH_UNROLL(4)
    for (int chain = 0; chain < kChains - 1; ++chain) {
      if (i + kLanes<T> > count) break;
      body(i, i, kLanes<T>, chain);
      i += kLanes<T>;
    }
    if (i < count) body(i, i, static_cast<int>(count - i), kChains - 1);
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

  template <class Body, class Next>
  CONVOLITH_INLINE void each(const Body& body, const Next& next) const {
    if (lanes == kLanes<T>) {
      walk(kLanes<T>, body, next);
    } else {
      walk(lanes, body, next);
    }
  }
  template <class Body, class Next>
  CONVOLITH_INLINE void walk(int used, const Body& body, const Next& next) const {
    std::int64_t j = 0;
    for (; j + kChains <= count; j += kChains) {
      CONVOLITH_UNROLL(4)
      for (int chain = 0; chain < kChains; ++chain) {
        body((j + chain) * stride, j + chain, used, chain);
      }
      next();
    }
    for (; j < count; ++j) body(j * stride, j, used, 0);
  }
  CONVOLITH_INLINE static Vec<T> load_or(const T* p, int lanes, Vec<T>) {
    return load_upto(p, lanes);
  }
  CONVOLITH_INLINE static Vec<T> add_up(Vec<T> v) { return v; }
  CONVOLITH_INLINE static Vec<T> greatest(Vec<T> v) { return v; }
};

/// each() without a reduction.
template <class Walk, class Body>
CONVOLITH_INLINE void for_elements(const Walk& walk, const Body& body) {
  walk.each([&](std::int64_t at, std::int64_t j, int lanes, int)
                CONVOLITH_INLINE_LAMBDA { body(at, j, lanes); },
            []() CONVOLITH_INLINE_LAMBDA {});
}

/// The sum over a distribution of what term(offset, class, lanes) gives.
template <class T, class Walk, class Term>
CONVOLITH_INLINE Vec<T> sum_of_terms(const Walk& walk, const Term& term) {
  ChainedSum<T> sum;
  walk.each([&](std::int64_t at, std::int64_t j, int lanes, int chain)
                CONVOLITH_INLINE_LAMBDA { sum.add(chain, term(at, j, lanes)); },
            [&]() CONVOLITH_INLINE_LAMBDA { sum.next(); });
  return Walk::add_up(sum.result());
}

/// Calls body(walk, offset of the first element, first distribution, distributions).
template <class T, class Body>
CONVOLITH_INLINE void for_distributions(std::int64_t stacked, std::int64_t count,
                                        std::int64_t stride, const Body& body) {
  if (stride == 1) {
    for (std::int64_t i = 0; i < stacked; ++i) body(AlongRow<T>{count}, i * count, i, 1);
    return;
  }
  for (std::int64_t i = 0; i < stacked; i += kLanes<T>) {
    const int lanes = stacked - i < kLanes<T> ? static_cast<int>(stacked - i) : kLanes<T>;
    body(AcrossRows<T>{count, stride, lanes}, i, i, lanes);
  }
}

template <class T, class Walk>
CONVOLITH_INLINE Vec<T> greatest_element(const Walk& walk, const T* x) {
  const Vec<T> least = broadcast(-static_cast<T>(__builtin_inf()));
  Vec<T> greatest[kChains] = {least, least, least, least};
  walk.each(
      [&](std::int64_t at, std::int64_t, int lanes, int chain) CONVOLITH_INLINE_LAMBDA {
        greatest[chain] = max_keeping_nan<T>(greatest[chain], Walk::load_or(x + at, lanes, least));
      },
      []() CONVOLITH_INLINE_LAMBDA {});
  return Walk::greatest(max_keeping_nan<T>(max_keeping_nan<T>(greatest[0], greatest[1]),
                                           max_keeping_nan<T>(greatest[2], greatest[3])));
}

/// The sum of e^(x - greatest); `kept`, unless null, gets the addends.
template <class T, class Walk>
CONVOLITH_INLINE Vec<T> sum_of_powers(const Walk& walk, const T* x, Vec<T> greatest, T* kept) {
  const Vec<T> least = broadcast(-static_cast<T>(__builtin_inf()));
  const Vec<T> subtrahend = greatest - broadcast<T>(kNegligible<T>);
  return sum_of_terms<T>(
      walk, [&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
        const Vec<T> power = exponential<T>(Walk::load_or(x + at, lanes, least) - subtrahend);
        if (kept != nullptr) store_upto<T>(kept + at, power, lanes);
        return power;
      });
}

/// Distributions of at most kVectors vectors, in registers.
template <class T, int kVectors>
void softmax_of_short_rows(const SoftmaxPass<T>& pass) {
  const int last = static_cast<int>(pass.count) - (kVectors - 1) * kLanes<T>;
  const Vec<T> least = broadcast(-static_cast<T>(__builtin_inf()));
  for (std::int64_t i = 0; i < pass.stacked; ++i) {
    const T* x = pass.x + i * pass.count;
    T* y = pass.y + i * pass.count;
    Vec<T> value[kVectors], power[kVectors];
    for (int v = 0; v < kVectors - 1; ++v) value[v] = load(x + v * kLanes<T>);
    value[kVectors - 1] = load_between(x + (kVectors - 1) * kLanes<T>, 0, last, least);
    Vec<T> greatest = value[0];
    for (int v = 1; v < kVectors; ++v) greatest = max_keeping_nan<T>(greatest, value[v]);
    greatest = AlongRow<T>::greatest(greatest);
    Vec<T> sum = zero<T>();
    for (int v = 0; v < kVectors; ++v) {
      value[v] = value[v] - greatest;
      power[v] = exponential<T>(value[v] + broadcast<T>(kNegligible<T>));
      sum = sum + power[v];
    }
    sum = AlongRow<T>::add_up(sum);
    const Vec<T> scale = pass.logarithm ? logarithm<T>(sum) : broadcast<T>(T(1)) / sum;
    for (int v = 0; v < kVectors; ++v) {
      store_upto<T>(y + v * kLanes<T>, pass.logarithm ? value[v] - scale : power[v] * scale,
                    v < kVectors - 1 ? kLanes<T> : last);
    }
  }
}

template <class T>
void softmax(const SoftmaxPass<T>& pass) {
  if (pass.stride == 1 && pass.count <= kLanes<T>) return softmax_of_short_rows<T, 1>(pass);
  if (pass.stride == 1 && pass.count <= 2 * kLanes<T>) return softmax_of_short_rows<T, 2>(pass);
  for_distributions<T>(
      pass.stacked, pass.count, pass.stride,
      [&](const auto& walk, std::int64_t first, std::int64_t, int) {
        const T* x = pass.x + first;
        T* y = pass.y + first;
        const Vec<T> greatest = greatest_element(walk, x);
        const Vec<T> sum = sum_of_powers(walk, x, greatest, pass.logarithm ? nullptr : y);
        if (pass.logarithm) {
          const Vec<T> log_of_sum = logarithm<T>(sum);
          for_elements(walk, [&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
            store_upto<T>(y + at, (load_upto(x + at, lanes) - greatest) - log_of_sum, lanes);
          });
        } else {
          const Vec<T> share = broadcast<T>(T(1)) / sum;
          for_elements(walk, [&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
            store_upto<T>(y + at, load_upto(y + at, lanes) * share, lanes);
          });
        }
      });
}

template <class T>
void softmax_gradient(const SoftmaxPass<T>& pass) {
  for_distributions<T>(
      pass.stacked, pass.count, pass.stride,
      [&](const auto& walk, std::int64_t first, std::int64_t, int) {
        const T* y = pass.x + first;
        const T* dy = pass.dy + first;
        T* dx = pass.y + first;
        const Vec<T> total = sum_of_terms<T>(
            walk, [&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
              const Vec<T> g = load_upto(dy + at, lanes);
              return pass.logarithm ? g : fused_product<T>(g, load_upto(y + at, lanes));
            });
        for_elements(walk, [&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
          const Vec<T> g = load_upto(dy + at, lanes);
          const Vec<T> of_y = load_upto(y + at, lanes);
          const Vec<T> exponent = of_y + broadcast<T>(kNegligible<T>);
          store_upto<T>(dx + at,
                        pass.logarithm ? g - exponential<T>(exponent) * total
                                       : fused_product<T>(of_y, g - total),
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
      [&](const auto& walk, std::int64_t offset, std::int64_t first, int distributions) {
        const T* x = pass.x + offset;
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
        T* dx = pass.loss != nullptr ? nullptr : pass.dx + offset;
        if (!any) {
          if (dx == nullptr) {
            store_upto<T>(pass.loss + first, zero<T>(), distributions);
          } else {
            for_elements(walk, [&](std::int64_t at, std::int64_t, int lanes) CONVOLITH_INLINE_LAMBDA {
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
            loss = loss + sum_of_terms<T>(walk, [&](std::int64_t at, std::int64_t j,
                                                    int lanes) CONVOLITH_INLINE_LAMBDA {
              const Vec<T> log_share = log_of_sum - (load_upto(x + at, lanes) - greatest);
              const Vec<T> term = weight_of(j, lanes) * log_share;
              if (!along || lanes == kLanes<T>) return term;
              alignas(kVectorBytes) T valid[kLanes<T>] = {};
              store_partial<T>(valid, term, lanes);
              return load<T>(valid);
            });
          }
          store_upto<T>(pass.loss + first, kept > zero<T>() ? loss : zero<T>(), distributions);
          return;
        }
        const Vec<T> scale = along || pass.one_scale
                                 ? broadcast(pass.scale[pass.one_scale ? 0 : first])
                                 : load_upto(pass.scale + first, distributions);
        const Vec<T> factor =
            (weight + broadcast(share * (smooth ? pass.weight_sum : T(0)))) / sum;
        for_elements(walk, [&](std::int64_t at, std::int64_t j, int lanes) CONVOLITH_INLINE_LAMBDA {
          Vec<T> g = load_upto(dx + at, lanes) * factor;
          if (smooth) g = g - weight_of(j, lanes);
          store_upto<T>(dx + at, kept > zero<T>() ? scale * g : zero<T>(), lanes);
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
