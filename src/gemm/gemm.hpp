#pragma once

#include <cstddef>
#include <cstdint>

#include "convolith/algorithm.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// A factor of a product: a strided matrix, or panels where `packed`: A's as pack_a() makes them,
/// B's [panel][k][lane].
template <class T>
struct GemmOperand {
  const T* data = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 0;
  bool packed = false;
};

/// C (+)= A B, with A of m x k, B of k x n and C's columns contiguous; then the epilogue on C.
/// Blocked for three levels of cache after Goto & van de Geijn (ACM TOMS 34:3, 2008). Every
/// element is summed in the same order for any number of threads.
template <class T>
class Gemm {
 public:
  Gemm(std::int64_t m, std::int64_t n, std::int64_t k, const Machine& machine, int threads);

  /// Scratch for run(), whether or not operands come packed.
  std::size_t workspace_bytes() const noexcept { return workspace_bytes_; }

  std::size_t packed_a_bytes() const noexcept;
  std::size_t packed_b_bytes() const noexcept;
  void pack_a(const GemmOperand<T>& a, T* panels) const noexcept;

  void run(const GemmOperand<T>& a, const GemmOperand<T>& b, T* c, std::int64_t c_row_stride,
           bool accumulate, const TileEpilogue<T>* epilogue, void* workspace) const noexcept;

  /// Predicted seconds on one core, packing included.
  static double cost(double m, double n, double k, const Machine& machine);

 private:
  struct Output {
    T* data;
    std::int64_t row_stride;
    bool accumulate;
    const TileEpilogue<T>* epilogue;  ///< null: none
  };

  void run_chunk(const GemmOperand<T>& a, const GemmOperand<T>& b, std::int64_t k_begin,
                 std::int64_t k_end, const Output& c, T* buffers) const noexcept;
  void multiply_block(const GemmOperand<T>& a, std::int64_t k_begin, std::int64_t k_count,
                      std::int64_t row_begin, std::int64_t row_end, std::int64_t column_begin,
                      std::int64_t column_end, const T* b_panels, std::int64_t b_panel_stride,
                      const Output& c, T* a_buffer) const noexcept;

  const Kernels<T>* kernels_;
  std::int64_t m_, n_, k_;
  int threads_;
  std::int64_t row_panels_, column_panels_;
  std::int64_t k_block_, row_block_, column_block_;  ///< kc, mc, nc
  std::int64_t k_chunk_;                             ///< summed without a chain above kMaxChain
  std::size_t a_buffer_elements_, b_buffer_elements_, workspace_bytes_;
};

}  // namespace convolith
