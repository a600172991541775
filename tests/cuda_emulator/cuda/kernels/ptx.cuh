#pragma once

// src/cuda/kernels/ptx.cuh for the processor.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace convolith::cuda {

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(cuda_emulator::shared_memory);
}

inline void copy_async_16(void* shared, const void* global, bool valid) {
  cuda_emulator::copy_async(shared, valid ? global : nullptr);
}
inline void commit_copies() { cuda_emulator::commit_copies(); }
template <int kGroups>
void wait_for_copies() {
  cuda_emulator::wait_for_copies(kGroups);
}

/// Of the row that each lane names, and where those rows lie.
struct NamedRows {
  const unsigned char* of_lane[cuda_emulator::kWarp];

  explicit NamedRows(const void* row) {
    const cuda_emulator::Exchange warp = cuda_emulator::exchange();
    std::memcpy(warp.mine, &row, sizeof row);
    cuda_emulator::meet();
    for (int i = 0; i < cuda_emulator::kWarp; ++i) {
      std::memcpy(&of_lane[i], warp.slots[i], sizeof of_lane[i]);
    }
  }
};

inline void load_matrices(std::uint32_t (&values)[4], const void* row) {
  const NamedRows rows(row);
  const int lane = cuda_emulator::thread_index() % 32;
  for (int m = 0; m < 4; ++m) {
    std::memcpy(&values[m], rows.of_lane[m * 8 + lane / 4] + lane % 4 * 4, 4);
  }
}

inline void load_matrices_transposed(std::uint32_t (&values)[4], const void* row) {
  const NamedRows rows(row);
  const int lane = cuda_emulator::thread_index() % 32;
  for (int m = 0; m < 4; ++m) {
    std::uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      std::memcpy(&pair[i], rows.of_lane[m * 8 + lane % 4 * 2 + i] + lane / 4 * 2, 2);
    }
    std::memcpy(&values[m], pair, 4);
  }
}

inline float element(std::uint32_t bits, int, float) {
  bits &= 0xffffe000;  // what tensor cores read of a tf32
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float element(std::uint32_t bits, int half, __half) {
  return __half2float({static_cast<std::uint16_t>(bits >> (16 * half))});
}
inline float element(std::uint32_t bits, int half, __nv_bfloat16) {
  return __bfloat162float({static_cast<std::uint16_t>(bits >> (16 * half))});
}

template <class T>
void multiply_matrices(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                       std::uint32_t b1) {
  struct Registers {
    std::uint32_t a[4], b[2];
  };
  const Registers mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const cuda_emulator::Exchange warp = cuda_emulator::exchange();
  std::memcpy(warp.mine, &mine, sizeof mine);
  cuda_emulator::meet();
  constexpr int kPacked = 4 / sizeof(T), kDepth = 8 * kPacked;
  const auto of_lane = [&](int lane) {
    return reinterpret_cast<const Registers*>(warp.slots[lane]);
  };
  const int lane = cuda_emulator::thread_index() % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < kDepth; ++k) {
      const int upper = k >= kDepth / 2, place = k % (kDepth / 2) / kPacked;
      const float left =
          element(of_lane(row % 8 * 4 + place)->a[row / 8 + 2 * upper], k % kPacked, T{});
      const float right = element(of_lane(column * 4 + place)->b[upper], k % kPacked, T{});
      c[i] += left * right;
    }
  }
}

/// To the nearest, ties away from zero.
inline std::uint32_t round_to_tf32(std::uint32_t bits) {
  const bool finite = (bits & 0x7f800000) != 0x7f800000;
  return finite ? (bits + 0x1000) & 0xffffe000 : bits;
}

}  // namespace convolith::cuda
