#include "winograd/winograd.hpp"

namespace convolith {

const Algorithm& winograd_6x6_algorithm() {
  static const Winograd algorithm("winograd_6x6",
                                  "multiplies transformed tiles of 6 x 6 outputs", 6);
  return algorithm;
}

}  // namespace convolith
