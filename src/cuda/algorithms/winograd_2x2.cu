// Winograd's F(2x2, 3x3).

#include "cuda/winograd.hpp"

namespace convolith::cuda {

const Algorithm& winograd_2x2_algorithm() {
  static const Winograd algorithm("winograd_2x2", "Winograd transforms of 2 x 2 outputs", 2);
  return algorithm;
}

}  // namespace convolith::cuda
