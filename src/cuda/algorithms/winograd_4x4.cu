// Winograd's F(4x4, 3x3).

#include "cuda/winograd.hpp"

namespace convolith::cuda {

const Algorithm& winograd_4x4_algorithm() {
  static const Winograd algorithm("winograd_4x4", "Winograd transforms of 4 x 4 outputs", 4);
  return algorithm;
}

}  // namespace convolith::cuda
