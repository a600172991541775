#include "winograd/winograd.hpp"

namespace convolith {

const Algorithm& winograd_4x4_algorithm() {
  static const Winograd algorithm("winograd_4x4",
                                  "multiplies transformed tiles of 4 x 4 outputs", 4);
  return algorithm;
}

}  // namespace convolith
