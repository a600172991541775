#pragma once

#include "kernels/tile.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T, int kRows, int kVectors>
[[gnu::noinline]] void gemm_tile_of(std::int64_t k, const T* a, const T* b, T* c,
                                    std::int64_t c_row_stride, int columns, bool accumulate) {
  prefetch_tile_of<T, kRows, kVectors>(k, c, c_row_stride);
  Vec<T> sum[kRows][kVectors] = {};
  CONVOLITH_UNROLL(2)
  for (std::int64_t p = 0; p < k; ++p) {
    Vec<T> column[kVectors];
    CONVOLITH_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) column[v] = load(b + v * kLanes<T>);
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> row = broadcast(a[r]);
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
    }
    a += kTileRows;
    b += kTileColumns<T>;
  }
  store_tile<T, kRows, kVectors>(sum, c, c_row_stride, columns, accumulate);
}

template <class T>
struct GemmTile {
  template <int kRows>
  struct Rows {
    static void run(int columns, std::int64_t k, const T* a, const T* b, T* c,
                    std::int64_t c_row_stride, bool accumulate) {
      if (columns > kLanes<T>) {
        gemm_tile_of<T, kRows, 2>(k, a, b, c, c_row_stride, columns, accumulate);
      } else {
        gemm_tile_of<T, kRows, 1>(k, a, b, c, c_row_stride, columns, accumulate);
      }
    }
  };
};

template <class T>
void gemm_tile(int rows, int columns, std::int64_t k, const T* a, const T* b, T* c,
               std::int64_t c_row_stride, bool accumulate) {
  ForRows<GemmTile<T>::template Rows, kTileRows>::run(rows, columns, k, a, b, c, c_row_stride,
                                                      accumulate);
}

constexpr int kThinRows = 4;

/// The same with rows of B anywhere; `columns` may end in the last vector, beyond which B is not
/// read.
template <class T, int kRows, int kVectors, bool kPartial>
[[gnu::noinline]] void gemm_offsets_tile_of(std::int64_t k, const T* a, const T* b,
                                            const std::int64_t* offsets, T* c,
                                            std::int64_t c_row_stride, int columns,
                                            bool accumulate) {
  const int last = columns - (kVectors - 1) * kLanes<T>;
  Vec<T> sum[kRows][kVectors] = {};
  CONVOLITH_UNROLL(2)
  for (std::int64_t p = 0; p < k; ++p) {
    const T* from = b + offsets[p];
    Vec<T> column[kVectors];
    CONVOLITH_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      column[v] = kPartial && v == kVectors - 1 ? load_partial(from + v * kLanes<T>, last)
                                                : load(from + v * kLanes<T>);
    }
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> row = broadcast(a[r]);
      CONVOLITH_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) sum[r][v] = multiply_add(row, column[v], sum[r][v]);
    }
    a += kTileRows;
  }
  store_tile<T, kRows, kVectors>(sum, c, c_row_stride, columns, accumulate);
}

/// Few rows take more vectors at a time: multiply-adds must not wait for one another.
constexpr int offsets_vectors(int rows) {
  constexpr int kAccumulators = kTileRows * kTileVectors;
  return rows > 3 ? kTileVectors : kAccumulators / rows < 8 ? kAccumulators / rows : 8;
}

template <class T>
struct GemmOffsetsTile {
  template <int kRows>
  struct Rows {
    /// As many tiles of kVectors as fit, the rest with half as many.
    template <int kVectors>
    static void run_vectors(int columns, std::int64_t k, const T* a, const T* b,
                            const std::int64_t* offsets, T* c, std::int64_t c_row_stride,
                            bool accumulate) {
      constexpr int kColumns = kVectors * kLanes<T>;
      for (; columns >= kColumns; columns -= kColumns, b += kColumns, c += kColumns) {
        gemm_offsets_tile_of<T, kRows, kVectors, false>(k, a, b, offsets, c, c_row_stride,
                                                        kColumns, accumulate);
      }
      if (columns == 0) return;
      if constexpr (kVectors > 1) {
        constexpr int kHalf = kVectors / 2;
        if (columns <= kHalf * kLanes<T> || kVectors > kTileVectors) {
          run_vectors<kHalf>(columns, k, a, b, offsets, c, c_row_stride, accumulate);
          return;
        }
      }
      gemm_offsets_tile_of<T, kRows, kVectors, true>(k, a, b, offsets, c, c_row_stride, columns,
                                                     accumulate);
    }
    static void run(int columns, std::int64_t k, const T* a, const T* b,
                    const std::int64_t* offsets, T* c, std::int64_t c_row_stride,
                    bool accumulate) {
      run_vectors<offsets_vectors(kRows)>(columns, k, a, b, offsets, c, c_row_stride, accumulate);
    }
  };
};

template <class T>
void gemm_offsets_tile(int rows, int columns, std::int64_t k, const T* a, const T* b,
                       const std::int64_t* offsets, T* c, std::int64_t c_row_stride,
                       bool accumulate) {
  ForRows<GemmOffsetsTile<T>::template Rows, kThinRows>::run(rows, columns, k, a, b, offsets, c,
                                                             c_row_stride, accumulate);
}

template <class T, int kRows, int kColumns>
void dot_tile(std::int64_t k, const T* a, std::int64_t a_row_stride, const T* b,
              std::int64_t b_column_stride, T* c, std::int64_t c_row_stride, bool accumulate) {
  Vec<T> sum[kRows][kColumns] = {};
  const auto add = [&](std::int64_t p, auto load_lanes_of) {
    Vec<T> column[kColumns];
    CONVOLITH_UNROLL(8)
    for (int j = 0; j < kColumns; ++j) column[j] = load_lanes_of(b + j * b_column_stride + p);
    CONVOLITH_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> row = load_lanes_of(a + r * a_row_stride + p);
      CONVOLITH_UNROLL(8)
      for (int j = 0; j < kColumns; ++j) sum[r][j] = multiply_add(row, column[j], sum[r][j]);
    }
  };
  std::int64_t p = 0;
  for (; p + kLanes<T> <= k; p += kLanes<T>) add(p, [](const T* at) { return load(at); });
  if (p < k) {
    const auto left = static_cast<int>(k - p);
    add(p, [left](const T* at) { return load_partial(at, left); });
  }
  CONVOLITH_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    CONVOLITH_UNROLL(8)
    for (int j = 0; j < kColumns; ++j) {
      T& to = c[r * c_row_stride + j];
      const T product = sum_of_lanes<T>(sum[r][j]);
      to = accumulate ? to + product : product;
    }
  }
}

template <class T>
struct DotProducts {
  template <int kRows>
  struct Rows {
    static void run(std::int64_t columns, std::int64_t k, const T* a, std::int64_t a_row_stride,
                    const T* b, std::int64_t b_column_stride, T* c, std::int64_t c_row_stride,
                    bool accumulate) {
      constexpr int kColumns = kRows == 1 ? 8 : kVectorBytes == 64 ? 4 : 2;
      std::int64_t j = 0;
      for (; j + kColumns <= columns; j += kColumns) {
        dot_tile<T, kRows, kColumns>(k, a, a_row_stride, b + j * b_column_stride, b_column_stride,
                                     c + j, c_row_stride, accumulate);
      }
      for (; j < columns; ++j) {
        dot_tile<T, kRows, 1>(k, a, a_row_stride, b + j * b_column_stride, b_column_stride, c + j,
                              c_row_stride, accumulate);
      }
    }
  };
};

template <class T>
void dot_products(int rows, std::int64_t columns, std::int64_t k, const T* a,
                  std::int64_t a_row_stride, const T* b, std::int64_t b_column_stride, T* c,
                  std::int64_t c_row_stride, bool accumulate) {
  ForRows<DotProducts<T>::template Rows, kThinRows>::run(
      rows, columns, k, a, a_row_stride, b, b_column_stride, c, c_row_stride, accumulate);
}

/// Lanes are neighbours in the source: copies, row by row.
template <class T>
void pack_rows(int width, int valid, std::int64_t k, const T* source, std::int64_t k_stride,
               T* panel) {
  constexpr int kAhead = 8;  // rows may lie a page apart, where no hardware prefetcher follows
  if (valid == kTileColumns<T> && width == kTileColumns<T>) {
    for (std::int64_t p = 0; p < k; ++p, source += k_stride, panel += kTileColumns<T>) {
      CONVOLITH_UNROLL(2)
      for (int v = 0; v < kTileVectors; ++v) {
        __builtin_prefetch(source + kAhead * k_stride + v * kLanes<T>);
        store<T>(panel + v * kLanes<T>, load(source + v * kLanes<T>));
      }
    }
    return;
  }
  for (std::int64_t p = 0; p < k; ++p, source += k_stride, panel += width) {
    for (int i = 0; i < width; i += kLanes<T>) {
      const int left = valid - i;
      store_upto<T>(panel + i, left > 0 ? load_upto(source + i, left) : zero<T>(), width - i);
    }
  }
}

/// k runs along memory: transposes squares of lanes.
template <class T>
void pack_columns(int width, int valid, std::int64_t k, const T* source, std::int64_t lane_stride,
                  T* panel) {
  for (int first = 0; first < width; first += kLanes<T>) {
    const int lanes = width - first < kLanes<T> ? width - first : kLanes<T>;
    for (std::int64_t p = 0; p < k; p += kLanes<T>) {
      const int count = k - p < kLanes<T> ? static_cast<int>(k - p) : kLanes<T>;
      Vec<T> square[kLanes<T>];
      CONVOLITH_UNROLL(16)
      for (int i = 0; i < kLanes<T>; ++i) {
        const T* row = source + (first + i) * lane_stride + p;
        square[i] = first + i < valid ? load_upto(row, count) : zero<T>();
      }
      transpose<T>(square);
      T* to = panel + p * width + first;
      CONVOLITH_UNROLL(16)
      for (int i = 0; i < kLanes<T>; ++i) {
        if (i < count) store_upto<T>(to + i * width, square[i], lanes);
      }
    }
  }
}

template <class T>
void pack_panel(int width, int valid, std::int64_t k, const T* source, std::int64_t lane_stride,
                std::int64_t k_stride, T* panel) {
  if (lane_stride == 1) {
    pack_rows(width, valid, k, source, k_stride, panel);
  } else if (k_stride == 1) {
    pack_columns(width, valid, k, source, lane_stride, panel);
  } else {
    for (std::int64_t p = 0; p < k; ++p) {
      for (int i = 0; i < width; ++i) {
        *panel++ = i < valid ? source[p * k_stride + i * lane_stride] : T(0);
      }
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
