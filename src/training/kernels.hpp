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

}  // namespace convolith
