#pragma once

#include <cstdint>

#include "convolith/types.hpp"

namespace convolith {

/// The input coordinate that stands at padded coordinate q (0 is the first true input), or -1
/// where padding counts as zero.
constexpr std::int64_t padded_source(std::int64_t q, std::int64_t input,
                                     PaddingMode mode) noexcept {
  if (q >= 0 && q < input) return q;
  switch (mode) {
    case PaddingMode::zeros: return -1;
    case PaddingMode::reflect: return q < 0 ? -q : 2 * (input - 1) - q;
    case PaddingMode::replicate: return q < 0 ? 0 : input - 1;
    case PaddingMode::circular: return q < 0 ? q + input : q - input;
  }
  return -1;
}

}  // namespace convolith
