#pragma once

#include <cstddef>
#include <string>

#include "convolith/algorithm.hpp"

namespace convolith::cuda {

/// A device, as far as a choice of algorithm needs to know it. Rates are nominal.
struct Device {
  std::string name;
  int major, minor;            ///< compute capability
  int multiprocessors;
  std::size_t shared_bytes;    ///< most that one block can have
  double simt_flops;           ///< float32 multiply-adds of ordinary threads, a second, times 2
  double float64_flops;
  double tensor_flops;         ///< float16 and bfloat16 on tensor cores; tf32 is half of it
  double bytes_per_second;     ///< of device memory
  double launch_seconds;       ///< of one kernel that does nothing
};

/// Devices that can be used; 0, and why in `reason`, where there is no driver or device.
int device_count(std::string& reason);

/// Throws DeviceError where the device cannot be asked.
Machine describe_device(int index);

/// What a device says of itself; lives as long as the process.
const Device& device(int index);

}  // namespace convolith::cuda
