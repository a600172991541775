#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 number) {
  const std::uint32_t bits = std::uint32_t{number.bits} << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}
/// To the nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16_rn(float number) {
  std::uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  if (number != number) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
