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

/// Greatest element; a NaN stays, and among equals (0.0 and -0.0) the first.
template <class T, int kVectors>
struct Greatest {
  static constexpr bool kIsSum = false;
  static constexpr std::int64_t kBlock = 0;  // no limit on the taps taken in a row
  Vec<T> value[kVectors];

  CONVOLITH_INLINE Greatest() {
    for (int v = 0; v < kVectors; ++v) value[v] = broadcast<T>(minus_infinity<T>());
  }
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T>) {
    const Vec<T> greater = x > value[v] ? x : value[v];  // a NaN in value stays
    value[v] = x != x ? x : greater;
  }
  CONVOLITH_INLINE void fold() {}
  CONVOLITH_INLINE Vec<T> result(int v) const { return value[v]; }
};

/// The same and its index: of several NaN the last one's.
template <class T, int kVectors>
struct GreatestAt {
  static constexpr bool kIsSum = false;
  static constexpr std::int64_t kBlock = 0;
  Vec<T> value[kVectors];
  Mask<T> index[kVectors];

  CONVOLITH_INLINE GreatestAt() {
    for (int v = 0; v < kVectors; ++v) {
      value[v] = broadcast<T>(minus_infinity<T>());
      index[v] = Mask<T>{};
    }
  }
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T> at) {
    const auto taken = (x > value[v]) | (x != x);
    value[v] = taken ? x : value[v];
    index[v] = taken ? broadcast_index<T>(at) : index[v];
  }
  CONVOLITH_INLINE void fold() {}
  CONVOLITH_INLINE Vec<T> result(int v) const { return value[v]; }
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
  CONVOLITH_INLINE void take(int v, Vec<T> x, Lane<T>) { value[v] = value[v] + x; }
  CONVOLITH_INLINE void fold() {}
  CONVOLITH_INLINE Vec<T> result(int v) const { return value[v]; }
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
};

// ---- the taps of a window ------------------------------------------------------------------

/// The part of a window that all outputs of a row share: rows of taps.
template <class T>
struct TapRows {
  std::int64_t first;                        ///< pixel at which the first row begins
  std::int64_t depth, height;                ///< numbers of rows
  std::int64_t depth_pixels, height_pixels;  ///< from row to row

  CONVOLITH_INLINE TapRows(const PoolPass<T>& pass, std::int64_t row) {
    const std::int64_t d = row / pass.height.output;
    const std::int64_t h = row % pass.height.output;
    first = (pass.depth.first[d] * pass.height.input + pass.height.first[h]) * pass.width.input;
    depth = pass.depth.taps[d];
    height = pass.height.taps[h];
    depth_pixels = pass.depth.step * pass.height.input * pass.width.input;
    height_pixels = pass.height.step * pass.width.input;
  }
};

/// Shows every tap to `reduction`. load(p, v) reads vector v of a tap whose first element is at
/// p; `x` is the window's first tap.
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
        for (std::int64_t t = 0; t < count; ++t) {
          CONVOLITH_UNROLL(4)
          for (int v = 0; v < kVectors; ++v) {
            reduction.take(v, load(p, v), static_cast<Lane<T>>(pixel));
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
    if (x > value || x != x) {
      value = x;
      index = at;
    }
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
    greatest.value = lanes.value[0][0];
    greatest.index = lanes.index[0][0];
    for (int i = 1; i < kWide; ++i) greatest.merge(lanes.value[0][i], lanes.index[0][i] + i);
  }
  return greatest;
}

template <class T, class Reduction>
CONVOLITH_INLINE T sum_of_window(const PoolPass<T>& pass, const TapRows<T>& rows,
                                 std::int64_t column, std::int64_t taps) {
  constexpr int kWide = kLanes<T>;
  const T* x = pass.x + rows.first + column;
  const bool wide = taps >= kWide && pass.width.step == 1;
  Reduction sum;
  T partial = 0;  // of taps taken one by one
  std::int64_t pending = 0;
  for (std::int64_t d = 0; d < rows.depth; ++d) {
    for (std::int64_t h = 0; h < rows.height; ++h) {
      const T* p = x + d * rows.depth_pixels + h * rows.height_pixels;
      const std::int64_t step = wide ? kWide : 1;
      for (std::int64_t t = 0; t < taps; t += step) {
        if (wide) {
          const std::int64_t left = taps - t;
          sum.take(0, load_upto(p + t, left < kWide ? static_cast<int>(left) : kWide), 0);
        } else {
          partial += p[t * pass.width.step];
        }
        if (Reduction::kBlock != 0 && ++pending == Reduction::kBlock) {
          if (!wide) sum.take(0, Vec<T>{partial}, 0);
          sum.fold();
          partial = 0;
          pending = 0;
        }
      }
    }
  }
  return sum_of_lanes<T>(sum.result(0)) + partial;
}

// ---- writing outputs -----------------------------------------------------------------------

/// indices[i * stride] = first + i * step + lane i's distance
template <class T>
CONVOLITH_INLINE void store_indices(std::int64_t* indices, std::int64_t stride,
                                    std::int64_t first, std::int64_t step, Mask<T> distance,
                                    int count) {
  alignas(kVectorBytes) Lane<T> lanes[kLanes<T>];
  *reinterpret_cast<Mask<T>*>(lanes) = distance;
  if (stride == 1) {
    for (int i = 0; i < count; ++i) indices[i] = first + i * step + lanes[i];
  } else {
    for (int i = 0; i < count; ++i) indices[i * stride] = first + i * step + lanes[i];
  }
}

template <class T>
CONVOLITH_INLINE bool divides(const PoolPass<T>& pass) {
  return pass.width_divisor != nullptr;
}

template <class T>
CONVOLITH_INLINE T row_divisor(const PoolPass<T>& pass, std::int64_t row) {
  return divides(pass) ? pass.depth_divisor[row / pass.height.output] *
                             pass.height_divisor[row % pass.height.output]
                       : T(1);
}

// ---- lanes are channels --------------------------------------------------------------------

template <class T, int kVectors>
struct LoadChannels {
  int last;  ///< lanes of the last vector

  CONVOLITH_INLINE Vec<T> operator()(const T* p, int v) const {
    return v < kVectors - 1 ? load(p + v * kLanes<T>) : load_upto(p + v * kLanes<T>, last);
  }
};

template <class T, template <class, int> class Reduction, bool kIndexed>
struct PoolChannels {
  const PoolPass<T>& pass;

  /// Channels [c, c + kVectors * lanes) of output pixel o of a row; `last` lanes of the last one.
  template <int kVectors>
  CONVOLITH_INLINE void run_channels(const TapRows<T>& rows, std::int64_t row, std::int64_t o,
                                     std::int64_t c, int last, T divisor) const {
    const std::int64_t first = rows.first + pass.width.first[o];
    Reduction<T, kVectors> reduction;
    reduce<kVectors>(pass, rows, pass.width.taps[o], pass.x + first * pass.x_pixel_stride + c,
                     reduction, LoadChannels<T, kVectors>{last});
    const std::int64_t pixel = row * pass.width.output + o;
    CONVOLITH_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) {
      const int count = v < kVectors - 1 ? kLanes<T> : last;
      const std::int64_t at = c + v * kLanes<T>;
      Vec<T> value = reduction.result(v);
      if constexpr (Reduction<T, kVectors>::kIsSum) {
        if (divides(pass)) value = value / broadcast<T>(divisor);
      }
      if (pass.y != nullptr) store_upto<T>(pass.y + pixel * pass.y_pixel_stride + at, value, count);
      if constexpr (kIndexed) {
        // A window without taps has index 0.
        const bool empty = rows.depth == 0 || rows.height == 0 || pass.width.taps[o] == 0;
        store_indices<T>(pass.indices + pixel * pass.indices_pixel_stride + at, 1,
                         empty ? 0 : first, 0, reduction.index[v], count);
      }
    }
  }

  void run_row(std::int64_t row) const {
    constexpr int kWide = 4;
    const TapRows<T> rows(pass, row);
    for (std::int64_t o = 0; o < pass.width.output; ++o) {
      const T divisor =
          divides(pass) ? row_divisor(pass, row) * pass.width_divisor[o] : T(1);
      std::int64_t c = 0;
      for (; c + kWide * kLanes<T> <= pass.channels; c += kWide * kLanes<T>) {
        run_channels<kWide>(rows, row, o, c, kLanes<T>, divisor);
      }
      for (; c < pass.channels; c += kLanes<T>) {
        const std::int64_t left = pass.channels - c;
        run_channels<1>(rows, row, o, c, left < kLanes<T> ? static_cast<int>(left) : kLanes<T>,
                        divisor);
      }
    }
  }
};

// ---- lanes are outputs along a row ---------------------------------------------------------

enum class LaneStep { none, one, two, any };

template <class T, LaneStep kStep>
struct LoadOutputs {
  std::int64_t step;
  int count;

  CONVOLITH_INLINE Vec<T> operator()(const T* p, int) const {
    if constexpr (kStep == LaneStep::none) {
      return broadcast<T>(*p);
    } else if constexpr (kStep == LaneStep::one) {
      return load_upto(p, count);
    } else if constexpr (kStep == LaneStep::two) {
      return count == kLanes<T> ? load_every_other(p) : load_strided(p, 2, count);
    } else {
      return load_strided(p, step, count);
    }
  }
};

template <class T, template <class, int> class Reduction, bool kIndexed>
struct PoolColumns {
  const PoolPass<T>& pass;

  /// Outputs j to j + count of a run, at most a vector of them.
  template <LaneStep kStep>
  CONVOLITH_INLINE void run_lanes(const TapRows<T>& rows, std::int64_t row, const PoolRun& run,
                                  std::int64_t j, int count, T divisor) const {
    const std::int64_t first = rows.first + run.input + j * run.input_step;
    Reduction<T, 1> reduction;
    const std::int64_t step = run.input_step;
    reduce<1>(pass, rows, run.taps, pass.x + first, reduction, LoadOutputs<T, kStep>{step, count});
    const std::int64_t column = run.output + j * run.output_step;
    const std::int64_t pixel = row * pass.width.output + column;
    Vec<T> value = reduction.result(0);
    if constexpr (Reduction<T, 1>::kIsSum) {
      if (divides(pass)) {
        const T* divisors = pass.width_divisor + column;
        value = value / (broadcast<T>(divisor) *
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
    if constexpr (kIndexed) {
      const bool empty = rows.depth == 0 || rows.height == 0 || run.taps == 0;
      store_indices<T>(pass.indices + pixel * pass.indices_pixel_stride,
                       run.output_step * pass.indices_pixel_stride, empty ? 0 : first,
                       empty ? 0 : step, reduction.index[0], count);
    }
  }

  template <LaneStep kStep>
  CONVOLITH_INLINE void run_outputs(const TapRows<T>& rows, std::int64_t row, const PoolRun& run,
                                    T divisor) const {
    if (run.count < kLanes<T>) {
      run_lanes<kStep>(rows, row, run, 0, static_cast<int>(run.count), divisor);
      return;
    }
    for (std::int64_t j = 0; j < run.count; j += kLanes<T>) {
      // The last vector overlaps the one before.
      const std::int64_t begin = j + kLanes<T> <= run.count ? j : run.count - kLanes<T>;
      run_lanes<kStep>(rows, row, run, begin, kLanes<T>, divisor);
    }
  }

  /// One output after the other: lanes are taps, if anything.
  CONVOLITH_INLINE void run_windows(const TapRows<T>& rows, std::int64_t row, const PoolRun& run,
                                    T divisor) const {
    for (std::int64_t j = 0; j < run.count; ++j) {
      const std::int64_t first = run.input + j * run.input_step;
      const std::int64_t column = run.output + j * run.output_step;
      const std::int64_t pixel = row * pass.width.output + column;
      T value;
      if constexpr (kIndexed) {
        const auto greatest = greatest_of_window(pass, rows, first, run.taps);
        value = greatest.value;
        const bool empty = rows.depth == 0 || rows.height == 0 || run.taps == 0;
        pass.indices[pixel * pass.indices_pixel_stride] =
            empty ? 0 : rows.first + first + greatest.index;
      } else if constexpr (Reduction<T, 1>::kIsSum) {
        value = sum_of_window<T, Reduction<T, 1>>(pass, rows, first, run.taps);
        if (divides(pass)) value /= divisor * pass.width_divisor[column];
      } else {
        value = greatest_of_window(pass, rows, first, run.taps).value;
      }
      if (pass.y != nullptr) pass.y[pixel * pass.y_pixel_stride] = value;
    }
  }

  void run_row(std::int64_t row) const {
    constexpr std::int64_t kFew = 4;
    const TapRows<T> rows(pass, row);
    const T divisor = row_divisor(pass, row);
    for (std::int64_t r = 0; r < pass.run_count; ++r) {
      const PoolRun& run = pass.runs[r];
      const bool far_apart = run.input_step > 2 && run.taps >= kLanes<T> && pass.width.step == 1;
      if (run.count < kFew || far_apart) {
        run_windows(rows, row, run, divisor);
      } else if (run.input_step == 0) {
        run_outputs<LaneStep::none>(rows, row, run, divisor);
      } else if (run.input_step == 1) {
        run_outputs<LaneStep::one>(rows, row, run, divisor);
      } else if (run.input_step == 2) {
        run_outputs<LaneStep::two>(rows, row, run, divisor);
      } else {
        run_outputs<LaneStep::any>(rows, row, run, divisor);
      }
    }
  }
};

template <class T, template <class, int> class Reduction, bool kIndexed>
void pool_rows(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    if (pass.lanes_are_channels) {
      PoolChannels<T, Reduction, kIndexed>{pass}.run_row(row);
    } else {
      PoolColumns<T, Reduction, kIndexed>{pass}.run_row(row);
    }
  }
}

template <class T>
void pool_max(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end) {
  if (pass.indices != nullptr) {
    pool_rows<T, GreatestAt, true>(pass, begin, end);
  } else {
    pool_rows<T, Greatest, false>(pass, begin, end);
  }
}

template <class T>
void pool_sum(const PoolPass<T>& pass, std::int64_t begin, std::int64_t end) {
  if (pass.depth.most_taps * pass.height.most_taps * pass.width.most_taps < 2 * kSumBlock) {
    pool_rows<T, Sum, false>(pass, begin, end);
  } else {
    pool_rows<T, LongSum, false>(pass, begin, end);
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
