#pragma once

#include <cstdint>

#include "gemm/gemm.hpp"

namespace convolith {

/// C = A B for an A of few rows: B is read once, where it lies, at the speed of memory. Either its
/// rows or its columns must be contiguous.
template <class T>
class ThinProduct {
 public:
  ThinProduct(std::int64_t m, std::int64_t n, std::int64_t k, const Machine& machine, int threads);

  bool supports(const GemmOperand<T>& a, const GemmOperand<T>& b) const noexcept;
  std::size_t workspace_bytes() const noexcept;

  /// Every element is summed in the same order for any number of threads.
  void run(const GemmOperand<T>& a, const GemmOperand<T>& b, T* c, const TileEpilogue<T>* epilogue,
           void* workspace) const noexcept;

 private:
  void multiply_columns(const GemmOperand<T>& a, const GemmOperand<T>& b, const T* packed_a,
                        const std::int64_t* offsets, std::int64_t first, std::int64_t columns,
                        T* c) const noexcept;

  const Kernels<T>* kernels_;
  std::int64_t m_, n_, k_;
  int threads_;
};

}  // namespace convolith
