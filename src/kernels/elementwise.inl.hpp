#pragma once

#include "kernels/kernel_table.hpp"
#include "simd/math.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

template <class T, Activation kActivation>
CONVOLITH_INLINE Vec<T> activate(Vec<T> v, Vec<T> slope) {
  const Vec<T> none = zero<T>();
  const Vec<T> six = broadcast<T>(T(6));
  switch (kActivation) {
    case Activation::none: return v;
    case Activation::relu: return max_keeping_nan<T>(v, none);
    case Activation::relu6: return min_keeping_nan<T>(max_keeping_nan<T>(v, none), six);
    case Activation::leaky_relu:
      return select<T>((Mask<T>)(v < none), fused_product<T>(v, slope), v);
    case Activation::tanh: return hyperbolic_tangent<T>(v);
    case Activation::sigmoid: return logistic<T>(v);
    case Activation::silu: return sigmoid_weighted<T>(v);
    case Activation::hardswish: {
      const Vec<T> shifted = max_keeping_nan<T>(v + broadcast<T>(T(3)), none);
      return fused_product<T>(v, min_keeping_nan<T>(shifted, six) * broadcast<T>(T(1) / T(6)));
    }
  }
  return v;
}

template <class T, Activation kActivation>
void epilogue_of(const TileEpilogue<T>& epilogue, int rows, int columns, T* tile,
                 std::int64_t row_stride, std::int64_t column_stride) {
  const Vec<T> slope = broadcast(epilogue.slope);
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; j += kLanes<T>) {
      const int count = columns - j < kLanes<T> ? columns - j : kLanes<T>;
      T* at = tile + r * row_stride + j * column_stride;
      Vec<T> v = column_stride == 1 ? load_upto(at, count) : load_strided(at, column_stride, count);
      if (epilogue.bias_axis == BiasAxis::columns) v = v + load_upto(epilogue.bias + j, count);
      if (epilogue.bias_axis == BiasAxis::rows) v = v + broadcast(epilogue.bias[r]);
      if (epilogue.residual != nullptr) {
        const T* residual = epilogue.residual + r * epilogue.residual_row_stride +
                            j * epilogue.residual_column_stride;
        v = v + (epilogue.residual_column_stride == 1
                     ? load_upto(residual, count)
                     : load_strided(residual, epilogue.residual_column_stride, count));
      }
      v = activate<T, kActivation>(v, slope);
      if (column_stride == 1) {
        store_upto<T>(at, v, count);
      } else {
        store_strided<T>(at, column_stride, v, count);
      }
    }
  }
}

template <class T>
void epilogue(const TileEpilogue<T>& e, int rows, int columns, T* tile, std::int64_t row_stride,
              std::int64_t column_stride) {
  using Function = void (*)(const TileEpilogue<T>&, int, int, T*, std::int64_t, std::int64_t);
  static constexpr Function functions[] = {
      epilogue_of<T, Activation::none>,      epilogue_of<T, Activation::relu>,
      epilogue_of<T, Activation::relu6>,     epilogue_of<T, Activation::leaky_relu>,
      epilogue_of<T, Activation::tanh>,      epilogue_of<T, Activation::sigmoid>,
      epilogue_of<T, Activation::silu>,      epilogue_of<T, Activation::hardswish>};
  functions[static_cast<int>(e.activation)](e, rows, columns, tile, row_stride, column_stride);
}

template <class T>
void add(std::int64_t count, const T* source, T* destination) {
  std::int64_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    store<T>(destination + i, load(destination + i) + load(source + i));
  }
  for (; i < count; ++i) destination[i] += source[i];
}

/// Blocks of 256 elements, then halves: chains of 256 / lanes and log2(count / 256) additions.
template <class T>
T sum(std::int64_t count, const T* source, std::int64_t stride) {
  constexpr std::int64_t kBlock = 256;
  if (count > kBlock) {
    const std::int64_t left = (count / kBlock + 1) / 2 * kBlock;
    return sum(left, source, stride) + sum(count - left, source + left * stride, stride);
  }
  Vec<T> partial = zero<T>();
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    const int lanes = count - i < kLanes<T> ? static_cast<int>(count - i) : kLanes<T>;
    partial = partial + (stride == 1 ? load_upto(source + i, lanes)
                                     : load_strided(source + i * stride, stride, lanes));
  }
  return sum_of_lanes<T>(partial);
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
