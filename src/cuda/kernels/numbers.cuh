#pragma once

// Numbers as arrays hold them and as kernels compute with them.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "convolith/problem.hpp"

namespace convolith::cuda {

/// What sums of T are accumulated in.
template <class T>
struct WideType {
  using type = float;
};
template <>
struct WideType<double> {
  using type = double;
};
template <class T>
using Wide = typename WideType<T>::type;

__host__ __device__ __forceinline__ float widen(float value) { return value; }
__host__ __device__ __forceinline__ double widen(double value) { return value; }
__host__ __device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__host__ __device__ __forceinline__ float widen(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

/// Rounded to the nearest T.
template <class T>
__host__ __device__ __forceinline__ T narrow(Wide<T> value) {
  return value;
}
template <>
__host__ __device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__host__ __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

/// Calls body(T{}) for the dtype's T.
template <class Body>
auto with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::float64: return body(double{});
    case DType::float16: return body(__half{});
    case DType::bfloat16: return body(__nv_bfloat16{});
    case DType::float32: break;
  }
  return body(float{});
}

/// A sum of which no chain of additions is longer than kMaxChain.
template <class Number>
class ChainedSum {
 public:
  __host__ __device__ void add_product(Number a, Number b) {
    partial_ += a * b;
    if (++count_ == kChain) fold();
  }
  __host__ __device__ void add(Number value) {
    partial_ += value;
    if (++count_ == kChain) fold();
  }
  __host__ __device__ Number value() const { return total_ + partial_; }

 private:
  static constexpr int kChain = 256;

  __host__ __device__ void fold() {
    total_ += partial_;
    partial_ = 0;
    count_ = 0;
  }

  Number total_ = 0, partial_ = 0;
  int count_ = 0;
};

}  // namespace convolith::cuda
