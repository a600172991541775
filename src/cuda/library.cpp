// The C functions through which Python reaches the CUDA part. Each returns a Status; other than
// ok, message() has the reason. Pointers to arrays are the device's.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>
#include <string>

#include "convolith/error.hpp"
#include "cuda/device.hpp"
#include "cuda/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/plan.hpp"
#include "cuda/pooling.hpp"

#define CONVOLITH_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace convolith;

enum Status : int { ok, invalid, unsupported, overflow, out_of_memory, device_error };

thread_local std::string text_of_thread;

/// Runs body; its exceptions become a status and a message.
template <class Body>
int guarded(const Body& body) noexcept {
  const auto failed = [](Status status, const char* why) {
    text_of_thread = why;
    return static_cast<int>(status);
  };
  try {
    body();
    return ok;
  } catch (const Unsupported& error) {
    return failed(unsupported, error.what());
  } catch (const InvalidArgument& error) {
    return failed(invalid, error.what());
  } catch (const Overflow& error) {
    return failed(overflow, error.what());
  } catch (const std::bad_alloc& error) {
    return failed(out_of_memory, error.what());
  } catch (const std::exception& error) {
    return failed(device_error, error.what());
  }
}

struct Options {
  const char* algorithm;
  std::int64_t workspace_limit;  ///< -1: none
  std::int32_t strict, packs_once, device;
};

PlanOptions plan_options(const Options& options) {
  PlanOptions result;
  result.algorithm = options.algorithm;
  result.numerics = options.strict ? Numerics::strict : Numerics::fast;
  result.packs_once = options.packs_once != 0;
  if (options.workspace_limit >= 0) {
    result.workspace_limit = static_cast<std::size_t>(options.workspace_limit);
  }
  return result;
}

struct PlanRecord {
  const char* algorithm;
  std::uint64_t workspace_bytes, packed_bytes;
  double componentwise, uniform;
};

struct CandidateRecord {
  const char *name, *summary;
  std::int32_t supported;
  char reason[508];
  std::uint64_t workspace_bytes, packed_bytes;
  double cost_seconds, componentwise, uniform;
};

struct DeviceRecord {
  const char* name;
  std::int32_t major, minor, multiprocessors;
};

}  // namespace

/// Changes whenever a function or a struct here does.
CONVOLITH_EXPORT int convolith_cuda_interface() { return 1; }

CONVOLITH_EXPORT const char* convolith_cuda_message() { return text_of_thread.c_str(); }

/// The number of devices; where it is 0, message() has the reason.
CONVOLITH_EXPORT int convolith_cuda_devices() {
  return cuda::device_count(text_of_thread);
}

CONVOLITH_EXPORT int convolith_cuda_device(int index, DeviceRecord* record) {
  return guarded([&] {
    const cuda::Device& device = cuda::device(index);
    *record = {device.name.c_str(), device.major, device.minor, device.multiprocessors};
  });
}

CONVOLITH_EXPORT int convolith_cuda_versions(int* driver, int* runtime) {
  cudaDriverGetVersion(driver);
  cudaRuntimeGetVersion(runtime);
  return ok;
}

CONVOLITH_EXPORT int convolith_cuda_plan(const char* problem, const Options* options,
                                         cuda::Plan** plan, PlanRecord* record) {
  return guarded([&] {
    auto made = std::make_unique<cuda::Plan>(ConvProblem::parse(problem), plan_options(*options),
                                             options->device);
    const Tolerance tolerance = made->algorithm().tolerance(made->problem());
    *record = {made->algorithm().name(), made->workspace_bytes(), made->packed_bytes(),
               tolerance.componentwise, tolerance.uniform};
    *plan = made.release();
  });
}

CONVOLITH_EXPORT void convolith_cuda_free_plan(cuda::Plan* plan) { delete plan; }

/// Leaves the text in message().
CONVOLITH_EXPORT int convolith_cuda_explain(const cuda::Plan* plan) {
  std::string text;
  const int status = guarded([&] { text = plan->explain(); });
  if (status == ok) text_of_thread = std::move(text);
  return status;
}

CONVOLITH_EXPORT int convolith_cuda_pack(const cuda::Plan* plan, const void* weight, void* packed,
                                         int device, void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    plan->pack(weight, packed, static_cast<cudaStream_t>(stream));
  });
}

CONVOLITH_EXPORT int convolith_cuda_run(const cuda::Plan* plan, const ConvArguments* arguments,
                                        const void* packed, void* workspace, int device,
                                        void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    plan->run(*arguments, packed, workspace, static_cast<cudaStream_t>(stream));
  });
}

/// Writes at most `capacity` records; returns through `count` how many algorithms there are.
CONVOLITH_EXPORT int convolith_cuda_candidates(const char* problem, const Options* options,
                                               CandidateRecord* records, int capacity,
                                               int* count) {
  return guarded([&] {
    const auto all = cuda::candidates(ConvProblem::parse(problem), plan_options(*options),
                                      options->device);
    *count = 0;
    for (const Candidate& candidate : all) {
      if (*count < capacity) {
        CandidateRecord& record = records[*count];
        record = {candidate.algorithm->name(), candidate.algorithm->summary(),
                  candidate.support.yes, {}, candidate.workspace_bytes, candidate.packed_bytes,
                  candidate.cost_seconds, candidate.tolerance.componentwise,
                  candidate.tolerance.uniform};
        std::snprintf(record.reason, sizeof record.reason, "%s",
                      candidate.support.reason.c_str());
      }
      ++*count;
    }
  });
}

CONVOLITH_EXPORT int convolith_cuda_pool(const cuda::PoolRecord* problem, const TensorView* x,
                                         const TensorView* y, const TensorView* indices,
                                         int device, void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    const cuda::StreamScope on(static_cast<cudaStream_t>(stream));
    cuda::enqueue_pool(*problem, *x, *y, *indices);
    cuda::require(cuda::take_error(), "pooling");
  });
}

CONVOLITH_EXPORT int convolith_cuda_pool_backward(const cuda::PoolRecord* problem,
                                                  const TensorView* dy, const TensorView* x,
                                                  const TensorView* indices,
                                                  const TensorView* dx, int device,
                                                  void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    const cuda::StreamScope on(static_cast<cudaStream_t>(stream));
    cuda::enqueue_pool_backward(*problem, *dy, *x, *indices, *dx);
    cuda::require(cuda::take_error(), "the gradient of pooling");
  });
}

CONVOLITH_EXPORT int convolith_cuda_channel_sums(const char* dtype, const char* layout,
                                                 const TensorView* maps, std::int64_t batch,
                                                 std::int64_t channels, std::int64_t pixels,
                                                 void* sums, int device, void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    const cuda::StreamScope on(static_cast<cudaStream_t>(stream));
    cuda::enqueue_channel_sums(parse_name<DType>(dtype, "dtype"),
                               parse_name<Layout>(layout, "data_format"), *maps, batch, channels,
                               pixels, sums);
    cuda::require(cuda::take_error(), "the gradient of the bias");
  });
}

/// Memory in the order of the stream, for callers whose library has no pool of its own.
CONVOLITH_EXPORT int convolith_cuda_allocate(std::uint64_t bytes, int device, void* stream,
                                             void** data) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    const cudaError_t error = cudaMallocAsync(data, bytes > 0 ? bytes : 1,
                                              static_cast<cudaStream_t>(stream));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw std::bad_alloc();
    }
    cuda::require(error, "cudaMallocAsync");
  });
}

CONVOLITH_EXPORT int convolith_cuda_release(void* data, int device, void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    cuda::require(cudaFreeAsync(data, static_cast<cudaStream_t>(stream)), "cudaFreeAsync");
  });
}

CONVOLITH_EXPORT int convolith_cuda_synchronize(int device, void* stream) {
  return guarded([&] {
    const cuda::DeviceScope scope(device);
    cuda::require(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)),
                  "cudaStreamSynchronize");
  });
}
