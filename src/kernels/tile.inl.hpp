#pragma once

// Register tiles: an array of accumulators whose extents are template arguments, and the dispatch
// from run-time extents to them.

#include <cstdint>

#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

constexpr int kTileVectors = 2;

/// Rows of a register tile of short sums: with fewer of them than there is room for, the products
/// of the next tile begin while those of this one are stored.
constexpr int kOverlappingRows = kTileRows < 8 ? kTileRows : 8;

template <class T>
constexpr int kTileColumns = kTileVectors * kLanes<T>;

/// Pointers to every third row: x86 reaches p, p + stride and p + 2 stride from one register.
template <class T, int kRows>
struct RowPointers {
  static constexpr int kCount = (kRows + 2) / 3;
  const T* third[kCount];
  std::int64_t stride;

  CONVOLITH_INLINE RowPointers(const T* first, std::int64_t row_stride) : stride(row_stride) {
    for (int i = 0; i < kCount; ++i) third[i] = first + 3 * i * row_stride;
  }
  CONVOLITH_INLINE T at(int row, std::int64_t offset = 0) const {
    return third[row / 3][(row % 3) * stride + offset];
  }
  CONVOLITH_INLINE void advance(std::int64_t step = 1) {
    CONVOLITH_UNROLL(5)
    for (int i = 0; i < kCount; ++i) third[i] += step;
  }
};

/// A row of columns: of a panel, or of two that lie `panel_stride` apart.
template <class T, int kVectors>
CONVOLITH_INLINE void load_columns(Vec<T> (&column)[kVectors], const T* row,
                                   std::int64_t panel_stride) {
  CONVOLITH_UNROLL(4)
  for (int v = 0; v < kVectors; ++v) {
    const T* panel = v < kTileVectors ? row : row + panel_stride;
    column[v] = load(panel + v % kTileVectors * kLanes<T>);
  }
}

/// For tiles that come from as far as memory and are wanted at the end. Rows that do not begin on a
/// line end on one more.
template <class T, int kRows, int kVectors, int kWrites = 1>
CONVOLITH_INLINE void prefetch_tile(const T* tile, std::int64_t row_stride) {
  constexpr int kLine = 64;
  CONVOLITH_UNROLL(32)
  for (int r = 0; r < kRows; ++r) {
    const T* row = tile + r * row_stride;
    CONVOLITH_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(row + v * kLanes<T>, kWrites);
  }
  if (rows_aligned(tile, row_stride, kLine)) return;
  CONVOLITH_UNROLL(32)
  for (int r = 0; r < kRows; ++r) {
    __builtin_prefetch(tile + r * row_stride + kVectors * kLanes<T> - 1, kWrites);
  }
}

/// Sums of fewer products do without: a cache answers soon enough.
constexpr std::int64_t kLongSum = 48;

/// The same for a tile whose sums take `terms` products.
template <class T, int kRows, int kVectors>
CONVOLITH_INLINE void prefetch_tile_of(std::int64_t terms, const T* tile, std::int64_t row_stride) {
  if (terms >= kLongSum) prefetch_tile<T, kRows, kVectors>(tile, row_stride);
}

/// What a tile of kRows rows wants of memory at its end, the rows it writes and a residual, is
/// fetched row by row while its products are summed: all at once it would keep the weights waiting.
template <class T, int kRows, int kVectors>
struct ResultsAhead {
  const T *output, *residual;  ///< of the next row; null: not fetched
  std::int64_t output_stride, residual_stride;
  int rows;  ///< left

  CONVOLITH_INLINE void fetch_row() {
    if (output != nullptr) {
      prefetch_tile<T, 1, kVectors>(output, output_stride);
      output += output_stride;
    }
    if (residual != nullptr) {
      prefetch_tile<T, 1, kVectors, 0>(residual, residual_stride);
      residual += residual_stride;
    }
    --rows;
  }

  /// add(i) for i < terms, which come between the rows; some are left for the last row to arrive.
  template <class Add>
  CONVOLITH_INLINE void between(std::int64_t terms, const Add& add) {
    const std::int64_t step = terms / (kRows + (kRows + 3) / 4);
    std::int64_t i = 0;
    do {
      if (rows > 0) fetch_row();
      const std::int64_t end = rows > 0 ? i + step : terms;
      CONVOLITH_UNROLL(4)
      for (; i < end; ++i) add(i);
    } while (i < terms);
  }
};

/// Writes accumulators to `tile`, whose columns are contiguous; `columns` may end in a vector.
template <class T, int kRows, int kVectors>
CONVOLITH_INLINE void store_tile(const Vec<T> (&sum)[kRows][kVectors], T* tile,
                                 std::int64_t row_stride, int columns, bool accumulate,
                                 bool past_caches = false) {
  const int last = columns - (kVectors - 1) * kLanes<T>;
  T* row = tile;
  if (past_caches && last == kLanes<T>) {
    CONVOLITH_UNROLL(32)
    for (int r = 0; r < kRows; ++r) {
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) stream<T>(row + v * kLanes<T>, sum[r][v]);
      row = opaque(row + row_stride);
    }
    return;
  }
  if (!accumulate && last == kLanes<T>) {
    CONVOLITH_UNROLL(32)
    for (int r = 0; r < kRows; ++r) {
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) store<T>(row + v * kLanes<T>, sum[r][v]);
      row = opaque(row + row_stride);  // or all rows' addresses would be computed first, and spilt
    }
    return;
  }
  CONVOLITH_UNROLL(32)
  for (int r = 0; r < kRows; ++r, row = opaque(row + row_stride)) {
    CONVOLITH_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      T* at = row + v * kLanes<T>;
      if (v < kVectors - 1 || last == kLanes<T>) {
        store<T>(at, accumulate ? load(at) + sum[r][v] : sum[r][v]);
      } else {
        store_partial<T>(at, accumulate ? load_partial(at, last) + sum[r][v] : sum[r][v], last);
      }
    }
  }
}

/// How sums are finished: with what the tile held, if they accumulate, with the bias of its columns
/// and a residual, of those that are not null, and within limits.
template <class T>
struct TileFinish {
  bool accumulate;
  const T* bias;
  const T* residual;
  std::int64_t residual_row_stride;
  T least, greatest;
  bool past_caches;
};

template <class T, int kRows, int kVectors>
CONVOLITH_INLINE void finish_tile(Vec<T> (&sum)[kRows][kVectors], T* tile, std::int64_t row_stride,
                                  int columns, const TileFinish<T>& finish) {
  const int last = columns - (kVectors - 1) * kLanes<T>;
  const auto lanes = [last](int v) { return v < kVectors - 1 ? kLanes<T> : last; };
  const auto add_rows = [&](const T* row, std::int64_t stride) {
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r, row = opaque(row + stride)) {
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = load_upto(row + v * kLanes<T>, lanes(v)) + sum[r][v];
      }
    }
  };
  if (finish.accumulate) add_rows(tile, row_stride);
  if (finish.bias != nullptr) add_rows(finish.bias, 0);
  if (finish.residual != nullptr) add_rows(finish.residual, finish.residual_row_stride);
  constexpr auto kUnlimited = static_cast<T>(__builtin_huge_val());
  const auto limit = [&](auto limited) {
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) sum[r][v] = limited(sum[r][v]);
    }
  };
  if (finish.least > -kUnlimited) {
    limit([&](Vec<T> s) { return max_keeping_nan<T>(s, broadcast(finish.least)); });
  }
  if (finish.greatest < kUnlimited) {
    limit([&](Vec<T> s) { return min_keeping_nan<T>(s, broadcast(finish.greatest)); });
  }
  store_tile<T, kRows, kVectors>(sum, tile, row_stride, columns, false, finish.past_caches);
}

template <int kVectors>
struct VectorCount {
  static constexpr int value = kVectors;
};

/// Calls run with the VectorCount of a tile of kRows rows, of two panels if there is such a tile,
/// that hold so many columns.
template <class T, int kRows, class Run>
CONVOLITH_INLINE void with_vectors(int columns, const Run& run) {
  if constexpr (kRows <= kPairedRows) {
    if (columns > 3 * kLanes<T>) return run(VectorCount<4>());
    if (columns > 2 * kLanes<T>) return run(VectorCount<3>());
  }
  columns > kLanes<T> ? run(VectorCount<2>()) : run(VectorCount<1>());
}

/// Calls Body<kRows>::run for the kRows in 1 .. kMost that equals `rows`.
template <template <int> class Body, int kMost>
struct ForRows {
  template <class... Arguments>
  CONVOLITH_INLINE static void run(int rows, const Arguments&... arguments) {
    if constexpr (kMost > 1) {
      if (rows < kMost) {
        ForRows<Body, kMost - 1>::run(rows, arguments...);
        return;
      }
    }
    Body<kMost>::run(arguments...);
  }
};

/// Cuts `count` rows into tiles of `most` at most, equal but for one row: Body<kRows>::run(...,
/// first, end) for those of kRows rows. `most` is kMost at most.
template <template <int> class Body, int kMost, class... Arguments>
CONVOLITH_INLINE void for_equal_tiles(int count, int most, const Arguments&... arguments) {
  const int tiles = (count + most - 1) / most;
  const int shorter = count / tiles;
  const int longer_end = count % tiles * (shorter + 1);
  if (longer_end > 0) ForRows<Body, kMost>::run(shorter + 1, arguments..., 0, longer_end);
  ForRows<Body, kMost>::run(shorter, arguments..., longer_end, count);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
