#pragma once

// Gradient of pooling as a gather: every input adds up the outputs that read it, in order. Lanes
// are channels; or neighbours in memory, where each has one reader; or inputs of a row that lie a
// stride apart, whose readers touch; or one input.

#include "kernels/pooling_table.hpp"
#include "simd/math.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// Counts lanes; a lane that overflows would take 2^31 matches of one call.
template <class T>
CONVOLITH_INLINE std::int64_t sum_of_counts(Mask<T> counts) {
  std::int64_t sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) sum += counts[i];
  return sum;
}

template <class T>
CONVOLITH_INLINE Mask<T> load_indices(const PoolIndex<T>* p) {
  return (Mask<T>)load<T>(reinterpret_cast<const T*>(p));
}

/// Rows of outputs that may read a row of inputs: at most 256 outputs read one input.
constexpr int kMostRows = 256;

template <class T, bool kChosen>
struct GradientOf {
  PoolGradient<T> g;  // a copy, which stores to dx cannot change
  std::int64_t first_pixel = 0;       ///< of the row of inputs
  std::int64_t rows[kMostRows] = {};  ///< first outputs of the rows that read it
  int row_count = 0;
  Mask<T> matches{};

  CONVOLITH_INLINE explicit GradientOf(const PoolGradient<T>& gradient) : g(gradient) {}

  CONVOLITH_INLINE void go_to(std::int64_t row) {
    const std::int64_t depth = row / g.height.input;
    const std::int64_t height = row % g.height.input;
    first_pixel = row * g.width.input;
    row_count = 0;
    for (std::int64_t n = 0; n < g.depth.count[depth]; ++n) {
      const std::int64_t d = g.depth.first[depth] + n * g.depth.step[depth];
      for (std::int64_t m = 0; m < g.height.count[height]; ++m) {
        const std::int64_t h = g.height.first[height] + m * g.height.step[height];
        rows[row_count++] = (d * g.height.output + h) * g.width.output;
      }
    }
  }

  CONVOLITH_INLINE void add(Vec<T>& sum, Vec<T> dy, Mask<T> chosen, Mask<T> pixel) {
    if constexpr (kChosen) {
      keep(dy);  // a load masked by the match would wait for `chosen`
      const auto match = chosen == pixel;
      sum = sum + (match ? dy : zero<T>());
      matches = match ? matches + 1 : matches;
    } else {
      sum = sum + dy;
    }
  }

  CONVOLITH_INLINE Vec<T> divided(Vec<T> sum) const {
    return g.divisor == T(1) ? sum : quotient<T>(sum, broadcast(g.divisor));
  }

  // ---- lanes are channels --------------------------------------------------------------------

  template <int kVectors, bool kPartial>
  CONVOLITH_INLINE void run_channels(std::int64_t column, std::int64_t c, int last) {
    const std::int64_t pixel = first_pixel + column;
    const Mask<T> pixel_lanes = Mask<T>{} + static_cast<PoolIndex<T>>(pixel);
    const Mask<T> none = Mask<T>{} - 1;
    const std::int64_t first = g.width.first[column];
    const std::int64_t step = g.width.step[column];
    const std::int64_t count = g.width.count[column];
    Vec<T> sum[kVectors] = {};
    for (int row = 0; row < row_count; ++row) {
      const T* dy = g.dy + (rows[row] + first) * g.dy_pixel_stride + c;
      const PoolIndex<T>* chosen =
          kChosen ? g.chosen + (rows[row] + first) * g.chosen_pixel_stride + c : nullptr;
      for (std::int64_t n = 0; n < count; ++n) {
        CONVOLITH_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) {
          Mask<T> at = none;
          if constexpr (kChosen && kPartial) {
            at = (Mask<T>)load_between<T>(reinterpret_cast<const T*>(chosen), 0, last,
                                          (Vec<T>)none);
          } else if constexpr (kChosen) {
            at = load_indices<T>(chosen + v * kLanes<T>);
          }
          add(sum[v], kPartial ? load_partial(dy, last) : load(dy + v * kLanes<T>), at,
              pixel_lanes);
        }
        dy += step * g.dy_pixel_stride;
        if constexpr (kChosen) chosen += step * g.chosen_pixel_stride;
      }
    }
    T* dx = g.dx + pixel * g.dx_pixel_stride + c;
    CONVOLITH_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kPartial) {
        store_partial<T>(dx, divided(sum[v]), last);
      } else {
        store<T>(dx + v * kLanes<T>, divided(sum[v]));
      }
    }
  }

  void run_channels_row() {
    constexpr int kWide = 4;
    for (std::int64_t column = 0; column < g.width.input; ++column) {
      std::int64_t c = 0;
      for (; c + kWide * kLanes<T> <= g.channels; c += kWide * kLanes<T>) {
        run_channels<kWide, false>(column, c, kLanes<T>);
      }
      for (; c + kLanes<T> <= g.channels; c += kLanes<T>) {
        run_channels<1, false>(column, c, kLanes<T>);
      }
      if (c < g.channels) {
        run_channels<1, true>(column, c, static_cast<int>(g.channels - c));
      }
    }
  }

  // ---- lanes are neighbours in memory --------------------------------------------------------

  /// A vector of a row of inputs: where its readers lie in their row, and in which column it is.
  struct Neighbours {
    int lanes, read;  ///< of the vector that exist; from the first reader on, those to load
    std::int64_t first;  ///< reader's element
    std::int32_t reader[kLanes<T>];
    PoolIndex<T> column[kLanes<T>];  ///< -1: there is none, or nobody reads it
  };

  /// Starts at (column, channel), and moves them on. In turn, readers move no faster than what they
  /// read: those of a vector are no more than a vector.
  CONVOLITH_INLINE Neighbours next_neighbours(std::int64_t& column, std::int64_t& channel) const {
    Neighbours n{};
    std::int64_t least = -1, most = -1;
    std::int64_t reader[kLanes<T>] = {};
    for (PoolIndex<T>& none : n.column) none = -1;
    for (; n.lanes < kLanes<T> && column < g.width.input; ++n.lanes) {
      const bool is_read = g.width.count[column] > 0;
      n.column[n.lanes] = is_read ? static_cast<PoolIndex<T>>(column) : -1;
      if (is_read) {
        reader[n.lanes] = g.width.first[column] * g.channels + channel;
        if (least < 0 || reader[n.lanes] < least) least = reader[n.lanes];
        if (reader[n.lanes] > most) most = reader[n.lanes];
      }
      if (++channel == g.channels) {
        channel = 0;
        ++column;
      }
    }
    n.first = least < 0 ? 0 : least;
    n.read = least < 0 ? 0 : static_cast<int>(most - least + 1);
    for (int i = 0; i < n.lanes; ++i) {
      n.reader[i] = n.column[i] < 0 ? 0 : static_cast<std::int32_t>(reader[i] - n.first);
    }
    return n;
  }

  void run_neighbours(std::int64_t begin, std::int64_t end) {
    constexpr int kRows = 64;
    const Mask<T> none = Mask<T>{} - 1;
    std::int64_t readers[kRows];  // of rows, in elements; -1: none
    for (; begin < end; begin += kRows) {
      const int count = end - begin < kRows ? static_cast<int>(end - begin) : kRows;
      for (int r = 0; r < count; ++r) {
        go_to(begin + r);
        readers[r] = row_count > 0 ? rows[0] * g.channels : -1;
      }
      const std::int64_t row_elements = g.width.input * g.channels;
      std::int64_t column = 0, channel = 0;
      for (std::int64_t e = 0; e < row_elements; e += kLanes<T>) {
        const Neighbours n = next_neighbours(column, channel);
        const Mask<T> columns = load_indices<T>(n.column);
        const Mask<T> is_read = columns >= 0;
        T* dx = g.dx + begin * row_elements + e;
        for (int r = 0; r < count; ++r, dx += row_elements) {
          Vec<T> sum = zero<T>();
          if (readers[r] >= 0 && n.read > 0) {
            const std::int64_t at = readers[r] + n.first;
            const Vec<T> dy = permute<T>(load_upto(g.dy + at, n.read), n.reader);
            Mask<T> chosen{};
            if constexpr (kChosen) {
              const T* from = reinterpret_cast<const T*>(g.chosen + at);
              chosen = (Mask<T>)permute<T>(load_upto(from, n.read), n.reader);
            }
            const auto first = static_cast<PoolIndex<T>>((begin + r) * g.width.input);
            add(sum, select<T>(is_read, dy, zero<T>()), chosen, is_read ? columns + first : none);
          }
          store_upto<T>(dx, divided(sum), n.lanes);
        }
      }
    }
  }

  // ---- lanes are inputs a stride apart -------------------------------------------------------

  /// Inputs (q + lane) * stride + r of a row, of which `lanes` exist.
  CONVOLITH_INLINE Vec<T> sum_of_phase(const T* dy, const PoolIndex<T>* chosen, std::int64_t q,
                                       std::int64_t r, Mask<T> numbers, int lanes) {
    const Mask<T> pixels = numbers + static_cast<PoolIndex<T>>(first_pixel + q * g.stride + r);
    const Mask<T> none = Mask<T>{} - 1;
    const std::int64_t begin = g.begins[r];
    const std::int64_t end = g.begins[r + 1];
    Vec<T> sum = zero<T>();
    if (begin == end) return sum;
    // Offsets ascend.
    if (lanes == kLanes<T> && q + g.offsets[begin] >= 0 &&
        q + g.offsets[end - 1] + kLanes<T> <= g.width.output) {
      for (int row = 0; row < row_count; ++row) {
        const T* from = dy + rows[row] + q;
        const PoolIndex<T>* at = kChosen ? chosen + rows[row] + q : nullptr;
        for (std::int64_t n = begin; n < end; ++n) {
          add(sum, load(from + g.offsets[n]),
              kChosen ? load_indices<T>(at + g.offsets[n]) : none, pixels);
        }
      }
      return divided(sum);
    }
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t o = q + g.offsets[n];
      const std::int64_t left = g.width.output - o;
      const int low = o < 0 ? (-o < lanes ? static_cast<int>(-o) : lanes) : 0;
      const int high = left < lanes ? (left < 0 ? 0 : static_cast<int>(left)) : lanes;
      if (low >= high) continue;
      for (int row = 0; row < row_count; ++row) {
        Mask<T> at = none;
        if constexpr (kChosen) {
          at = (Mask<T>)load_between<T>(reinterpret_cast<const T*>(chosen + rows[row]) + o, low,
                                        high, (Vec<T>)none);
        }
        add(sum, load_between<T>(dy + rows[row] + o, low, high, zero<T>()), at, pixels);
      }
    }
    return divided(sum);
  }

  CONVOLITH_INLINE int lanes_left(std::int64_t q, std::int64_t r) const {
    const std::int64_t left = (g.width.input - r + g.stride - 1) / g.stride - q;
    return left < kLanes<T> ? (left < 0 ? 0 : static_cast<int>(left)) : kLanes<T>;
  }

  void run_phases(const T* dy, const PoolIndex<T>* chosen, T* dx, Mask<T> numbers) {
    T* row = dx + first_pixel;
    const std::int64_t count = (g.width.input - 1) / g.stride + 1;
    for (std::int64_t q = 0; q < count; q += kLanes<T>) {
      if (g.stride == 2) {
        const Vec<T> even = sum_of_phase(dy, chosen, q, 0, numbers, lanes_left(q, 0));
        const Vec<T> odd = sum_of_phase(dy, chosen, q, 1, numbers, lanes_left(q, 1));
        const std::int64_t left = g.width.input - 2 * q;
        const Vec<T> low = interleave_low<T>(even, odd);
        if (left >= 2 * kLanes<T>) {
          store<T>(row + 2 * q, low);
          store<T>(row + 2 * q + kLanes<T>, interleave_high<T>(even, odd));
        } else {
          store_upto<T>(row + 2 * q, low, left < kLanes<T> ? static_cast<int>(left) : kLanes<T>);
          if (left > kLanes<T>) {
            store_partial<T>(row + 2 * q + kLanes<T>, interleave_high<T>(even, odd),
                             static_cast<int>(left) - kLanes<T>);
          }
        }
        continue;
      }
      for (std::int64_t r = 0; r < g.stride; ++r) {
        const int lanes = lanes_left(q, r);
        if (lanes == 0) break;
        const Vec<T> sum = sum_of_phase(dy, chosen, q, r, numbers, lanes);
        if (g.stride == 1) {
          store_upto<T>(row + q, sum, lanes);
        } else {
          store_strided<T>(row + q * g.stride + r, g.stride, sum, lanes);
        }
      }
    }
  }

  // ---- one input after the other -------------------------------------------------------------

  std::int64_t run_singly(const T* dy, const PoolIndex<T>* chosen, T* dx) const {
    std::int64_t count = 0;
    for (std::int64_t column = 0; column < g.width.input; ++column) {
      const std::int64_t pixel = first_pixel + column;
      T sum = 0;
      for (int row = 0; row < row_count; ++row) {
        std::int64_t o = rows[row] + g.width.first[column];
        for (std::int64_t n = 0; n < g.width.count[column]; ++n, o += g.width.step[column]) {
          if (kChosen && chosen[o * g.chosen_pixel_stride] != static_cast<PoolIndex<T>>(pixel)) {
            continue;
          }
          sum += dy[o * g.dy_pixel_stride];
          ++count;
        }
      }
      dx[pixel * g.dx_pixel_stride] = sum / g.divisor;
    }
    return count;
  }
};

/// One output reads every input of a channel, and shares itself out evenly.
template <class T>
void spread(const PoolGradient<T>& g) {
  if (!g.lanes_are_channels) {
    for (std::int64_t c = 0; c < g.channels; ++c) {
      const Vec<T> share = broadcast(g.dy[c * g.dy_channel_stride] / g.divisor);
      T* dx = g.dx + c * g.dx_channel_stride;
      std::int64_t i = 0;
      for (; i + kLanes<T> <= g.width.input; i += kLanes<T>) store<T>(dx + i, share);
      if (i < g.width.input) store_partial<T>(dx + i, share, static_cast<int>(g.width.input - i));
    }
    return;
  }
  const Vec<T> divisor = broadcast(g.divisor);
  for (std::int64_t pixel = 0; pixel < g.width.input; ++pixel) {
    T* dx = g.dx + pixel * g.dx_pixel_stride;
    for (std::int64_t c = 0; c < g.channels; c += kLanes<T>) {
      const std::int64_t left = g.channels - c;
      const int lanes = left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
      // The first pixel's share is what the others get.
      const Vec<T> share = pixel == 0 ? load_upto(g.dy + c, lanes) / divisor
                                      : load_upto(g.dx + c, lanes);
      store_upto<T>(dx + c, share, lanes);
    }
  }
}

template <class T, bool kChosen>
std::int64_t gradient_rows(const PoolGradient<T>& g, std::int64_t begin, std::int64_t end) {
  Mask<T> numbers{};
  for (int i = 0; i < kLanes<T>; ++i) numbers[i] = static_cast<PoolIndex<T>>(i * g.stride);
  const bool in_phases = g.offsets != nullptr && g.dy_pixel_stride == 1 &&
                         g.dx_pixel_stride == 1 && (!kChosen || g.chosen_pixel_stride == 1);
  std::int64_t matches = 0;
  GradientOf<T, kChosen> gradient(g);
  const bool touches = g.dx_pixel_stride == g.channels && g.dy_pixel_stride == g.channels &&
                       (!kChosen || g.chosen_pixel_stride == g.channels);
  const bool neighbours = g.lanes_are_channels && g.in_turn && g.channels < kLanes<T> && touches;
  if (neighbours) gradient.run_neighbours(begin, end);
  for (std::int64_t row = begin; row < end && !neighbours; ++row) {
    gradient.go_to(row);
    if (g.lanes_are_channels) {
      gradient.run_channels_row();
      continue;
    }
    for (std::int64_t c = 0; c < g.channels; ++c) {
      const T* dy = g.dy + c * g.dy_channel_stride;
      const PoolIndex<T>* chosen = kChosen ? g.chosen + c * g.chosen_channel_stride : nullptr;
      T* dx = g.dx + c * g.dx_channel_stride;
      if (in_phases) {
        gradient.run_phases(dy, chosen, dx, numbers);
      } else {
        matches += gradient.run_singly(dy, chosen, dx);
      }
    }
  }
  if constexpr (kChosen) matches += sum_of_counts<T>(gradient.matches);
  return matches;
}

template <class T>
std::int64_t pool_gradient(const PoolGradient<T>& g, std::int64_t begin, std::int64_t end) {
  if (g.spread && (g.lanes_are_channels || g.dx_pixel_stride == 1)) {
    spread(g);
    return 0;
  }
  return g.chosen != nullptr ? gradient_rows<T, true>(g, begin, end)
                             : gradient_rows<T, false>(g, begin, end);
}

template <class T>
bool narrow_indices(std::int64_t count, const std::int64_t* indices, std::int64_t pixels,
                    PoolIndex<T>* chosen) {
  std::int64_t outside = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t index = indices[i];
    outside |= index | (pixels - 1 - index);  // negative if either is
    chosen[i] = static_cast<PoolIndex<T>>(index);
  }
  return outside >= 0;
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
