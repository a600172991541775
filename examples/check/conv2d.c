/* A 2-D convolution in plain C, and how to check it:

     cc -O2 -shared -fPIC -I"$(dirname "$(convolith check --header)")" conv2d.c -o conv2d.so
     convolith check --lib ./conv2d.so --symbol conv2d_f32
     convolith check --lib ./conv2d.so --symbol conv2d_f64 */

#include <convolith_check.h>
#include <stddef.h>

#define DEFINE_CONV2D(NAME, T)                                                                     \
  int NAME(const T *x, const T *weight, const T *bias, T *y, const convolith_problem *p) {         \
    if (p->version != 1 || p->rank != 2 || p->direction != 0 || p->bits != 8 * sizeof(T)) return 1; \
    const int64_t c_group = p->in_channels / p->groups, k_group = p->out_channels / p->groups;     \
    for (int64_t n = 0; n < p->batch; ++n)                                                         \
      for (int64_t k = 0; k < p->out_channels; ++k)                                                \
        for (int64_t row = 0; row < p->output[1]; ++row)                                           \
          for (int64_t column = 0; column < p->output[2]; ++column) {                              \
            double sum = bias ? bias[k] : 0;                                                       \
            for (int64_t c = 0; c < c_group; ++c)                                                  \
              for (int64_t a = 0; a < p->kernel[1]; ++a)                                           \
                for (int64_t b = 0; b < p->kernel[2]; ++b) {                                       \
                  const int64_t i = row * p->stride[1] + a * p->dilation[1] - p->before[1];        \
                  const int64_t j = column * p->stride[2] + b * p->dilation[2] - p->before[2];     \
                  if (i < 0 || i >= p->input[1] || j < 0 || j >= p->input[2]) continue;            \
                  const int64_t channel = k / k_group * c_group + c;                               \
                  const int64_t at = p->channels_last                                              \
                      ? ((n * p->input[1] + i) * p->input[2] + j) * p->in_channels + channel       \
                      : ((n * p->in_channels + channel) * p->input[1] + i) * p->input[2] + j;      \
                  const int64_t tap = ((k * c_group + c) * p->kernel[1] + a) * p->kernel[2] + b;   \
                  sum += (double)x[at] * weight[tap];                                              \
                }                                                                                  \
            const int64_t to = p->channels_last                                                    \
                ? ((n * p->output[1] + row) * p->output[2] + column) * p->out_channels + k         \
                : ((n * p->out_channels + k) * p->output[1] + row) * p->output[2] + column;        \
            y[to] = (T)sum;                                                                        \
          }                                                                                        \
    return 0;                                                                                      \
  }

DEFINE_CONV2D(conv2d_f32, float)
DEFINE_CONV2D(conv2d_f64, double)
