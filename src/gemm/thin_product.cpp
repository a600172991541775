#include "gemm/thin_product.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "tolerance.hpp"

namespace convolith {

template <class T>
ThinProduct<T>::ThinProduct(std::int64_t m, std::int64_t n, std::int64_t k, const Machine& machine,
                            int threads)
    : kernels_(&kernels_for<T>(machine)), m_(m), n_(n), k_(k), threads_(threads) {}

template <class T>
bool ThinProduct<T>::supports(const GemmOperand<T>& a, const GemmOperand<T>& b) const noexcept {
  if (m_ > kernels_->thin_rows || k_ > kMaxChain * kMaxChain) return false;
  return b.column_stride == 1 || (b.row_stride == 1 && a.column_stride == 1);
}

/// A as gemm_offsets_tile wants it, and where the rows of a block of B lie.
template <class T>
std::size_t ThinProduct<T>::workspace_bytes() const noexcept {
  return aligned_bytes<T>(k_ * kernels_->tile_rows) + aligned_bytes<std::int64_t>(kMaxChain);
}

template <class T>
void ThinProduct<T>::run(const GemmOperand<T>& a, const GemmOperand<T>& b, T* c,
                         const TileEpilogue<T>* epilogue, void* workspace) const noexcept {
  auto* packed_a = static_cast<T*>(workspace);
  auto* offsets = reinterpret_cast<std::int64_t*>(static_cast<std::byte*>(workspace) +
                                                  aligned_bytes<T>(k_ * kernels_->tile_rows));
  if (b.column_stride == 1) {
    kernels_->pack_panel(kernels_->tile_rows, static_cast<int>(m_), k_, a.data, a.row_stride,
                         a.column_stride, packed_a);
    for (std::int64_t p = 0; p < kMaxChain; ++p) offsets[p] = p * b.row_stride;
  }
  constexpr std::int64_t kColumns = 256;
  parallel_for(threads_, divide_up(n_, kColumns), [&](std::int64_t block, int) {
    const std::int64_t first = block * kColumns;
    const std::int64_t columns = std::min(kColumns, n_ - first);
    multiply_columns(a, b, packed_a, offsets, first, columns, c + first);
    if (epilogue == nullptr) return;
    TileEpilogue<T> part = *epilogue;
    if (part.bias_axis == BiasAxis::columns) part.bias += first;
    kernels_->epilogue(part, static_cast<int>(m_), static_cast<int>(columns), c + first, n_, 1);
  });
}

template <class T>
void ThinProduct<T>::multiply_columns(const GemmOperand<T>& a, const GemmOperand<T>& b,
                                      const T* packed_a, const std::int64_t* offsets,
                                      std::int64_t first, std::int64_t columns,
                                      T* c) const noexcept {
  const auto rows = static_cast<int>(m_);
  if (b.column_stride != 1) {
    const std::int64_t block = kMaxChain * kernels_->lanes;
    for (std::int64_t p = 0; p < k_; p += block) {
      kernels_->dot_products(rows, columns, std::min(block, k_ - p), a.data + p, a.row_stride,
                             b.data + first * b.column_stride + p, b.column_stride, c, n_, p > 0);
    }
    return;
  }
  for (std::int64_t p = 0; p < k_; p += kMaxChain) {
    kernels_->gemm_offsets_tile(rows, static_cast<int>(columns),
                                std::min<std::int64_t>(kMaxChain, k_ - p),
                                packed_a + p * kernels_->tile_rows,
                                b.data + p * b.row_stride + first, offsets, c, n_, p > 0);
  }
}

template class ThinProduct<float>;
template class ThinProduct<double>;

}  // namespace convolith
