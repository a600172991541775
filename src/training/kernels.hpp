#pragma once

#include "kernels/training_table.hpp"
#include "runtime/cpu.hpp"

namespace convolith {

template <class T>
const TrainingKernels<T>& training_kernels() {
  const KernelTable& isa = isa_in_use();
  if constexpr (sizeof(T) == 4) {
    return *isa.float32.training;
  } else {
    return *isa.float64.training;
  }
}

/// Whether results go past the caches, of a pass over so many arrays of so many elements.
template <class T>
bool results_past_caches(std::int64_t elements, int arrays) noexcept {
  return outgrows_caches(static_cast<double>(elements) * arrays * sizeof(T));
}

}  // namespace convolith
