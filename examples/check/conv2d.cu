// A 2-D convolution in CUDA behind the same C function, and how to check it:
//
//   nvcc -O3 -shared -Xcompiler -fPIC -I"$(dirname "$(convolith check --header)")" conv2d.cu -o conv2d.so
//   convolith check --lib ./conv2d.so --symbol conv2d_f32
//
// The arrays are the host's; the function copies them, so that guard pages watch what it copies.
// compute-sanitizer watches the kernel itself.

#include <convolith_check.h>

#include <cuda_runtime.h>

namespace {

__device__ int64_t at(const convolith_problem& p, const int64_t extents[3], int64_t channels,
                      int64_t n, int64_t c, int64_t i, int64_t j) {
  return p.channels_last ? ((n * extents[1] + i) * extents[2] + j) * channels + c
                         : ((n * channels + c) * extents[1] + i) * extents[2] + j;
}

__global__ void convolve(const float* x, const float* weight, const float* bias, float* y,
                         convolith_problem p, int64_t outputs) {
  const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (index >= outputs) return;
  const int64_t column = index % p.output[2], row = index / p.output[2] % p.output[1];
  const int64_t k = index / (p.output[1] * p.output[2]) % p.out_channels;
  const int64_t n = index / (p.output[1] * p.output[2] * p.out_channels);
  const int64_t c_group = p.in_channels / p.groups;
  const int64_t first = k / (p.out_channels / p.groups) * c_group;
  float sum = bias ? bias[k] : 0.0f;
  for (int64_t c = 0; c < c_group; ++c)
    for (int64_t a = 0; a < p.kernel[1]; ++a)
      for (int64_t b = 0; b < p.kernel[2]; ++b) {
        const int64_t i = row * p.stride[1] + a * p.dilation[1] - p.before[1];
        const int64_t j = column * p.stride[2] + b * p.dilation[2] - p.before[2];
        if (i < 0 || i >= p.input[1] || j < 0 || j >= p.input[2]) continue;
        const int64_t tap = ((k * c_group + c) * p.kernel[1] + a) * p.kernel[2] + b;
        sum += x[at(p, p.input, p.in_channels, n, first + c, i, j)] * weight[tap];
      }
  y[at(p, p.output, p.out_channels, n, k, row, column)] = sum;
}

/// Memory of the device, freed at the end of its scope.
struct Memory {
  float* data = nullptr;
  cudaError_t error = cudaSuccess;

  Memory(const float* host, int64_t count) {
    if (count == 0) return;
    error = cudaMalloc(&data, count * sizeof(float));
    if (error == cudaSuccess && host)
      error = cudaMemcpy(data, host, count * sizeof(float), cudaMemcpyHostToDevice);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(data); }
};

}  // namespace

extern "C" int conv2d_f32(const float* x, const float* weight, const float* bias, float* y,
                          const convolith_problem* p) {
  if (p->version != 1 || p->rank != 2 || p->direction != 0 || p->bits != 32) return 1;
  const int64_t outputs = p->batch * p->out_channels * p->output[1] * p->output[2];
  if (outputs == 0) return 0;
  const Memory dx(x, p->batch * p->in_channels * p->input[1] * p->input[2]);
  const Memory dw(weight,
                  p->out_channels * (p->in_channels / p->groups) * p->kernel[1] * p->kernel[2]);
  const Memory db(bias, bias ? p->out_channels : 0);
  const Memory dy(nullptr, outputs);
  for (const Memory* memory : {&dx, &dw, &db, &dy})
    if (memory->error != cudaSuccess) return 2;
  const auto blocks = static_cast<unsigned>((outputs + 255) / 256);
  convolve<<<blocks, 256>>>(dx.data, dw.data, db.data, dy.data, *p, outputs);
  if (cudaGetLastError() != cudaSuccess) return 3;
  const cudaError_t error =
      cudaMemcpy(y, dy.data, outputs * sizeof(float), cudaMemcpyDeviceToHost);
  return error == cudaSuccess ? 0 : 4;
}
