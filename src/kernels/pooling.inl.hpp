#pragma once

// Pooling kernels: every output visits the taps of its window in row-major order. Lanes are
// channels; or outputs along a row; or, for windows too few or too irregular for that, the taps.

#include "kernels/pooling_table.hpp"
#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T>
using Lane = typename VectorTypes<T>::Integer;

template <class T>
CONVOLITH_INLINE Mask<T> broadcast_index(Lane<T> value) {
  return Mask<T>{} + value;
}

template <class T>
CONVOLITH_INLINE T minus_infinity() {
  return -static_cast<T>(__builtin_inf());
}

// ---- reductions over a window --------------------------------------------------------------
//
// A reduction takes taps one by one, in kVectors vectors of outputs at once. `at` is the tap's
// distance, in pixels of the plane, from the first tap of the window.

/// Greatest element, the first among equals (0.0 and -0.0); NaN if there is one.
template <class T, int kVectors>
struct Greatest {
  static constexpr bool kIsSum = false;
  static constexpr std::int64_t kBlock = 0;  // no limit on the taps taken in a row
  Vec<T> value[kVectors];
  Mask<T> unordered[kVectors];

  CONVOLITH_INLINE Greatest() {
    for (int v = 0; v < kVectors; ++v) {
      value[v] = broadcast<T>(minus_infinity<T>());
      unordered[v] = Mask<T>{};
    }
  }
  CONVOLITH_INLINE void start(Mask<T>) {}
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T>) {
    value[v] = x > value[v] ? x : value[v];
    unordered[v] = x != x ? ~Mask<T>{} : unordered[v];
  }
  CONVOLITH_INLINE void fold() {}
  CONVOLITH_INLINE Vec<T> result(int v) const {
    return (Vec<T>)((Mask<T>)value[v] | unordered[v]);  // all bits set are a NaN
  }
  CONVOLITH_INLINE static Vec<T> nothing() { return broadcast<T>(minus_infinity<T>()); }
};

/// The same and its index: of several NaN the last one's. Distances are at least 0.
template <class T, int kVectors>
struct GreatestAt {
  static constexpr bool kIsSum = false;
  static constexpr std::int64_t kBlock = 0;
  Vec<T> value[kVectors];
  Mask<T> at_value[kVectors];
  Mask<T> at_nan[kVectors];  // -1: none

  CONVOLITH_INLINE GreatestAt() {
    for (int v = 0; v < kVectors; ++v) {
      value[v] = broadcast<T>(minus_infinity<T>());
      at_value[v] = Mask<T>{};
      at_nan[v] = ~Mask<T>{};
    }
  }
  /// `first` is the distance of the first tap in bounds.
  CONVOLITH_INLINE void start(Mask<T> first) { at_value[0] = first; }
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T> at) {
    const auto greater = x > value[v];
    value[v] = greater ? x : value[v];
    at_value[v] = greater ? broadcast_index<T>(at) : at_value[v];
    at_nan[v] = x != x ? broadcast_index<T>(at) : at_nan[v];
  }
  CONVOLITH_INLINE void fold() {}
  CONVOLITH_INLINE Vec<T> result(int v) const {
    return at_nan[v] < 0 ? value[v] : broadcast<T>(static_cast<T>(__builtin_nan("")));
  }
  CONVOLITH_INLINE Mask<T> index(int v) const { return at_nan[v] < 0 ? at_value[v] : at_nan[v]; }
  CONVOLITH_INLINE static Vec<T> nothing() { return broadcast<T>(minus_infinity<T>()); }
};

/// Blocks of 256 to 511 addends, then blocks of 256 blocks, and so on.
constexpr std::int64_t kSumBlock = 256;

/// Sum of a window of less than two blocks.
template <class T, int kVectors>
struct Sum {
  static constexpr bool kIsSum = true;
  static constexpr std::int64_t kBlock = 0;
  Vec<T> value[kVectors];

  CONVOLITH_INLINE Sum() {
    for (int v = 0; v < kVectors; ++v) value[v] = zero<T>();
  }
  CONVOLITH_INLINE void start(Mask<T>) {}
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T>) { value[v] = value[v] + x; }
  CONVOLITH_INLINE void fold() {}
  CONVOLITH_INLINE Vec<T> result(int v) const { return value[v]; }
  CONVOLITH_INLINE static Vec<T> nothing() { return zero<T>(); }
};

/// Sum of a window of any size. level[i] holds sums of whole blocks of 256^i blocks.
template <class T, int kVectors>
struct LongSum {
  static constexpr bool kIsSum = true;
  static constexpr std::int64_t kBlock = kSumBlock;
  static constexpr int kLevels = 5;
  Vec<T> value[kVectors];
  Vec<T> level[kLevels][kVectors];
  std::int64_t folds = 0;

  CONVOLITH_INLINE LongSum() {
    for (int v = 0; v < kVectors; ++v) {
      value[v] = zero<T>();
      for (int i = 0; i < kLevels; ++i) level[i][v] = zero<T>();
    }
  }
  CONVOLITH_INLINE void start(Mask<T>) {}
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T>) { value[v] = value[v] + x; }
  CONVOLITH_INLINE void fold() {
    for (int v = 0; v < kVectors; ++v) {
      level[0][v] = level[0][v] + value[v];
      value[v] = zero<T>();
    }
    ++folds;
    std::int64_t whole = kSumBlock;
    for (int i = 1; i < kLevels && folds % whole == 0; ++i, whole *= kSumBlock) {
      for (int v = 0; v < kVectors; ++v) {
        level[i][v] = level[i][v] + level[i - 1][v];
        level[i - 1][v] = zero<T>();
      }
    }
  }
  CONVOLITH_INLINE Vec<T> result(int v) const {
    Vec<T> total = value[v];
    for (int i = 0; i < kLevels; ++i) total = total + level[i][v];
    return total;
  }
  CONVOLITH_INLINE static Vec<T> nothing() { return zero<T>(); }
};

// ---- the taps of a window ------------------------------------------------------------------

template <class T>
CONVOLITH_INLINE bool divides(const PoolPass<T>& pass) {
  return pass.width_divisor != nullptr;
}

/// What the outputs of a row share: their windows' rows of taps.
template <class T>
struct TapRows {
  std::int64_t first;                        ///< pixel at which the first row begins
  std::int64_t depth, height;                ///< numbers of rows
  std::int64_t depth_pixels, height_pixels;  ///< from row to row
  std::int64_t output;                       ///< pixel of the first output
  T divisor;                                 ///< shared by the outputs

  CONVOLITH_INLINE TapRows(const PoolPass<T>& pass, std::int64_t d, std::int64_t h) {
    first = (pass.depth.first[d] * pass.height.input + pass.height.first[h]) * pass.width.input;
    depth = pass.depth.taps[d];
    height = pass.height.taps[h];
    depth_pixels = pass.depth.step * pass.height.input * pass.width.input;
    height_pixels = pass.height.step * pass.width.input;
    output = (d * pass.height.output + h) * pass.width.output;
    divisor = divides(pass) ? pass.depth_divisor[d] * pass.height_divisor[h] : T(1);
  }
};

/// Shows every tap to `reduction`. load(p, t, v) reads vector v of tap t of a row, whose first
/// element is at p; `x` is the window's first tap.
template <int kVectors, class T, class Reduction, class Load>
CONVOLITH_INLINE void reduce(const PoolPass<T>& pass, const TapRows<T>& rows, std::int64_t taps,
                             const T* x, Reduction& reduction, const Load& load) {
  constexpr bool kBlocked = Reduction::kBlock != 0;
  const std::int64_t tap_pixels = pass.width.step;
  const std::int64_t tap_step = tap_pixels * pass.x_pixel_stride;
  std::int64_t pending = 0;
  for (std::int64_t d = 0; d < rows.depth; ++d) {
    for (std::int64_t h = 0; h < rows.height; ++h) {
      std::int64_t pixel = d * rows.depth_pixels + h * rows.height_pixels;
      const T* p = x + pixel * pass.x_pixel_stride;
      std::int64_t left = taps;
      while (left > 0) {
        const std::int64_t count = kBlocked && left > Reduction::kBlock ? Reduction::kBlock : left;
        const std::int64_t begin = taps - left;
        for (std::int64_t t = begin; t < begin + count; ++t) {
          CONVOLITH_UNROLL(4)
          for (int v = 0; v < kVectors; ++v) {
            reduction.take(v, load(p, t, v), static_cast<Lane<T>>(pixel));
          }
          p += tap_step;
          pixel += tap_pixels;
        }
        left -= count;
        if constexpr (kBlocked) {
          pending += count;
          if (pending >= Reduction::kBlock) {
            reduction.fold();
            pending = 0;
          }
        }
      }
    }
  }
}

/// Greatest element of one window; value and index as GreatestAt has them.
template <class T>
struct GreatestOfWindow {
  T value = minus_infinity<T>();
  std::int64_t index = 0;

  CONVOLITH_INLINE void take(T x, std::int64_t at) {
    const bool taken = x > value || x != x;
    value = taken ? x : value;
    index = taken ? at : index;
  }
  /// One of the lanes that share the window's taps: order is no longer that of the taps.
  CONVOLITH_INLINE void merge(T x, std::int64_t at) {
    if (value != value) {
      if (x != x && at > index) index = at;
    } else if (x > value || x != x || (x == value && at < index)) {
      value = x;
      index = at;
    }
  }
};

template <class T>
CONVOLITH_INLINE GreatestOfWindow<T> greatest_of_window(const PoolPass<T>& pass,
                                                        const TapRows<T>& rows,
                                                        std::int64_t column, std::int64_t taps) {
  constexpr int kWide = kLanes<T>;
  const T* x = pass.x + rows.first + column;
  GreatestOfWindow<T> greatest;
  const bool wide = taps >= kWide && pass.width.step == 1;
  GreatestAt<T, 1> lanes;
  for (std::int64_t d = 0; d < rows.depth; ++d) {
    for (std::int64_t h = 0; h < rows.height; ++h) {
      const std::int64_t pixel = d * rows.depth_pixels + h * rows.height_pixels;
      if (wide) {
        for (std::int64_t t = 0; t < taps; t += kWide) {
          // The last vector overlaps the one before: an element may be taken twice.
          const std::int64_t at = t + kWide <= taps ? t : taps - kWide;
          lanes.take(0, load(x + pixel + at), static_cast<Lane<T>>(pixel + at));
        }
      } else {
        for (std::int64_t t = 0; t < taps; ++t) {
          const std::int64_t at = pixel + t * pass.width.step;
          greatest.take(x[at], at);
        }
      }
    }
  }
  if (wide && rows.depth > 0 && rows.height > 0) {
    const Vec<T> value = lanes.result(0);
    const Mask<T> index = lanes.index(0);
    greatest.value = value[0];
    greatest.index = index[0];
    for (int i = 1; i < kWide; ++i) greatest.merge(value[i], index[i] + i);
  }
  return greatest;
}

/// The taps [t, end) of a row, added one by one or in vectors.
template <class T>
struct RowSum {
  static constexpr int kVectors = 4;
  static constexpr int kWide = kVectors * kLanes<T>;
  Sum<T, kVectors> lanes;
  T single = 0;

  CONVOLITH_INLINE void add(const T* p, std::int64_t step, std::int64_t t, std::int64_t end,
                            bool wide) {
    if (!wide) {
      for (; t < end; ++t) single += p[t * step];
      return;
    }
    for (; t + kWide <= end; t += kWide) {
      CONVOLITH_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) lanes.take(v, load(p + t + v * kLanes<T>), 0);
    }
    for (int v = 0; t < end; ++v, t += kLanes<T>) {
      const std::int64_t left = end - t;
      lanes.take(v, load_upto(p + t, left < kLanes<T> ? static_cast<int>(left) : kLanes<T>), 0);
    }
  }
  CONVOLITH_INLINE Vec<T> total() const {
    return (lanes.value[0] + lanes.value[1]) + (lanes.value[2] + lanes.value[3]);
  }
};

/// Sum of one window, whose rows have `taps` taps. kLong: it may have 2 * kSumBlock or more.
template <bool kLong, class T>
CONVOLITH_INLINE T sum_of_window(const PoolPass<T>& pass, const TapRows<T>& rows,
                                 std::int64_t column, std::int64_t taps) {
  const T* x = pass.x + rows.first + column;
  const bool wide = taps >= kLanes<T> && pass.width.step == 1;
  RowSum<T> sum;
  if constexpr (!kLong) {
    for (std::int64_t d = 0; d < rows.depth; ++d) {
      for (std::int64_t h = 0; h < rows.height; ++h) {
        sum.add(x + d * rows.depth_pixels + h * rows.height_pixels, pass.width.step, 0, taps, wide);
      }
    }
    return sum_of_lanes<T>(sum.total()) + sum.single;
  } else {
    LongSum<T, 1> blocks;
    const std::int64_t step = wide ? RowSum<T>::kWide : 1;  // addends of one chain
    std::int64_t pending = 0;
    for (std::int64_t d = 0; d < rows.depth; ++d) {
      for (std::int64_t h = 0; h < rows.height; ++h) {
        const T* p = x + d * rows.depth_pixels + h * rows.height_pixels;
        for (std::int64_t t = 0; t < taps; t += kSumBlock * step) {
          const std::int64_t left = taps - t;
          const std::int64_t count = left < kSumBlock * step ? left : kSumBlock * step;
          sum.add(p, pass.width.step, t, t + count, wide);
          pending += (count - 1) / step + 1;
          if (pending >= kSumBlock) {
            blocks.take(0, sum.total() + Vec<T>{sum.single}, 0);
            blocks.fold();
            sum = RowSum<T>();
            pending = 0;
          }
        }
      }
    }
    return sum_of_lanes<T>(sum.total() + blocks.result(0)) + sum.single;
  }
}

/// Where a pass writes indices, if it does.
enum class Indexed { no, wide, narrow };

template <Indexed kIndexed, class T>
CONVOLITH_INLINE auto* indices_of(const PoolPass<T>& pass) {
  if constexpr (kIndexed == Indexed::narrow) {
    return pass.chosen;
  } else {
    return pass.indices;
  }
}

// ---- writing outputs -----------------------------------------------------------------------

/// indices[i * stride] = first + i * step + lane i's distance
template <class T, class Index>
CONVOLITH_INLINE void store_indices(Index* indices, std::int64_t stride,
                                    std::int64_t first, std::int64_t step, Mask<T> distance,
                                    int count) {
  alignas(kVectorBytes) Lane<T> lanes[kLanes<T>];
  *reinterpret_cast<Mask<T>*>(lanes) = distance;
  if (stride == 1) {
    for (int i = 0; i < count; ++i) indices[i] = static_cast<Index>(first + i * step + lanes[i]);
  } else {
    for (int i = 0; i < count; ++i) {
      indices[i * stride] = static_cast<Index>(first + i * step + lanes[i]);
    }
  }
}

// ---- lanes are channels --------------------------------------------------------------------

template <class T, int kVectors>
struct LoadChannels {
  int last;  ///< lanes of the last vector

  CONVOLITH_INLINE Vec<T> operator()(const T* p, std::int64_t, int v) const {
    return v < kVectors - 1 ? load(p + v * kLanes<T>) : load_upto(p + v * kLanes<T>, last);
  }
};

/// All channels of a few pixels, one behind the other.
template <class T>
struct LoadPixels {
  int pixels, channels;
  std::int64_t step;  ///< from pixel to pixel

  CONVOLITH_INLINE Vec<T> operator()(const T* p, std::int64_t, int) const {
    Vec<T> v = load_partial(p, channels);
    for (int i = 1; i < pixels; ++i) {
      const int begin = i * channels;
      v = load_between<T>(p + i * step - begin, begin, begin + channels, v);
    }
    return v;
  }
};

template <class T, template <class, int> class Reduction, Indexed kIndexed>
struct PoolChannels {
  const PoolPass<T> pass;  // a copy, which stores cannot change

  /// Channels [c, c + kVectors * lanes) of output pixel o of a row; `last` lanes of the last one.
  template <int kVectors>
  CONVOLITH_INLINE void run_channels(const TapRows<T>& rows, std::int64_t o, std::int64_t c,
                                     int last, T divisor) const {
    const std::int64_t first = rows.first + pass.width.first[o];
    Reduction<T, kVectors> reduction;
    reduce<kVectors>(pass, rows, pass.width.taps[o], pass.x + first * pass.x_pixel_stride + c,
                     reduction, LoadChannels<T, kVectors>{last});
    const std::int64_t pixel = rows.output + o;
    CONVOLITH_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) {
      const int count = v < kVectors - 1 ? kLanes<T> : last;
      const std::int64_t at = c + v * kLanes<T>;
      Vec<T> value = reduction.result(v);
      if constexpr (Reduction<T, kVectors>::kIsSum) {
        if (divides(pass)) value = value / broadcast<T>(divisor);
      }
      if (pass.y != nullptr) store_upto<T>(pass.y + pixel * pass.y_pixel_stride + at, value, count);
      if constexpr (kIndexed != Indexed::no) {
        // A window without taps has index 0.
        const bool empty = rows.depth == 0 || rows.height == 0 || pass.width.taps[o] == 0;
        store_indices<T>(indices_of<kIndexed>(pass) + pixel * pass.indices_pixel_stride + at, 1,
                         empty ? 0 : first, 0, reduction.index(v), count);
      }
    }
  }

  /// Outputs [o, o + pixels), whose windows are alike and whose channels fill no more than a vector.
  CONVOLITH_INLINE void run_pixels(const TapRows<T>& rows, const PoolRun& run, std::int64_t o,
                                   int pixels) const {
    const auto channels = static_cast<int>(pass.channels);
    const int count = pixels * channels;
    const std::int64_t first = rows.first + pass.width.first[o];
    Reduction<T, 1> reduction;
    reduce<1>(pass, rows, run.taps, pass.x + first * pass.x_pixel_stride, reduction,
              LoadPixels<T>{pixels, channels, run.input_step * pass.x_pixel_stride});
    const std::int64_t pixel = rows.output + o;
    Vec<T> value = reduction.result(0);
    if constexpr (Reduction<T, 1>::kIsSum) {
      if (divides(pass)) {
        alignas(kVectorBytes) T divisors[kLanes<T>];
        for (int i = 0; i < kLanes<T>; ++i) divisors[i] = T(1);
        for (int i = 0; i < count; ++i) {
          divisors[i] = rows.divisor * pass.width_divisor[o + i / channels];
        }
        value = value / load(divisors);
      }
    }
    if (pass.y != nullptr) store_upto<T>(pass.y + pixel * pass.y_pixel_stride, value, count);
    if constexpr (kIndexed != Indexed::no) {
      Mask<T> starts{};
      for (int i = 1; i < pixels; ++i) {
        const Mask<T> start = broadcast_index<T>(static_cast<Lane<T>>(i * run.input_step));
        starts = lane_numbers() >= i * channels ? start : starts;
      }
      const bool empty = rows.depth == 0 || rows.height == 0 || run.taps == 0;
      store_indices<T>(indices_of<kIndexed>(pass) + pixel * pass.indices_pixel_stride, 1,
                       empty ? 0 : first, 0, empty ? Mask<T>{} : reduction.index(0) + starts,
                       count);
    }
  }

  CONVOLITH_INLINE static Mask<T> lane_numbers() {
    Mask<T> numbers;
    for (int i = 0; i < kLanes<T>; ++i) numbers[i] = i;
    return numbers;
  }

  /// Several pixels fit a vector, and touch in what is written.
  CONVOLITH_INLINE bool takes_pixels() const {
    const bool touch = (pass.y == nullptr || pass.y_pixel_stride == pass.channels) &&
                       (kIndexed == Indexed::no || pass.indices_pixel_stride == pass.channels);
    return 2 * pass.channels <= kLanes<T> && touch;
  }

  void run_row_of_pixels(const TapRows<T>& rows) const {
    const auto most = static_cast<int>(kLanes<T> / pass.channels);
    for (std::int64_t r = 0; r < pass.run_count; ++r) {
      const PoolRun& run = pass.runs[r];
      if (run.padded || run.output_step != 1) {
        for (std::int64_t j = 0; j < run.count; ++j) {
          run_output(rows, run.output + j * run.output_step);
        }
        continue;
      }
      for (std::int64_t j = 0; j < run.count; j += most) {
        const std::int64_t left = run.count - j;
        run_pixels(rows, run, run.output + j, left < most ? static_cast<int>(left) : most);
      }
    }
  }

  void run_row(const TapRows<T>& rows) const {
    if (takes_pixels()) {
      run_row_of_pixels(rows);
      return;
    }
    for (std::int64_t o = 0; o < pass.width.output; ++o) run_output(rows, o);
  }

  CONVOLITH_INLINE void run_output(const TapRows<T>& rows, std::int64_t o) const {
    constexpr int kWide = 4;
    const T divisor = divides(pass) ? rows.divisor * pass.width_divisor[o] : T(1);
    std::int64_t c = 0;
    for (; c + kWide * kLanes<T> <= pass.channels; c += kWide * kLanes<T>) {
      run_channels<kWide>(rows, o, c, kLanes<T>, divisor);
    }
    for (; c < pass.channels; c += kLanes<T>) {
      const std::int64_t left = pass.channels - c;
      run_channels<1>(rows, o, c, left < kLanes<T> ? static_cast<int>(left) : kLanes<T>, divisor);
    }
  }
};

// ---- lanes are outputs along a row ---------------------------------------------------------

enum class LaneStep { none, one, two, any };

template <class T, LaneStep kStep>
struct LoadOutputs {
  std::int64_t step;
  int count;

  CONVOLITH_INLINE Vec<T> operator()(const T* p, std::int64_t, int) const {
    if constexpr (kStep == LaneStep::none) {
      return broadcast<T>(*p);
    } else if constexpr (kStep == LaneStep::one) {
      return load_upto(p, count);
    } else if constexpr (kStep == LaneStep::two) {
      return count == kLanes<T> ? load_every<T, 2>(p) : load_strided(p, 2, count);
    } else {
      return load_strided(p, step, count);
    }
  }
};

/// The same where outputs may reach beyond the row: lanes whose tap does read `nothing`.
template <class T, LaneStep kStep>
struct LoadPadded {
  std::int64_t column;  ///< of lane 0 at tap 0
  std::int64_t width;   ///< columns of the row
  int count;
  Vec<T> nothing;

  CONVOLITH_INLINE Vec<T> operator()(const T* p, std::int64_t t, int) const {
    constexpr int kApart = kStep == LaneStep::two ? 2 : 1;
    // 0 <= column + t + lane * kApart < width
    const std::int64_t first = column + t;
    const std::int64_t last = width - first + kApart - 1;
    const int begin = first < 0 ? clamped((kApart - 1 - first) / kApart) : 0;
    const int end = last <= 0 ? 0 : clamped(last / kApart);
    if (begin >= end) return nothing;
    if constexpr (kApart == 1) {
      return load_between<T>(p, begin, end, nothing);
    } else {
      constexpr int kBehind = kLanes<T> - 1;
      const int from = 2 * begin;
      const int to = 2 * end - 1;
      const Vec<T> a = from < kLanes<T> ? load_between<T>(p, from, to < kLanes<T> ? to : kLanes<T>,
                                                          nothing)
                                        : nothing;
      const Vec<T> b = to > kBehind ? load_between<T>(p + kBehind,
                                                      from > kBehind ? from - kBehind : 0,
                                                      to - kBehind, nothing)
                                    : nothing;
      return every_other<T>(a, b);
    }
  }

 private:
  CONVOLITH_INLINE int clamped(std::int64_t lanes) const {
    return lanes < count ? static_cast<int>(lanes) : count;
  }
};

/// Distances of the first taps in bounds from columns `column`, `column + apart`, ...
template <class T>
CONVOLITH_INLINE Mask<T> first_in_bounds(std::int64_t column, std::int64_t apart) {
  alignas(kVectorBytes) Lane<T> lanes[kLanes<T>];
  for (int i = 0; i < kLanes<T>; ++i) {
    const std::int64_t at = column + i * apart;
    lanes[i] = static_cast<Lane<T>>(at < 0 ? -at : 0);
  }
  return *reinterpret_cast<const Mask<T>*>(lanes);
}

template <class T, template <class, int> class Reduction, Indexed kIndexed>
struct PoolColumns {
  const PoolPass<T> pass;

  /// Outputs j to j + count of a run, at most a vector of them.
  template <LaneStep kStep>
  CONVOLITH_INLINE void run_lanes(const TapRows<T>& rows, const PoolRun& run, std::int64_t j,
                                  int count) const {
    const std::int64_t first = rows.first + run.input + j * run.input_step;
    const std::int64_t start = run.input + j * run.input_step;
    Reduction<T, 1> reduction;
    if (run.padded &&
        (start < 0 || start + (count - 1) * run.input_step + run.taps > pass.width.input)) {
      if constexpr (kStep == LaneStep::one || kStep == LaneStep::two) {
        if constexpr (kIndexed != Indexed::no) reduction.start(first_in_bounds<T>(start, run.input_step));
        reduce<1>(pass, rows, run.taps, pass.x + first, reduction,
                  LoadPadded<T, kStep>{start, pass.width.input, count, reduction.nothing()});
      }
    } else {
      reduce<1>(pass, rows, run.taps, pass.x + first, reduction,
                LoadOutputs<T, kStep>{run.input_step, count});
    }
    const std::int64_t column = run.output + j * run.output_step;
    const std::int64_t pixel = rows.output + column;
    Vec<T> value = reduction.result(0);
    if constexpr (Reduction<T, 1>::kIsSum) {
      if (divides(pass)) {
        const T* divisors = pass.width_divisor + column;
        value = value / (broadcast<T>(rows.divisor) *
                         (run.output_step == 1 ? load_upto(divisors, count)
                                               : load_strided(divisors, run.output_step, count)));
      }
    }
    if (pass.y != nullptr) {
      T* y = pass.y + pixel * pass.y_pixel_stride;
      const std::int64_t y_step = run.output_step * pass.y_pixel_stride;
      if (y_step == 1) {
        store_upto<T>(y, value, count);
      } else {
        store_strided<T>(y, y_step, value, count);
      }
    }
    if constexpr (kIndexed != Indexed::no) {
      const bool empty = rows.depth == 0 || rows.height == 0 || run.taps == 0;
      store_indices<T>(indices_of<kIndexed>(pass) + pixel * pass.indices_pixel_stride,
                       run.output_step * pass.indices_pixel_stride, empty ? 0 : first,
                       empty ? 0 : run.input_step, reduction.index(0), count);
    }
  }

  template <LaneStep kStep>
  CONVOLITH_INLINE void run_outputs(const TapRows<T>& rows, const PoolRun& run) const {
    if (run.count < kLanes<T>) {
      run_lanes<kStep>(rows, run, 0, static_cast<int>(run.count));
      return;
    }
    for (std::int64_t j = 0; j < run.count; j += kLanes<T>) {
      // The last vector overlaps the one before.
      const std::int64_t begin = j + kLanes<T> <= run.count ? j : run.count - kLanes<T>;
      run_lanes<kStep>(rows, run, begin, kLanes<T>);
    }
  }

  /// One output after the other: lanes are taps, if anything.
  CONVOLITH_INLINE void run_windows(const TapRows<T>& rows, const PoolRun& run) const {
    for (std::int64_t j = 0; j < run.count; ++j) {
      const std::int64_t first = run.input + j * run.input_step;
      const std::int64_t column = run.output + j * run.output_step;
      const std::int64_t pixel = rows.output + column;
      T value;
      if constexpr (kIndexed != Indexed::no) {
        const auto greatest = greatest_of_window(pass, rows, first, run.taps);
        value = greatest.value;
        const bool empty = rows.depth == 0 || rows.height == 0 || run.taps == 0;
        auto* indices = indices_of<kIndexed>(pass);
        store_indices<T>(indices + pixel * pass.indices_pixel_stride, 1,
                         empty ? 0 : rows.first + first + greatest.index, 0, Mask<T>{}, 1);
      } else if constexpr (Reduction<T, 1>::kIsSum) {
        value = sum_of_window<Reduction<T, 1>::kBlock != 0>(pass, rows, first, run.taps);
        if (divides(pass)) value /= rows.divisor * pass.width_divisor[column];
      } else {
        value = greatest_of_window(pass, rows, first, run.taps).value;
      }
      if (pass.y != nullptr) pass.y[pixel * pass.y_pixel_stride] = value;
    }
  }

  void run_row(const TapRows<T>& rows) const {
    constexpr std::int64_t kFew = 4;
    for (std::int64_t r = 0; r < pass.run_count; ++r) {
      const PoolRun& run = pass.runs[r];
      const bool far_apart = run.input_step > 2 && run.taps >= kLanes<T> && pass.width.step == 1;
      if (!run.padded && (run.count < kFew || far_apart)) {
        run_windows(rows, run);
      } else if (run.input_step == 0) {
        run_outputs<LaneStep::none>(rows, run);
      } else if (run.input_step == 1) {
        run_outputs<LaneStep::one>(rows, run);
      } else if (run.input_step == 2) {
        run_outputs<LaneStep::two>(rows, run);
      } else {
        run_outputs<LaneStep::any>(rows, run);
      }
    }
  }
};

template <class T, template <class, int> class Reduction, Indexed kIndexed>
void pool_rows(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end) {
  const std::int64_t first_d = begin / pass.height.output;
  const std::int64_t first_h = begin % pass.height.output;
  PoolPass<T> map = pass;
  for (std::int64_t c = 0; c < (pass.lanes_are_channels ? 1 : pass.channels); ++c) {
    std::int64_t d = first_d;
    std::int64_t h = first_h;
    for (std::int64_t row = begin; row < end; ++row) {
      const TapRows<T> rows(map, d, h);
      if (pass.lanes_are_channels) {
        PoolChannels<T, Reduction, kIndexed>{map}.run_row(rows);
      } else {
        PoolColumns<T, Reduction, kIndexed>{map}.run_row(rows);
      }
      if (++h == pass.height.output) {
        h = 0;
        ++d;
      }
    }
    map.x += pass.x_channel_stride;
    if (map.y != nullptr) map.y += pass.y_channel_stride;
    if (map.indices != nullptr) map.indices += pass.indices_channel_stride;
    if (map.chosen != nullptr) map.chosen += pass.indices_channel_stride;
  }
}

template <class T>
void pool_max(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end) {
  if (pass.indices != nullptr) {
    pool_rows<T, GreatestAt, Indexed::wide>(pass, begin, end);
  } else if (pass.chosen != nullptr) {
    pool_rows<T, GreatestAt, Indexed::narrow>(pass, begin, end);
  } else {
    pool_rows<T, Greatest, Indexed::no>(pass, begin, end);
  }
}

/// Sum of less than two blocks of neighbours, in lanes.
template <class T>
CONVOLITH_INLINE Vec<T> lanes_of_sum(const T* x, std::int64_t count) {
  Vec<T> a = zero<T>();
  Vec<T> b = zero<T>();
  std::int64_t i = 0;
  for (; i + 2 * kLanes<T> <= count; i += 2 * kLanes<T>) {
    a = a + load(x + i);
    b = b + load(x + i + kLanes<T>);
  }
  if (i + kLanes<T> <= count) {
    a = a + load(x + i);
    i += kLanes<T>;
  }
  if (i < count) b = b + load_partial(x + i, static_cast<int>(count - i));
  return a + b;
}

/// Sums of maps that are one short window each: a vector of maps at a time, whose partial sums are
/// transposed.
template <class T>
void sum_maps(const PoolPass<T>& pass) {
  const TapRows<T> rows(pass, 0, 0);
  const std::int64_t taps = pass.width.taps[0];
  const Vec<T> divisor = broadcast(divides(pass) ? rows.divisor * pass.width_divisor[0] : T(1));
  const T* x = pass.x + rows.first + pass.width.first[0];
  for (std::int64_t c = 0; c < pass.channels; c += kLanes<T>) {
    const std::int64_t left = pass.channels - c;
    const int maps = left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
    Vec<T> sums[kLanes<T>] = {};
    for (int i = 0; i < maps; ++i, x += pass.x_channel_stride) {
      sums[i] = lanes_of_sum(x, taps);
    }
    transpose<T>(sums);
    CONVOLITH_UNROLL(4)
    for (int half = kLanes<T> / 2; half > 0; half /= 2) {
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
    }
    const Vec<T> value = sums[0] / divisor;
    T* y = pass.y + c * pass.y_channel_stride;
    if (pass.y_channel_stride == 1) {
      store_upto<T>(y, value, maps);
    } else {
      store_strided<T>(y, pass.y_channel_stride, value, maps);
    }
  }
}

/// Whether every map is one window of one row of touching elements, too short for blocks.
template <class T>
CONVOLITH_INLINE bool are_short_maps(const PoolPass<T>& pass, std::int64_t most_taps) {
  return pass.depth.output * pass.height.output * pass.width.output == 1 &&
         most_taps < 2 * kSumBlock && !pass.lanes_are_channels && pass.width.step == 1 &&
         pass.depth.taps[0] == 1 && pass.height.taps[0] == 1;
}

template <class T>
void pool_sum(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end) {
  const std::int64_t most_taps =
      pass.depth.most_taps * pass.height.most_taps * pass.width.most_taps;
  if (are_short_maps(pass, most_taps)) {
    sum_maps(pass);
  } else if (most_taps < 2 * kSumBlock) {
    pool_rows<T, Sum, Indexed::no>(pass, begin, end);
  } else {
    pool_rows<T, LongSum, Indexed::no>(pass, begin, end);
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
