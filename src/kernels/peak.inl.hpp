#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/vector.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

/// Twelve chains hide a latency of up to six cycles at two FMAs a cycle.
template <class T>
std::int64_t fma_rounds(std::int64_t rounds) {
  constexpr int kChains = 12;
  constexpr int kSteps = 8;
  // Values that the compiler cannot know: it would fold a chain that starts at its fixed point.
  const volatile T half = T(0.5);
  const volatile T one = T(1);
  const Vec<T> factor = broadcast<T>(half);
  const Vec<T> term = broadcast<T>(one);
  Vec<T> sum[kChains];
  for (int i = 0; i < kChains; ++i) sum[i] = term * broadcast<T>(T(i));
  for (std::int64_t round = 0; round < rounds; ++round) {
    CONVOLITH_UNROLL(8)
    for (int step = 0; step < kSteps; ++step) {
      CONVOLITH_UNROLL(12)
      for (int i = 0; i < kChains; ++i) sum[i] = multiply_add(sum[i], factor, term);
    }
  }
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "m"(sum[i]));
  return 2 * kLanes<T> * kChains * kSteps;
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
