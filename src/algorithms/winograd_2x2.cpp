#include "winograd/winograd.hpp"

namespace convolith {

const Algorithm& winograd_2x2_algorithm() {
  static const Winograd algorithm("winograd_2x2",
                                  "multiplies transformed tiles of 2 x 2 outputs", 2);
  return algorithm;
}

}  // namespace convolith
