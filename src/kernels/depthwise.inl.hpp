#pragma once

// Depthwise kernels: each output channel reads one input channel.

#include "kernels/depthwise_table.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/packing.inl.hpp"
#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

// ---- lanes are channels --------------------------------------------------------------------

constexpr int depthwise_roll_rows(int kernel) {
  // Live sums, a column of inputs and a weight stay in registers.
  return kManyRegisters ? (kernel == 3 ? 7 : kernel == 5 ? 4 : 3) : (kernel == 3 ? 3 : 2);
}

template <class T, int kKernel, int kStride>
struct Rolling {
  static constexpr int kLive = (kKernel + kStride - 1) / kStride;  // outputs of a row in progress

  template <int kRows>
  struct Rows {
    static constexpr int kInRows = (kRows - 1) * kStride + kKernel;

    /// Adds column kColumn of a step's inputs. sum[l] is of the output that began l steps ago.
    template <int kColumn>
    CONVOLITH_INLINE static void add(const DepthwiseRoll<T>& p, std::int64_t column, std::int64_t c,
                                     const T* weights, Vec<T> (&sum)[kLive][kRows]) {
      if (p.columns[column] < 0) return;
      for (std::int64_t plane = 0; plane < p.planes; ++plane) {
        const std::int64_t first = plane * p.plane_rows;
        const T* weight = weights + p.plane_weights[plane];
        Vec<T> x[kInRows];
        CONVOLITH_UNROLL(32)
        for (int i = 0; i < kInRows; ++i) {
          x[i] = load(p.rows[first + i] + p.row_columns[first + i][column] + c);
        }
        CONVOLITH_UNROLL(8)
        for (int tap_row = 0; tap_row < kKernel; ++tap_row) {
          CONVOLITH_UNROLL(8)
          for (int l = 0; l < kLive; ++l) {
            const int tap = l * kStride + kColumn;
            if (tap >= kKernel) continue;
            Vec<T> w = load(weight + (tap_row * kKernel + tap) * kLanes<T>);
            keep(w);
            CONVOLITH_UNROLL(8)
            for (int r = 0; r < kRows; ++r) {
              sum[l][r] = multiply_add(x[r * kStride + tap_row], w, sum[l][r]);
            }
          }
        }
      }
    }

    static void run(const DepthwiseRoll<T>& p) {
      for (std::int64_t at = p.channel_begin; at < p.channel_end; at += kLanes<T>) {
        // The last vector overlaps the one before.
        const std::int64_t c = at + kLanes<T> <= p.channel_end ? at : p.channel_end - kLanes<T>;
        const T* weights = p.weight + at / kLanes<T> * p.vector_weights;
        const Vec<T> bias = p.bias != nullptr ? load(p.bias + c) : zero<T>();
        Vec<T> sum[kLive][kRows];
        CONVOLITH_UNROLL(8)
        for (int l = 0; l < kLive; ++l) {
          CONVOLITH_UNROLL(8)
          for (int r = 0; r < kRows; ++r) sum[l][r] = bias;
        }
        T* output = p.output + c - (kLive - 1) * p.output_column_stride;
        std::int64_t column = p.first_column;
        for (std::int64_t step = 1 - kLive; step < p.output_columns; ++step) {
          add<0>(p, column, c, weights, sum);
          if constexpr (kStride == 2) add<1>(p, column + 1, c, weights, sum);
          column += kStride;
          if (step >= 0) {
            CONVOLITH_UNROLL(8)
            for (int r = 0; r < kRows; ++r) {
              store<T>(output + r * p.output_row_stride, finished<T>(p.store, sum[kLive - 1][r]));
            }
          }
          output += p.output_column_stride;
          CONVOLITH_UNROLL(8)
          for (int r = 0; r < kRows; ++r) {
            CONVOLITH_UNROLL(8)
            for (int l = kLive - 1; l > 0; --l) sum[l][r] = sum[l - 1][r];
            sum[0][r] = bias;
          }
        }
      }
    }
  };

  static void dispatch(const DepthwiseRoll<T>& p) {
    ForRows<Rows, depthwise_roll_rows(kKernel)>::run(p.output_rows, p);
  }
};

template <class T>
void depthwise_roll(const DepthwiseRoll<T>& p, int kernel) {
  const bool two = p.stride == 2;
  switch (kernel) {
    case 3: return two ? Rolling<T, 3, 2>::dispatch(p) : Rolling<T, 3, 1>::dispatch(p);
    case 5: return two ? Rolling<T, 5, 2>::dispatch(p) : Rolling<T, 5, 1>::dispatch(p);
    default: return two ? Rolling<T, 7, 2>::dispatch(p) : Rolling<T, 7, 1>::dispatch(p);
  }
}

/// Any kernel, one row of outputs: rows of taps in pieces of four and a rest.
template <class T>
struct AnyBlocks {
  struct Whole {
    static constexpr int kPiece = 4;
    CONVOLITH_INLINE Vec<T> operator()(const T* pixel) const { return load(pixel); }
  };
  struct Partial {
    static constexpr int kPiece = 1;
    int count;
    CONVOLITH_INLINE Vec<T> operator()(const T* pixel) const { return load_partial(pixel, count); }
  };
  /// Each input channel as many times as the multiplier says.
  struct Repeated {
    static constexpr int kPiece = 1;
    int count;
    const std::int32_t* numbers;
    CONVOLITH_INLINE Vec<T> operator()(const T* pixel) const {
      return permute<T>(load_upto(pixel, count), numbers);
    }
  };

  /// kTaps neighbouring taps; with more than one, neighbouring outputs are neighbours in x too.
  template <int kTaps, int kColumns, class Load>
  CONVOLITH_INLINE static void piece(const DepthwiseBlocks<T>& b, const T* const* pixels,
                                     std::int64_t offset, const T* weight, const Load& read,
                                     Vec<T> (&sum)[kColumns]) {
    if constexpr (kTaps == 1) {
      const Vec<T> w = load(weight);
      CONVOLITH_UNROLL(8)
      for (int k = 0; k < kColumns; ++k) {
        sum[k] = multiply_add(read(pixels[k * b.stride] + offset), w, sum[k]);
      }
    } else {
      Vec<T> w[kTaps];
      CONVOLITH_UNROLL(4)
      for (int t = 0; t < kTaps; ++t) w[t] = load(weight + t * kLanes<T>);
      CONVOLITH_UNROLL(16)
      for (int j = 0; j < kColumns + kTaps - 1; ++j) {
        const Vec<T> x = read(pixels[j] + offset);
        CONVOLITH_UNROLL(8)
        for (int k = 0; k < kColumns; ++k) {
          if (j - k >= 0 && j - k < kTaps) sum[k] = multiply_add(x, w[j - k], sum[k]);
        }
      }
    }
  }

  template <int kColumns, class Load>
  static void sums(const DepthwiseBlocks<T>& b, std::int64_t offset, std::int64_t c, int lanes,
                   T* output, const Load& read) {
    Vec<T> sum[kColumns], total[kColumns] = {};
    const Vec<T> bias = b.bias != nullptr ? load_upto(b.bias + c, lanes) : zero<T>();
    for (int k = 0; k < kColumns; ++k) sum[k] = bias;
    const std::int64_t piece_taps = b.stride == 1 ? Load::kPiece : 1;
    const T* weights = b.weight + c / kLanes<T> * b.vector_weights;
    std::int64_t chain = 0;
    for (std::int64_t slab = 0; slab < b.slabs; ++slab) {
      const T* const* pixels = b.pixels + slab * b.slab_pixels;
      const T* weight = weights + b.slab_weights[slab];
      for (std::int64_t t = 0; t < b.kernel_width;) {
        if (chain + Load::kPiece > kMaxChain) {
          for (int k = 0; k < kColumns; ++k) {
            total[k] = total[k] + sum[k];
            sum[k] = zero<T>();
          }
          chain = 0;
        }
        const T* w = weight + t * kLanes<T>;
        const std::int64_t left = b.kernel_width - t;
        const std::int64_t taps = left < piece_taps ? left : piece_taps;
        if constexpr (Load::kPiece > 1) {
          switch (taps) {
            case 4: piece<4>(b, pixels + t, offset, w, read, sum); break;
            case 3: piece<3>(b, pixels + t, offset, w, read, sum); break;
            case 2: piece<2>(b, pixels + t, offset, w, read, sum); break;
            default: piece<1>(b, pixels + t, offset, w, read, sum);
          }
        } else {
          piece<1>(b, pixels + t, offset, w, read, sum);
        }
        t += taps;
        chain += taps;
      }
    }
    for (int k = 0; k < kColumns; ++k) {
      store_upto<T>(output + k * b.output_column_stride + c,
                    finished<T>(b.store, sum[k] + total[k]), lanes);
    }
  }

  template <int kColumns>
  struct Columns {
    static void run(const DepthwiseBlocks<T>& b) {
      for (std::int64_t block = 0; block < b.blocks; ++block) {
        const std::int64_t shift = block * b.source_step;
        T* output = b.output + block * kColumns * b.output_column_stride;
        for (std::int64_t c = b.channel_begin; c < b.channel_end; c += kLanes<T>) {
          const std::int64_t left = b.channel_end - c;
          const int lanes = left < kLanes<T> ? static_cast<int>(left) : kLanes<T>;
          if (b.multiplier != 1) {
            std::int32_t numbers[kLanes<T>];
            std::int32_t number = 0;
            std::int64_t copy = c % b.multiplier;
            for (int i = 0; i < kLanes<T>; ++i) {
              numbers[i] = number;
              if (++copy == b.multiplier) {
                copy = 0;
                ++number;
              }
            }
            const int inputs = numbers[lanes - 1] + 1;
            sums<kColumns>(b, shift + c / b.multiplier, c, lanes, output,
                           Repeated{inputs, numbers});
          } else if (lanes == kLanes<T>) {
            sums<kColumns>(b, shift + c, c, lanes, output, Whole{});
          } else {
            sums<kColumns>(b, shift + c, c, lanes, output, Partial{lanes});
          }
        }
      }
    }
  };
};

template <class T>
void depthwise_blocks(const DepthwiseBlocks<T>& b) {
  ForRows<AnyBlocks<T>::template Columns, kDepthwiseColumns>::run(b.columns, b);
}

// ---- lanes are pixels ----------------------------------------------------------------------

template <class T>
CONVOLITH_INLINE void store_pixels(const DepthwiseRows<T>& p, T* at, Vec<T> v, int lanes) {
  v = finished<T>(p.store, v);
  if (p.output_column_stride == 1) {
    store_upto<T>(at, v, lanes);
  } else {
    store_strided<T>(at, p.output_column_stride, v, lanes);
  }
}

constexpr int depthwise_tile_rows(int kernel, int vectors) {
  return kManyRegisters ? (kernel == 3 && vectors == 1 ? 8 : 4) : (vectors == 1 ? 4 : 2);
}

/// The lanes of a vector at `column` of a row that lie in it.
template <class T>
CONVOLITH_INLINE LaneSet columns_inside(std::int64_t column, std::int64_t columns) {
  const auto lane = [](std::int64_t n) {
    return static_cast<int>(n < 0 ? 0 : n < kLanes<T> ? n : kLanes<T>);
  };
  const int end = lane(columns - column), begin = lane(-column);
  return lanes_between(begin < end ? begin : end, end);
}

/// The extent of the kernels whose rows are read in place, where a load leaves out lanes at no
/// cost; larger ones do no better so. 0: none.
constexpr int kKernelInPlace = kVectorBytes == 64 ? 3 : 0;

/// The lanes in which loads of rows in place find pixels. Taps touch, and share what they load.
template <class T, int kStride, int kVectors>
struct TileBorder {
  static constexpr int kLoads = kStride * kVectors + 1;

  TileBorder(const DepthwiseRows<T>& p, std::int64_t column) {
    const std::int64_t first = kStride * column + p.tap_columns[0];
    for (int v = 0; v < kLoads; ++v) {
      lanes[v] = columns_inside<T>(first + v * kLanes<T>, p.source_columns);
    }
  }

  LaneSet lanes[kLoads];
};

/// Of packed rows.
struct NoBorder {};

/// The pixels under the taps of a row of a tile: of packed rows, or in place.
template <class T, int kKernel, int kStride, int kVectors, class Border>
struct RowPixels {
  CONVOLITH_INLINE RowPixels(const DepthwiseRows<T>& p, std::int64_t column, const Border&)
      : tap_columns(p.tap_columns), first(column) {}
  CONVOLITH_INLINE void load_tap(const T* row, int tap, Vec<T> (&x)[kVectors]) {
    const T* from = row + first + tap_columns[tap];
    CONVOLITH_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) x[v] = load(from + v * kLanes<T>);
  }

  const std::int64_t* tap_columns;
  std::int64_t first;
};

template <class T, int kStride, int kVectors>
struct RowPixels<T, kKernelInPlace, kStride, kVectors, TileBorder<T, kStride, kVectors>> {
  using Border = TileBorder<T, kStride, kVectors>;

  CONVOLITH_INLINE RowPixels(const DepthwiseRows<T>& p, std::int64_t column, const Border& b)
      : first(kStride * column + p.tap_columns[0]), border(b) {}

  CONVOLITH_INLINE void load_tap(const T* row, int tap, Vec<T> (&x)[kVectors]) {
    if (tap == 0) {
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < Border::kLoads; ++v) {
        loaded[v] = load_lanes(row + first + v * kLanes<T>, border.lanes[v]);
      }
      if (kStride == 2) {
        CONVOLITH_UNROLL(2)
        for (int v = 0; v < kVectors; ++v) {
          even[v] = every_second<T, 0>(loaded[2 * v], loaded[2 * v + 1]);
        }
      }
    }
    CONVOLITH_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) {
      x[v] = kStride == 2 ? of_pairs(tap, v) : of_neighbours(tap, v);
    }
  }

  CONVOLITH_INLINE Vec<T> of_neighbours(int tap, int v) const {
    if (tap == 0) return loaded[v];
    return tap == 1 ? neighbours<T, 1>(loaded[v], loaded[v + 1])
                    : neighbours<T, 2>(loaded[v], loaded[v + 1]);
  }

  /// The last tap of an output is the first one of the next.
  CONVOLITH_INLINE Vec<T> of_pairs(int tap, int v) const {
    if (tap == 0) return even[v];
    if (tap == 1) return every_second<T, 1>(loaded[2 * v], loaded[2 * v + 1]);
    return neighbours<T, 1>(even[v], v + 1 < kVectors ? even[v + 1] : loaded[2 * kVectors]);
  }

  std::int64_t first;
  const Border& border;
  Vec<T> loaded[Border::kLoads], even[kVectors];
};

template <class T, int kKernel, int kStride>
struct FixedRows {
  static constexpr bool kReadsInPlace = kKernel == kKernelInPlace;
  static constexpr int kMostRows[] = {depthwise_tile_rows(kKernel, 1),
                                      depthwise_tile_rows(kKernel, 2)};

  template <int kVectors>
  using Border = TileBorder<T, kStride, kVectors>;

  template <int kRows, int kVectors, class Border>
  CONVOLITH_INLINE static void tile(const DepthwiseRows<T>& p, std::int64_t row,
                                    std::int64_t column, int last, const Border& border) {
    RowPixels<T, kKernel, kStride, kVectors, Border> pixels(p, column, border);
    constexpr int kInRows = (kRows - 1) * kStride + kKernel;
    const Vec<T> bias = broadcast(p.bias);
    Vec<T> sum[kRows][kVectors];
    CONVOLITH_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) sum[r][v] = bias;
    }
    for (std::int64_t plane = 0; plane < p.planes; ++plane) {
      const T* const* rows = p.packed_rows + plane * p.plane_rows + row * kStride;
      const T* weight = p.weight + p.plane_weights[plane];
      CONVOLITH_UNROLL(32)
      for (int i = 0; i < kInRows; ++i) {
        CONVOLITH_UNROLL(8)
        for (int t = 0; t < kKernel; ++t) {
          Vec<T> x[kVectors];
          pixels.load_tap(rows[i], t, x);
          CONVOLITH_UNROLL(2)
          for (int v = 0; v < kVectors; ++v) keep(x[v]);
          CONVOLITH_UNROLL(8)
          for (int r = 0; r < kRows; ++r) {
            const int tap_row = i - r * kStride;
            if (tap_row < 0 || tap_row >= kKernel) continue;
            const Vec<T> w = broadcast(weight[tap_row * kKernel + t]);
            CONVOLITH_UNROLL(2)
            for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(x[v], w, sum[r][v]);
          }
        }
      }
    }
    T* output = p.output + row * p.output_row_stride + column * p.output_column_stride;
    CONVOLITH_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) {
        store_pixels<T>(p, output + r * p.output_row_stride + v * kLanes<T> * p.output_column_stride,
                        sum[r][v], v == kVectors - 1 ? last : kLanes<T>);
      }
    }
  }
};

/// Any kernel: rows of the kernel one after the other.
template <class T>
struct AnyRows {
  static constexpr bool kReadsInPlace = false;
  static constexpr int kMostRows[] = {4, kManyRegisters ? 4 : 2};

  template <int kRows, int kVectors>
  static void tile(const DepthwiseRows<T>& p, std::int64_t row, std::int64_t column, int last,
                   const NoBorder&) {
    Vec<T> sum[kRows][kVectors], total[kRows][kVectors] = {};
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) sum[r][v] = broadcast(p.bias);
    }
    std::int64_t chain = 0;
    for (std::int64_t plane = 0; plane < p.planes; ++plane) {
      const T* const* rows = p.packed_rows + plane * p.plane_rows + row * p.stride;
      const T* weight = p.weight + p.plane_weights[plane];
      const std::int64_t in_rows = (kRows - 1) * p.stride + p.kernel_height;
      const std::int64_t inside_begin = (kRows - 1) * p.stride;
      for (std::int64_t i = 0; i < in_rows; ++i) {
        if (rows[i] == nullptr) continue;
        const T* from = rows[i] + column;
        const bool inside = i >= inside_begin && i < p.kernel_height;
        for (std::int64_t begin = 0; begin < p.kernel_width; begin += kMaxChain) {
          const std::int64_t end =
              p.kernel_width - begin < kMaxChain ? p.kernel_width : begin + kMaxChain;
          if (chain + end - begin > kMaxChain) {
            for (int r = 0; r < kRows; ++r) {
              for (int v = 0; v < kVectors; ++v) {
                total[r][v] = total[r][v] + sum[r][v];
                sum[r][v] = zero<T>();
              }
            }
            chain = 0;
          }
          chain += end - begin;
          if (inside) {
            for (std::int64_t t = begin; t < end; ++t) {
              Vec<T> x[kVectors];
              CONVOLITH_UNROLL(2)
              for (int v = 0; v < kVectors; ++v) {
                x[v] = load(from + p.tap_columns[t] + v * kLanes<T>);
              }
              CONVOLITH_UNROLL(4)
              for (int r = 0; r < kRows; ++r) {
                const Vec<T> w = broadcast(weight[(i - r * p.stride) * p.kernel_width + t]);
                CONVOLITH_UNROLL(2)
                for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(x[v], w, sum[r][v]);
              }
            }
            continue;
          }
          CONVOLITH_UNROLL(4)
          for (int r = 0; r < kRows; ++r) {
            const std::int64_t tap_row = i - r * p.stride;
            if (tap_row < 0 || tap_row >= p.kernel_height) continue;
            for (std::int64_t t = begin; t < end; ++t) {
              const Vec<T> w = broadcast(weight[tap_row * p.kernel_width + t]);
              CONVOLITH_UNROLL(2)
              for (int v = 0; v < kVectors; ++v) {
                sum[r][v] = multiply_add(load(from + p.tap_columns[t] + v * kLanes<T>), w,
                                         sum[r][v]);
              }
            }
          }
        }
      }
    }
    T* output = p.output + row * p.output_row_stride + column * p.output_column_stride;
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        store_pixels<T>(p, output + r * p.output_row_stride + v * kLanes<T> * p.output_column_stride,
                        sum[r][v] + total[r][v], v == kVectors - 1 ? last : kLanes<T>);
      }
    }
  }
};

/// All tiles of the packed rows, of at most kMostRows rows and kVectors vectors.
template <class T, class Kernel>
struct RowTiles {
  template <int kVectors, class Border>
  struct Strip {
    template <int kRows>
    struct Rows {
      static void run(const DepthwiseRows<T>& p, std::int64_t row, std::int64_t column, int last,
                      const Border& border) {
        Kernel::template tile<kRows, kVectors>(p, row, column, last, border);
      }
    };

    static void run(const DepthwiseRows<T>& p, std::int64_t column, int last,
                    const Border& border) {
      constexpr int kMostRows = Kernel::kMostRows[kVectors - 1];
      std::int64_t tiles = (p.rows + kMostRows - 1) / kMostRows;
      for (std::int64_t row = 0; row < p.rows; --tiles) {
        const auto rows = static_cast<int>((p.rows - row + tiles - 1) / tiles);
        ForRows<Rows, kMostRows>::run(rows, p, row, column, last, border);
        row += rows;
      }
    }
  };

  template <int kVectors>
  static void strip(const DepthwiseRows<T>& p, std::int64_t column, int last) {
    if constexpr (Kernel::kReadsInPlace) {
      if (p.packed == nullptr) {
        using Border = typename Kernel::template Border<kVectors>;
        Strip<kVectors, Border>::run(p, column, last, Border(p, column));
        return;
      }
    }
    Strip<kVectors, NoBorder>::run(p, column, last, {});
  }

  static void run(const DepthwiseRows<T>& p) {
    for (std::int64_t column = 0; column < p.columns;) {
      const std::int64_t left = p.columns - column;
      if (left > kLanes<T>) {
        const std::int64_t second = left - kLanes<T>;
        strip<2>(p, column, lanes_left<T>(second));
        column += 2 * kLanes<T>;
      } else {
        strip<1>(p, column, static_cast<int>(left));
        column += kLanes<T>;
      }
    }
  }

};

template <class T>
void depthwise_rows(const DepthwiseRows<T>& p, int kernel) {
  for (std::int64_t i = 0; i < p.planes * p.plane_rows; ++i) {
    if (p.row_sources[i] < 0) {
      p.packed_rows[i] = kernel != 0 ? p.zeros : nullptr;
      continue;
    }
    if (p.packed == nullptr) {
      p.packed_rows[i] = p.source + p.row_sources[i];
      continue;
    }
    T* packed = p.packed + i * p.packed_stride;
    pack_row(p.source + p.row_sources[i], p.runs, p.run_count, packed);
    p.packed_rows[i] = packed;
  }
  const bool two = p.stride == 2;
  switch (kernel) {
    case 3:
      return two ? RowTiles<T, FixedRows<T, 3, 2>>::run(p)
                 : RowTiles<T, FixedRows<T, 3, 1>>::run(p);
    case 5:
      return two ? RowTiles<T, FixedRows<T, 5, 2>>::run(p)
                 : RowTiles<T, FixedRows<T, 5, 1>>::run(p);
    case 7:
      return two ? RowTiles<T, FixedRows<T, 7, 2>>::run(p)
                 : RowTiles<T, FixedRows<T, 7, 1>>::run(p);
    default: return RowTiles<T, AnyRows<T>>::run(p);
  }
}

template <class T>
struct FlatVectors {
  template <int kVectors>
  struct Sums {
    static void run(const DepthwiseFlat<T>& p, std::int64_t first) {
      Vec<T> sum[kVectors];
      for (int v = 0; v < kVectors; ++v) sum[v] = broadcast(p.bias);
      for (std::int64_t t = 0; t < p.taps; ++t) {
        const Vec<T> w = broadcast(p.weight[t]);
        const T* from = p.packed + p.tap_places[t] + first * kLanes<T>;
        CONVOLITH_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) {
          sum[v] = multiply_add(load(from + v * kLanes<T>), w, sum[v]);
        }
      }
      // A vector may write beyond what it keeps, where the next one writes after it.
      for (int v = 0; v < kVectors; ++v) {
        const std::int64_t left = p.outputs - p.places[first + v];
        store_upto<T>(p.output + p.places[first + v],
                      permute<T>(finished<T>(p.store, sum[v]), p.lanes + (first + v) * kLanes<T>),
                      left < kLanes<T> ? static_cast<int>(left) : kLanes<T>);
      }
    }
  };
};

template <class T>
void depthwise_flat(const DepthwiseFlat<T>& p) {
  for (std::int64_t i = 0; i < p.row_count; ++i) {
    T* packed = p.packed + p.row_places[i];
    if (p.row_sources[i] >= 0) {
      pack_row(p.source + p.row_sources[i], p.runs, p.run_count, packed);
    }
  }
  constexpr int kMost = 4;
  for (std::int64_t first = 0; first < p.vectors; first += kMost) {
    const std::int64_t left = p.vectors - first;
    ForRows<FlatVectors<T>::template Sums, kMost>::run(
        left < kMost ? static_cast<int>(left) : kMost, p, first);
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
