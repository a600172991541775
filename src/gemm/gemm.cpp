#include "gemm/gemm.hpp"

#include <algorithm>
#include <cmath>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"

namespace convolith {
template <class T>
Gemm<T>::Gemm(std::int64_t m, std::int64_t n, std::int64_t k, const Machine& machine, int threads)
    : kernels_(&kernels_for<T>(machine)), m_(m), n_(n), k_(k), threads_(threads) {
  const std::int64_t rows = kernels_->tile_rows;
  const std::int64_t columns = kernels_->tile_columns;
  row_panels_ = divide_up(m, rows);
  column_panels_ = divide_up(n, columns);

  // Long panels pass over C seldom; those of A and B stream from L2, a few bytes a cycle. A block
  // of A takes a quarter of L2, one of B a share of L3.
  k_block_ = divide_up(k, std::max<std::int64_t>(1, divide_up(k, kMaxChain)));
  const auto block_of = [&](std::size_t bytes, std::int64_t tile, std::int64_t extent) {
    const auto fitting = static_cast<std::int64_t>(bytes / sizeof(T)) / k_block_;
    return std::min(std::max(tile, fitting / tile * tile), round_up(extent, tile));
  };
  row_block_ = block_of(machine.l2_bytes / 4, rows, m);
  column_block_ = block_of(std::min<std::size_t>(machine.l3_bytes / 4, 4 << 20), columns, n);
  k_chunk_ = k_block_ * kMaxChain;

  a_buffer_elements_ = static_cast<std::size_t>(round_up(row_block_ * k_block_, 64));
  b_buffer_elements_ = static_cast<std::size_t>(round_up(column_block_ * k_block_, 64));
  workspace_bytes_ = (b_buffer_elements_ + a_buffer_elements_ * threads) * sizeof(T);
  if (k_ > k_chunk_) workspace_bytes_ += static_cast<std::size_t>(m_ * n_) * sizeof(T);
}

template <class T>
std::size_t Gemm<T>::packed_a_bytes() const noexcept {
  return static_cast<std::size_t>(row_panels_ * kernels_->tile_rows * k_) * sizeof(T);
}

template <class T>
std::size_t Gemm<T>::packed_b_bytes() const noexcept {
  return static_cast<std::size_t>(column_panels_ * kernels_->tile_columns * k_) * sizeof(T);
}

template <class T>
void Gemm<T>::pack_a(const GemmOperand<T>& a, T* panels) const noexcept {
  const int width = kernels_->tile_rows;
  parallel_for(threads_, row_panels_, [&](std::int64_t panel, int) {
    const std::int64_t first = panel * width;
    kernels_->pack_panel(width, static_cast<int>(std::min<std::int64_t>(width, m_ - first)), k_,
                         a.data + first * a.row_stride, a.row_stride, a.column_stride,
                         panels + first * k_);
  });
}

template <class T>
void Gemm<T>::run(const GemmOperand<T>& a, const GemmOperand<T>& b, T* c,
                  std::int64_t c_row_stride, bool accumulate, const TileEpilogue<T>* epilogue,
                  void* workspace) const noexcept {
  T* buffers = static_cast<T*>(workspace);
  if (k_ <= k_chunk_) {
    run_chunk(a, b, 0, k_, {c, c_row_stride, accumulate, epilogue}, buffers);
    return;
  }
  // Chunk sums are added in order, so that no chain grows with k.
  T* partial = buffers + b_buffer_elements_ + a_buffer_elements_ * threads_;
  for (std::int64_t k = 0; k < k_; k += k_chunk_) {
    const std::int64_t k_end = std::min(k_, k + k_chunk_);
    if (k == 0 && !accumulate) {
      run_chunk(a, b, k, k_end, {c, c_row_stride, false, nullptr}, buffers);
      continue;
    }
    run_chunk(a, b, k, k_end, {partial, n_, false, nullptr}, buffers);
    for (std::int64_t r = 0; r < m_; ++r) {
      kernels_->add(n_, partial + r * n_, c + r * c_row_stride);
    }
  }
  if (epilogue == nullptr) return;
  for (std::int64_t r = 0; r < m_; ++r) {
    TileEpilogue<T> row = *epilogue;
    if (row.bias_axis == BiasAxis::rows) row.bias += r;
    if (row.residual != nullptr) row.residual += r * row.residual_row_stride;
    kernels_->epilogue(row, 1, static_cast<int>(n_), c + r * c_row_stride, 0, 1);
  }
}

template <class T>
void Gemm<T>::run_chunk(const GemmOperand<T>& a, const GemmOperand<T>& b, std::int64_t k_begin,
                        std::int64_t k_end, const Output& c, T* buffers) const noexcept {
  const std::int64_t columns = kernels_->tile_columns;
  T* b_buffer = buffers;
  T* a_buffers = buffers + b_buffer_elements_;
  for (std::int64_t j = 0; j < n_; j += column_block_) {
    const std::int64_t j_end = std::min(n_, j + column_block_);
    const std::int64_t panels = divide_up(j_end - j, columns);
    for (std::int64_t k = k_begin; k < k_end; k += k_block_) {
      const std::int64_t k_count = std::min(k_block_, k_end - k);
      const T* b_panels = b_buffer;
      std::int64_t b_panel_stride = columns * k_count;
      if (b.packed) {
        b_panels = b.data + j * k_ + k * columns;
        b_panel_stride = columns * k_;
      } else {
        parallel_for(threads_, panels, [&](std::int64_t panel, int) {
          const std::int64_t first = j + panel * columns;
          const auto valid = static_cast<int>(std::min(columns, n_ - first));
          kernels_->pack_panel(static_cast<int>(columns), valid, k_count,
                               b.data + first * b.column_stride + k * b.row_stride,
                               b.column_stride, b.row_stride,
                               b_buffer + panel * columns * k_count);
        });
      }
      Output block = c;
      block.accumulate = c.accumulate || k > k_begin;
      if (k + k_count < k_end) block.epilogue = nullptr;
      // Cut the axis that leaves the largest share smallest; rows share B's panels in cache.
      parallel(threads_, [&](int thread, int team) {
        T* a_buffer = a_buffers + a_buffer_elements_ * thread;
        const std::int64_t by_rows = divide_up(row_panels_, team) * panels;
        const std::int64_t by_columns = divide_up(panels, team) * row_panels_;
        std::int64_t row_begin = 0, row_end = m_, column_begin = j, column_end = j_end;
        if (by_rows <= by_columns) {
          const Range range = Range::share(row_panels_, thread, team);
          row_begin = range.begin * kernels_->tile_rows;
          row_end = std::min(m_, range.end * kernels_->tile_rows);
        } else {
          const Range range = Range::share(panels, thread, team);
          column_begin = j + range.begin * columns;
          column_end = std::min(j_end, j + range.end * columns);
        }
        multiply_block(a, k, k_count, row_begin, row_end, column_begin, column_end,
                       b_panels + (column_begin - j) / columns * b_panel_stride, b_panel_stride,
                       block, a_buffer);
      });
    }
  }
}

template <class T>
void Gemm<T>::multiply_block(const GemmOperand<T>& a, std::int64_t k_begin, std::int64_t k_count,
                             std::int64_t row_begin, std::int64_t row_end,
                             std::int64_t column_begin, std::int64_t column_end,
                             const T* b_panels, std::int64_t b_panel_stride, const Output& c,
                             T* a_buffer) const noexcept {
  const std::int64_t rows = kernels_->tile_rows;
  const std::int64_t columns = kernels_->tile_columns;
  if (column_begin >= column_end) return;
  // Equal blocks: a short last one would stream B for little work.
  const std::int64_t panels = divide_up(row_end - row_begin, rows);
  const auto blocks = static_cast<int>(divide_up(panels, row_block_ / rows));
  for (int block = 0; block < blocks; ++block) {
    const Range range = Range::share(panels, block, blocks);
    const std::int64_t i = row_begin + range.begin * rows;
    const std::int64_t i_end = std::min(row_end, row_begin + range.end * rows);
    const T* a_panels = a_buffer;
    std::int64_t a_panel_stride = rows * k_count;
    if (a.packed) {
      a_panels = a.data + i * k_ + k_begin * rows;
      a_panel_stride = rows * k_;
    } else {
      for (std::int64_t r = i; r < i_end; r += rows) {
        kernels_->pack_panel(static_cast<int>(rows), static_cast<int>(std::min(rows, m_ - r)),
                             k_count, a.data + r * a.row_stride + k_begin * a.column_stride,
                             a.row_stride, a.column_stride, a_buffer + (r - i) * k_count);
      }
    }
    const T* b_panel = b_panels;
    for (std::int64_t j = column_begin; j < column_end; j += columns, b_panel += b_panel_stride) {
      const auto tile_columns = static_cast<int>(std::min(columns, column_end - j));
      const T* a_panel = a_panels;
      for (std::int64_t r = i; r < i_end; r += rows, a_panel += a_panel_stride) {
        const auto tile_rows = static_cast<int>(std::min(rows, i_end - r));
        T* tile = c.data + r * c.row_stride + j;
        kernels_->gemm_tile(tile_rows, tile_columns, k_count, a_panel, b_panel, tile,
                            c.row_stride, c.accumulate);
        if (c.epilogue != nullptr) {
          TileEpilogue<T> epilogue = *c.epilogue;
          if (epilogue.bias_axis == BiasAxis::rows) epilogue.bias += r;
          if (epilogue.bias_axis == BiasAxis::columns) epilogue.bias += j;
          if (epilogue.residual != nullptr) {
            epilogue.residual +=
                r * epilogue.residual_row_stride + j * epilogue.residual_column_stride;
          }
          kernels_->epilogue(epilogue, tile_rows, tile_columns, tile, c.row_stride, 1);
        }
      }
    }
  }
}

template <class T>
double Gemm<T>::cost(double m, double n, double k, const Machine& machine) {
  const Kernels<T>& kernels = kernels_for<T>(machine);
  const auto tiles = [](double extent, int tile) {
    const double whole = std::max(1.0, (extent + tile - 1) / tile);
    return static_cast<double>(static_cast<std::int64_t>(whole)) * tile;
  };
  // Rows have kernels of every height; columns come in whole vectors.
  const double padded_flops = 2 * m * tiles(n, kernels.lanes) * k;
  const double flops_rate = machine.flops_per_second[sizeof(T) == 8] * 0.9;
  const double packed_bytes = 2.0 * sizeof(T) * (m * k + k * n) + 2.0 * sizeof(T) * m * n;
  // Short sums do not hide how results go to memory, or to an L3 far away.
  const double short_sum = l3_is_far(machine) ? 32 : 16;
  const double written = sizeof(T) * m * n;
  const bool waits = k < short_sum && written > static_cast<double>(machine.l2_bytes);
  constexpr double kTileCycles = 40;
  const double register_tiles = std::ceil(m / kernels.tile_rows) *
                                std::ceil(n / kernels.tile_columns) * std::ceil(k / kMaxChain);
  return padded_flops / flops_rate + register_tiles * kTileCycles / machine.cycles_per_second +
         (packed_bytes / 4 + (waits ? written : 0)) / machine.bytes_per_second;
}

template class Gemm<float>;
template class Gemm<double>;

}  // namespace convolith
