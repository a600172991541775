#pragma once

// Convolutions of stride 1 over planes that stay where they lie; lanes are their pixels, or those
// of few channels that take turns.

#include "kernels/column_sums_table.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/packing.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

// Of each column of the kernel and output, sums of two vectors are in registers.
constexpr int kColumnSumsKernel = kManyRegisters ? 13 : 7;
constexpr int kColumnSumsTogether = kManyRegisters ? 7 : 0;
constexpr int kColumnSumsInTurn = kManyRegisters ? 7 : 0;
constexpr int kColumnSumsOutputs = kManyRegisters ? 2 : 1;

/// The weights of one plane, in registers.
template <class T, int kTaps>
struct HeldWeights {
  explicit HeldWeights(const T* weight) {
    CONVOLITH_UNROLL(16)
    for (int t = 0; t < kTaps; ++t) taps[t] = broadcast(weight[t]);
  }
  CONVOLITH_INLINE Vec<T> operator[](int t) const { return taps[t]; }

  Vec<T> taps[kTaps];
};

/// Loaded wherever they are used.
template <class T>
struct StreamedWeights {
  CONVOLITH_INLINE Vec<T> operator[](int t) const { return broadcast(weight[t]); }

  const T* weight;
};

/// Those of channels that take turns: a vector for each tap.
template <class T>
struct LaneWeights {
  CONVOLITH_INLINE Vec<T> operator[](int t) const { return load(weight + t * kLanes<T>); }

  const T* weight;
};

/// In turn: neighbours in memory are channels, and pixels lie as many lanes apart as there are.
template <class T, int kKernel, int kOutputs, bool kInTurn = false>
class PlaneColumns {
 public:
  explicit PlaneColumns(const ColumnSums<T>& sums)
      : p(sums), vectors_((sums.pixels + kLanes<T> - 1) / kLanes<T>) {
    // An output vector takes sums of its neighbours on both sides.
    begin_ = p.begin > 0 ? p.begin - 1 : 0;
    end_ = p.end < vectors_ ? p.end + 1 : vectors_;
    inner_end_ = end_ < p.inner_end ? end_ : p.inner_end;
    inside_ = p.columns_inside + (begin_ > 0 ? begin_ - 1 : 0) % p.period * kKernel;
  }

  void run() {
    for (std::int64_t group = 0; group < p.groups; ++group) {
      for (int m = 0; m < kOutputs && !kInTurn; ++m) {
        bias_[m] = p.bias != nullptr ? broadcast(p.bias[group * kOutputs + m]) : zero<T>();
      }
      sum_group();
      p.source += p.channels * p.source_channel_stride;
      p.weight += p.channels * p.taps * kOutputs;
      p.output += kOutputs * p.output_channel_stride;
    }
  }

 private:
  static constexpr int kCentre = kKernel / 2;
  static constexpr int kUnrolled = 5;  // larger kernels may have rows that lie all in padding
  static constexpr bool kHolds = kManyRegisters && kKernel == 3 && kOutputs == 1 && !kInTurn;
  // Vectors that share a weight.
  static constexpr int kVectors = kKernel == 3 && !kHolds && !kInTurn ? 2 : 1;

  /// Of the source in one vector, under each column of the kernel.
  struct Sums {
    Vec<T> of[kOutputs][kKernel];
  };

  /// What sums begin with.
  CONVOLITH_INLINE void start(std::int64_t v, Sums& sums) const {
    CONVOLITH_UNROLL(4)
    for (int m = 0; m < kOutputs; ++m) {
      CONVOLITH_UNROLL(16)
      for (int j = 0; j < kKernel; ++j) sums.of[m][j] = j == kCentre ? bias(v, m) : zero<T>();
    }
  }

  CONVOLITH_INLINE Vec<T> bias(std::int64_t v, int m) const {
    if constexpr (!kInTurn) return bias_[m];
    return p.bias != nullptr ? load(p.bias + turn(v) * kLanes<T>) : zero<T>();
  }

  /// Which of the channels begins vector v, by number among those that begin one.
  CONVOLITH_INLINE std::int64_t turn(std::int64_t v) const {
    return static_cast<std::uint32_t>(v) % static_cast<std::uint32_t>(p.turns);
  }

  /// Where a pass over the vectors is.
  struct Place {
    std::int64_t v;               ///< the vector that is next
    const std::uint16_t* inside;  ///< of the one before
    Sums last;                    ///< of it, at the centre with what stands to the left
  };

  CONVOLITH_INLINE void sum_group() const {
    if constexpr (kInTurn) {
      sum_in_turn();
    } else {
      if constexpr (kHolds) {
        if (p.channels == 1 && p.plane_count == 1) return sum_plane();
      }
      sum_planes();
    }
  }

  CONVOLITH_INLINE void sum_plane() const {
    const T* source = p.source + p.planes[0] + p.first_row;
    const HeldWeights<T, kKernel * kKernel> weights(p.weight + p.plane_taps[0]);
    const auto plane = [&](std::int64_t, auto add_plane)
                           CONVOLITH_INLINE_LAMBDA { add_plane(source, weights); };
    roll(plane);
  }

  CONVOLITH_INLINE void sum_planes() const {
    roll([&](std::int64_t, auto add_plane) CONVOLITH_INLINE_LAMBDA {
      for (std::int64_t c = 0; c < p.channels; ++c) {
        const T* source = p.source + c * p.source_channel_stride + p.first_row;
        const T* weight = p.weight + c * p.taps * kOutputs;
        for (std::int64_t n = 0; n < p.plane_count; ++n) {
          add_plane(source + p.planes[n], StreamedWeights<T>{weight + p.plane_taps[n] * kOutputs});
        }
      }
    });
  }

  CONVOLITH_INLINE void sum_in_turn() const {
    roll([&](std::int64_t v, auto add_plane) CONVOLITH_INLINE_LAMBDA {
      const T* weight = p.weight + turn(v) * p.taps * kLanes<T>;
      for (std::int64_t n = 0; n < p.plane_count; ++n) {
        add_plane(p.source + p.first_row + p.planes[n],
                  LaneWeights<T>{weight + p.plane_taps[n] * kLanes<T>});
      }
    });
  }

  template <class Planes>
  CONVOLITH_INLINE void roll(const Planes& for_each_plane) const {
    Place at;
    at.v = begin_;
    at.inside = inside_;
    start(0, at.last);
    while (at.v < end_ && at.v < p.inner_begin) step<1, false>(for_each_plane, at);
    while (at.v + kVectors <= inner_end_) step<kVectors, true>(for_each_plane, at);
    while (at.v < inner_end_) step<1, true>(for_each_plane, at);
    while (at.v < end_) step<1, false>(for_each_plane, at);
    // Behind the plane are pixels of no row.
    if (p.end == vectors_) {
      Sums none;
      start(0, none);
      write(at.v - 1, at, none);
    }
  }

  /// Column sums of some vectors; writes the outputs up to the last but one.
  template <int kSteps, bool kInside, class Planes>
  CONVOLITH_INLINE void step(const Planes& for_each_plane, Place& at) const {
    Sums sums[kSteps];
    CONVOLITH_UNROLL(2)
    for (int n = 0; n < kSteps; ++n) start(at.v + n, sums[n]);
    for_each_plane(at.v, [&](const T* plane, const auto& weights) CONVOLITH_INLINE_LAMBDA {
      add_plane<kSteps, kInside>(at.v, plane + at.v * kLanes<T>, weights, sums);
    });
    CONVOLITH_UNROLL(2)
    for (int n = 0; n < kSteps; ++n) {
      if (at.v > p.begin) write(at.v - 1, at, sums[n]);
      if (at.v > 0) at.inside = next(at.inside);
      CONVOLITH_UNROLL(4)
      for (int m = 0; m < kOutputs; ++m) add_left<1>(at, m, sums[n]);
      CONVOLITH_UNROLL(4)
      for (int m = 0; m < kOutputs; ++m) {
        CONVOLITH_UNROLL(16)
        for (int j = 0; j < kKernel; ++j) at.last.of[m][j] = sums[n].of[m][j];
      }
      ++at.v;
    }
  }

  template <int kSteps, bool kInside, class Weights>
  CONVOLITH_INLINE void add_plane(std::int64_t v, const T* row, const Weights& weights,
                                  Sums (&sums)[kSteps]) const {
    const std::int64_t border = v < p.inner_begin ? v : v - p.inner_end + p.inner_begin;
    const std::uint16_t* rows_inside = kInside ? nullptr : p.rows_inside + border * kKernel;
    const auto add_row = [&](int i) CONVOLITH_INLINE_LAMBDA {
      Vec<T> x[kSteps];
      CONVOLITH_UNROLL(2)
      for (int n = 0; n < kSteps; ++n) {
        x[n] = kInside ? load(row + n * kLanes<T>) : load_border(row, LaneSet{rows_inside[i]});
        keep(x[n]);
      }
      CONVOLITH_UNROLL(16)
      for (int j = 0; j < kKernel; ++j) {
        CONVOLITH_UNROLL(4)
        for (int m = 0; m < kOutputs; ++m) {
          const Vec<T> w = weights[(i * kKernel + j) * kOutputs + m];
          CONVOLITH_UNROLL(2)
          for (int n = 0; n < kSteps; ++n) {
            sums[n].of[m][j] = multiply_add(x[n], w, sums[n].of[m][j]);
          }
        }
      }
    };
    if constexpr (kKernel <= kUnrolled) {
      CONVOLITH_UNROLL(8)
      for (int i = 0; i < kKernel; ++i) {
        add_row(i);
        row += p.columns;
      }
    } else {
      for (int i = 0; i < kKernel; ++i) {
        if (kInside || rows_inside[i] != 0) add_row(i);
        row += p.columns;
      }
    }
  }

  /// A load of no lanes takes hundreds of cycles where there is no page.
  CONVOLITH_INLINE Vec<T> load_border(const T* row, LaneSet lanes) const {
    return load_lanes(lanes.bits != 0 ? row : p.source, lanes);
  }

  const std::uint16_t* next(const std::uint16_t* inside) const {
    inside += kKernel;
    return inside == p.columns_inside + p.period * kKernel ? p.columns_inside : inside;
  }

  /// The lanes from kFirst on of two vectors; in turn those that `beside` of the column names.
  template <int kFirst, int kColumn>
  CONVOLITH_INLINE Vec<T> beside(Vec<T> a, Vec<T> b) const {
    if constexpr (kInTurn) return permute<T>(a, b, p.beside + kColumn * kLanes<T>);
    return neighbours<T, kFirst>(a, b);
  }

  template <int kDistance>
  CONVOLITH_INLINE void add_left(const Place& at, int m, Sums& sums) const {
    if constexpr (kDistance <= kCentre) {
      constexpr int j = kCentre - kDistance;
      const Vec<T> left = beside<kLanes<T> - kDistance, j>(at.last.of[m][j], sums.of[m][j]);
      sums.of[m][kCentre] = add_lanes<T>(sums.of[m][kCentre], left, LaneSet{at.inside[j]});
      add_left<kDistance + 1>(at, m, sums);
    }
  }

  template <int kDistance>
  CONVOLITH_INLINE Vec<T> add_right(const Place& at, int m, const Sums& next, Vec<T> sum) const {
    if constexpr (kDistance <= kCentre) {
      constexpr int j = kCentre + kDistance;
      const Vec<T> right = beside<kDistance, j>(at.last.of[m][j], next.of[m][j]);
      return add_right<kDistance + 1>(at, m, next, add_lanes<T>(sum, right, LaneSet{at.inside[j]}));
    } else {
      return sum;
    }
  }

  /// Writes vector v, whose sums are the last.
  CONVOLITH_INLINE void write(std::int64_t v, const Place& at, const Sums& next) const {
    const std::int64_t left = p.pixels - v * kLanes<T>;
    CONVOLITH_UNROLL(4)
    for (int m = 0; m < kOutputs; ++m) {
      const Vec<T> sum = add_right<1>(at, m, next, at.last.of[m][kCentre]);
      store_upto<T>(p.output + m * p.output_channel_stride + v * kLanes<T>,
                    finished<T>(p.store, sum),
                    left < kLanes<T> ? static_cast<int>(left) : kLanes<T>);
    }
  }

  ColumnSums<T> p;  ///< a copy, which no store can change
  std::int64_t vectors_, begin_, end_, inner_end_;
  const std::uint16_t* inside_;
  Vec<T> bias_[kOutputs];
};

template <class T, int kKernel>
void column_sums_of(const ColumnSums<T>& p, int outputs) {
  // Sums come from a neighbouring vector at most.
  if constexpr (kKernel <= kColumnSumsKernel && kKernel / 2 <= kLanes<T>) {
    if constexpr (kKernel <= kColumnSumsTogether) {
      if (outputs > 1) return PlaneColumns<T, kKernel, kColumnSumsOutputs>(p).run();
    }
    PlaneColumns<T, kKernel, 1>(p).run();
  }
}

template <class T, int kKernel>
void column_sums_in_turn_of(const ColumnSums<T>& p) {
  if constexpr (kKernel <= kColumnSumsInTurn) PlaneColumns<T, kKernel, 1, true>(p).run();
}

template <class T>
void column_sums_in_turn(const ColumnSums<T>& p, int kernel) {
  switch (kernel) {
    case 3: return column_sums_in_turn_of<T, 3>(p);
    case 5: return column_sums_in_turn_of<T, 5>(p);
    default: return column_sums_in_turn_of<T, 7>(p);
  }
}

template <class T>
void column_sums(const ColumnSums<T>& p, int kernel, int outputs) {
  switch (kernel) {
    case 3: return column_sums_of<T, 3>(p, outputs);
    case 5: return column_sums_of<T, 5>(p, outputs);
    case 7: return column_sums_of<T, 7>(p, outputs);
    case 9: return column_sums_of<T, 9>(p, outputs);
    case 11: return column_sums_of<T, 11>(p, outputs);
    case 13: return column_sums_of<T, 13>(p, outputs);
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
