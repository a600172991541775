#pragma once

// The part of CUDA that src/cuda uses, on the processor: a C++ compiler that finds this folder first
// makes a library of the same sources, in which a device's memory is the host's and a kernel's
// threads are fibers. One block runs at a time; its threads switch at barriers and at what a warp
// does together. Two orders of threads, and copies done at once or as late as may be, give different
// results where a barrier or a wait is missing.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};
struct dim3 : uint3 {
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : uint3{a, b, c} {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

// ---- what threads do together --------------------------------------------------------------

namespace cuda_emulator {

inline constexpr int kWarp = 32;
inline constexpr std::size_t kMostShared = 227 * 1024;
inline constexpr std::size_t kExchangeBytes = 128;  ///< of one lane

/// Whether threads run from the last to the first, and asynchronous copies are made at once.
inline bool reversed = false;

/// Of the running thread within its block.
int thread_index();
void wait_for_block();

/// The memory that lanes hand one another values through: lane i's slot, which stays as it is until
/// the warp has met once more. Every lane writes its own slot and then calls meet().
struct Exchange {
  unsigned char (*slots)[kExchangeBytes];
  unsigned char* mine;
};
Exchange exchange();
void meet();

void yield();  ///< to the other threads of the block

/// A copy of 16 bytes, of zeros for a null source, which is there when its group has been waited for;
/// no sooner, or at once.
void copy_async(void* to, const void* from);
void commit_copies();
void wait_for_copies(int but_the_last);

/// A block's dynamic shared memory, NaN at the start.
extern unsigned char shared_memory[kMostShared];

/// Runs body(argument) as every thread of every block.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* argument);

template <class T>
T from_lane(T value, int lane) {
  static_assert(sizeof(T) <= kExchangeBytes);
  const Exchange warp = exchange();
  std::memcpy(warp.mine, &value, sizeof value);
  meet();
  std::memcpy(&value, warp.slots[lane], sizeof value);
  return value;
}

}  // namespace cuda_emulator

inline void __syncthreads() { cuda_emulator::wait_for_block(); }
inline void __syncwarp(unsigned = ~0u) {
  cuda_emulator::exchange();
  cuda_emulator::meet();
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_emulator::from_lane(value, (cuda_emulator::thread_index() % 32) ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return cuda_emulator::from_lane(value, lane);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int distance) {
  const int lane = cuda_emulator::thread_index() % 32 + distance;
  return cuda_emulator::from_lane(value, lane < 32 ? lane : lane - distance);
}
template <class T>
T __ldg(const T* address) {
  return *address;
}

// ---- the runtime -----------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2,
                   cudaErrorInvalidConfiguration = 9, cudaErrorNoDevice = 100 };
using cudaStream_t = struct CUstream_st*;

inline cudaError_t cuda_emulator_error = cudaSuccess;
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_emulator_error;
  cuda_emulator_error = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorInvalidConfiguration";
}
inline const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
  std::size_t totalGlobalMem, sharedMemPerBlockOptin;
};
enum cudaDeviceAttr { cudaDevAttrClockRate, cudaDevAttrMemoryClockRate,
                      cudaDevAttrGlobalMemoryBusWidth };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrGlobalMemoryBusWidth ? 6144 : 1980000;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulator", 9, 0, 4, 1 << 20, std::size_t{1} << 30, cuda_emulator::kMostShared};
  return cudaSuccess;
}
inline cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t) {
  *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* data, cudaStream_t) {
  std::free(data);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int) {
  return cudaSuccess;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const bool legal = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffff &&
                     grid.y <= 65535 && grid.z <= 65535 && block.x * block.y * block.z > 0 &&
                     block.x * block.y * block.z <= 1024 &&
                     config->dynamicSmemBytes <= cuda_emulator::kMostShared;
  if (!legal) return cuda_emulator_error = cudaErrorInvalidConfiguration;
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::remove_cv_t<Parameters>...> arguments;
  } call{kernel, {static_cast<Parameters>(arguments)...}};
  cuda_emulator::run(
      grid, block, config->dynamicSmemBytes,
      [](void* made) {
        const auto* of_thread = static_cast<Call*>(made);
        std::apply(of_thread->kernel, of_thread->arguments);
      },
      &call);
  return cudaSuccess;
}
