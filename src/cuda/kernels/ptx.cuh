#pragma once

// What of the device has no name in CUDA C++. tests/cuda_emulator has the same functions for the
// processor. Register layouts are those of the PTX ISA, "Matrix multiply-accumulate operation".

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace convolith::cuda {

/// The block's dynamic shared memory.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Begins to copy 16 aligned bytes into shared memory; zeros where not `valid`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes));
}

/// Ends a group of the thread's copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n" ::); }

/// Waits until all of the thread's groups but the last kGroups are there.
template <int kGroups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kGroups) : "memory");
}

/// Four 8x8 matrices of 16-bit elements, or 8x4 of 32-bit ones: lane i gives the address of row i % 8
/// of matrix i / 8, and gets of each matrix the 32 bits at row i / 4, place i % 4.
__device__ __forceinline__ void load_matrices(std::uint32_t (&values)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
               : "r"(shared_address(row))
               : "memory");
}

/// The same of the transposed matrices of 16-bit elements.
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&values)[4],
                                                         const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
               : "r"(shared_address(row))
               : "memory");
}

/// c += a * b of a warp: 16x16 times 16x8 of 16-bit elements, 16x8 times 8x8 of tf32.
template <class T>
__device__ __forceinline__ void multiply_matrices(float (&c)[4], const std::uint32_t (&a)[4],
                                                  std::uint32_t b0, std::uint32_t b1);
#define CONVOLITH_MMA(Type, text)                                                               \
  template <>                                                                                   \
  __device__ __forceinline__ void multiply_matrices<Type>(                                      \
      float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {         \
    asm volatile("mma.sync.aligned." text " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "     \
                 "{%0, %1, %2, %3};\n"                                                          \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));               \
  }
CONVOLITH_MMA(__half, "m16n8k16.row.col.f32.f16.f16.f32")
CONVOLITH_MMA(__nv_bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
CONVOLITH_MMA(float, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef CONVOLITH_MMA

/// The bits of a float32, rounded to the nearest tf32.
__device__ __forceinline__ std::uint32_t round_to_tf32(std::uint32_t bits) {
  std::uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

}  // namespace convolith::cuda
