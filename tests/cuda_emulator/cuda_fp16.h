#pragma once

#include <cmath>
#include <cstdint>

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half number) {
  const int sign = number.bits >> 15, exponent = number.bits >> 10 & 31;
  const int fraction = number.bits & 0x3ff;
  float magnitude = 0;
  if (exponent == 31) {
    magnitude = fraction == 0 ? INFINITY : NAN;
  } else {
    magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                              : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  }
  return sign ? -magnitude : magnitude;
}

/// To the nearest, ties to even, as the processor rounds.
inline __half __float2half_rn(float number) {
  const unsigned sign = std::signbit(number) ? 0x8000 : 0;
  const float magnitude = std::fabs(number);
  unsigned bits = 0x7e00;  // NaN
  if (magnitude < 0x1p-14f) {
    bits = static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, 24)));
  } else if (magnitude < 65520) {
    int exponent = 0;
    const float fraction = std::frexp(magnitude, &exponent);  // in [0.5, 1)
    // A fraction that rounds up to 2048 carries into the exponent.
    const auto rounded = static_cast<unsigned>(std::nearbyint(std::ldexp(fraction, 11)));
    bits = static_cast<unsigned>(exponent + 13) * 1024 + rounded;
  } else if (magnitude >= 65520) {
    bits = 0x7c00;
  }
  return {static_cast<std::uint16_t>(sign | bits)};
}
