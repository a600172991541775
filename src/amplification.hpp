#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/cook_toom_table.hpp"

namespace convolith {
namespace {

/// How much one transformed axis amplifies the independent rounding errors of its products: the
/// largest, over outputs i and taps t, of the 2-norm over products f of
/// |A^T_if| |G_ft| sum_j |B^T_fj|.
double amplification(const CookToom& matrices) {
  double largest = 0;
  for (int i = 0; i < matrices.outputs; ++i) {
    for (int t = 0; t < matrices.taps; ++t) {
      double squares = 0;
      for (int f = 0; f < matrices.inputs; ++f) {
        double sources = 0;
        for (int j = 0; j < matrices.inputs; ++j) sources += std::abs(matrices.input[f][j]);
        const double product = matrices.output[i][f] * matrices.weight[f][t] * sources;
        squares += product * product;
      }
      largest = std::max(largest, std::sqrt(squares));
    }
  }
  return largest;
}

}  // namespace
}  // namespace convolith
