/* What `convolith check --lib ./kernel.so --symbol NAME` calls: one function,

     int NAME(const T *first, const T *second, const T *bias, T *result, const convolith_problem *p);

   in which T is float, or double where p->bits is 64.

     operation              first   second                  bias            result
     conv, forward          x       weight                  or NULL         y
     conv, backward_input   dy      weight                  NULL            dx
     conv, backward_weight  dy      x                       NULL            dweight
     pooling, forward       x       NULL                    NULL            y
     pooling, backward      dy      x                       NULL            dx
     matmul                 a       b                       or NULL         a b + bias

   It returns 0 when the result is written, 1 for a problem that it does not serve (which is then
   skipped, not failed), anything else for an error. It writes every element of the result, which holds
   NaN before, and nothing else. Arrays are contiguous and aligned to their elements.

   x is (batch, in_channels, input...) and y (batch, out_channels, output...), with the channels last
   where p->channels_last. weight is (out_channels, in_channels / groups, kernel...), of a transposed
   convolution (in_channels, out_channels / groups, kernel...), in both. Axes that an operation does not
   have have extent 1: with rank 2, axes 1 and 2 are rows and columns; with rank 1, axis 2 alone. */

#ifndef CONVOLITH_CHECK_H
#define CONVOLITH_CHECK_H

#include <stdint.h>

typedef struct {
  int64_t version; /* 1 */
  int64_t bits;    /* 32: float; 64: double */
  int64_t rank;    /* spatial axes, 1 to 3 */
  int64_t direction; /* 0 forward, 1 backward_input or backward, 2 backward_weight */
  int64_t channels_last;
  int64_t batch, in_channels, out_channels, groups;
  int64_t input[3], kernel[3], output[3];
  int64_t stride[3], dilation[3], before[3], after[3]; /* padding before and after */
  int64_t count_include_pad; /* average pooling: whether padding counts in the divisor */
  int64_t rows, inner, columns, transpose_a, transpose_b; /* matmul */
} convolith_problem;

#endif
