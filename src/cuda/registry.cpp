#include "cuda/registry.hpp"

namespace convolith::cuda {

#define CONVOLITH_ALGORITHM(name) const Algorithm& name##_algorithm();
#include "cuda/algorithms.def"
#undef CONVOLITH_ALGORITHM

std::span<const Algorithm* const> algorithms() noexcept {
#define CONVOLITH_ALGORITHM(name) &name##_algorithm(),
  static const Algorithm* const all[] = {
#include "cuda/algorithms.def"
  };
#undef CONVOLITH_ALGORITHM
  return all;
}

}  // namespace convolith::cuda
