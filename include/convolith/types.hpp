#pragma once

#include <cstdint>

namespace convolith {

enum class Direction : std::uint8_t { forward, backward_input, backward_weight };
/// The processor computes float32 and float64, a CUDA device all of them.
enum class DType : std::uint8_t { float32, float64, float16, bfloat16 };

enum class Layout : std::uint8_t { channels_first, channels_last };
enum class PaddingMode : std::uint8_t { zeros, reflect, replicate, circular };
enum class Activation : std::uint8_t {
  none, relu, relu6, leaky_relu, tanh, sigmoid, silu, hardswish
};

/// "fast" lets auto choose transforms; "strict" keeps each output the sum of its own products.
enum class Numerics : std::uint8_t { fast, strict };

}  // namespace convolith
