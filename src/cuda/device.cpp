#include "cuda/device.hpp"

#include <vector>

#include <cuda_runtime.h>

#include "cuda/error.hpp"

namespace convolith::cuda {
namespace {

Device ask(int index) {
  cudaDeviceProp properties{};
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  int kilohertz = 0, memory_kilohertz = 0, bus_bits = 0;
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, index);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&memory_kilohertz, cudaDevAttrMemoryClockRate, index);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, index);
  }
  if (error != cudaSuccess) {
    throw DeviceError("asking for the properties of device " + std::to_string(index) +
                      " failed: " + cudaGetErrorString(error));
  }
  const bool hopper = properties.major >= 9;
  const double cycles = 1e3 * kilohertz * properties.multiProcessorCount;
  Device device{};
  device.name = properties.name;
  device.major = properties.major;
  device.minor = properties.minor;
  device.multiprocessors = properties.multiProcessorCount;
  device.shared_bytes = properties.sharedMemPerBlockOptin;
  // Per multiprocessor and cycle: 128 float32 lanes on Hopper, 64 on Ampere's sm_80.
  device.simt_flops = cycles * 2 * (hopper ? 128 : 64);
  device.float64_flops = device.simt_flops / 2;
  device.tensor_flops = cycles * 2 * (hopper ? 2048 : 1024);
  device.bytes_per_second = 2e3 * memory_kilohertz * (bus_bits / 8);
  device.launch_seconds = 3e-6;
  return device;
}

}  // namespace

int device_count(std::string& reason) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    reason = cudaGetErrorString(error);
    return 0;
  }
  if (count == 0) reason = "the CUDA driver reports no device";
  return count;
}

const Device& device(int index) {
  static const std::vector<Device> all = [] {
    std::string reason;
    const int count = device_count(reason);
    std::vector<Device> asked;
    for (int i = 0; i < count; ++i) asked.push_back(ask(i));
    return asked;
  }();
  if (index < 0 || index >= static_cast<int>(all.size())) {
    throw DeviceError("there is no CUDA device " + std::to_string(index) + "; there are " +
                      std::to_string(all.size()));
  }
  return all[static_cast<std::size_t>(index)];
}

Machine describe_device(int index) {
  const Device& described = device(index);
  Machine machine{};
  machine.flops_per_second[0] = described.simt_flops;
  machine.flops_per_second[1] = described.float64_flops;
  machine.bytes_per_second = described.bytes_per_second;
  machine.device = &described;
  return machine;
}

}  // namespace convolith::cuda
