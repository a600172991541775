#pragma once

#include <cstddef>
#include <utility>

#include <cuda_runtime.h>

namespace convolith::cuda {

/// The stream on which executions of the calling thread enqueue their work. A plan sets it for the
/// time of a call.
class StreamScope {
 public:
  explicit StreamScope(cudaStream_t stream) noexcept;
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  cudaStream_t before_;
};

cudaStream_t current_stream() noexcept;

/// Makes a device the calling thread's, for the time of a call.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = 0;
};

/// Throws DeviceError, which names the call, unless `error` is cudaSuccess.
void require(cudaError_t error, const char* call);

/// Keeps the first error of a call until take_error() asks for it.
void note_error(cudaError_t error) noexcept;
cudaError_t take_error() noexcept;

/// Enqueues a kernel on the current stream; an error waits for take_error().
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            Arguments&&... arguments) noexcept {
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    note_error(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = current_stream();
  note_error(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace convolith::cuda
