#include "cuda/launch.hpp"

#include "cuda/error.hpp"

namespace convolith::cuda {
namespace {

thread_local cudaStream_t stream_of_thread = nullptr;
thread_local cudaError_t error_of_thread = cudaSuccess;

}  // namespace

StreamScope::StreamScope(cudaStream_t stream) noexcept : before_(stream_of_thread) {
  stream_of_thread = stream;
}
StreamScope::~StreamScope() { stream_of_thread = before_; }

cudaStream_t current_stream() noexcept { return stream_of_thread; }

DeviceScope::DeviceScope(int device) {
  require(cudaGetDevice(&before_), "cudaGetDevice");
  if (device != before_) require(cudaSetDevice(device), "cudaSetDevice");
}
DeviceScope::~DeviceScope() { cudaSetDevice(before_); }

void require(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw DeviceError(std::string(call) + " failed: " + cudaGetErrorName(error) + ", " +
                    cudaGetErrorString(error));
}

void note_error(cudaError_t error) noexcept {
  if (error_of_thread == cudaSuccess) error_of_thread = error;
}

cudaError_t take_error() noexcept {
  const cudaError_t pending = cudaGetLastError();  // also resets what a failed launch left
  const cudaError_t error = error_of_thread != cudaSuccess ? error_of_thread : pending;
  error_of_thread = cudaSuccess;
  return error;
}

}  // namespace convolith::cuda
