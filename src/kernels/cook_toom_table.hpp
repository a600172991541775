#pragma once

// Cook-Toom matrices of the one-dimensional F(m, r): m outputs of a filter with r taps from
// n = m + r - 1 inputs by n products, y = A^T ((G w) . (B^T x)) (Lavin & Gray, arXiv:1509.09308).
// The points are 0, infinity and pairs +-p. Internal linkage: ISA units and the core both read it.

namespace convolith {
namespace {

constexpr int kMostWinogradInputs = 8;
constexpr int kMostWinogradOutputs = 6;
constexpr int kMostWinogradTaps = 6;

struct CookToom {
  int inputs, outputs, taps;
  double pair[3];  ///< p of the points +-p; those of row 1 + 2 i, and 2 + 2 i for -p
  double input[kMostWinogradInputs][kMostWinogradInputs];     ///< B^T
  double weight[kMostWinogradInputs][kMostWinogradTaps];      ///< G
  double output[kMostWinogradOutputs][kMostWinogradInputs];   ///< A^T
};

/// Rows are those of 0, p, -p, ..., infinity. Of six points +-5/8 and +-3/2 have a quarter of the
/// error of +-1 and +-2 (Barabasz et al., arXiv:1803.10986, on the choice of points).
constexpr CookToom cook_toom(int outputs, int taps) {
  CookToom t{};
  t.inputs = outputs + taps - 1;
  t.outputs = outputs;
  t.taps = taps;
  const int n = t.inputs;
  if (n == 4) t.pair[0] = 1;
  if (n == 6) {
    t.pair[0] = 0.625;
    t.pair[1] = 1.5;
  }
  if (n == 8) {
    t.pair[0] = 1;
    t.pair[1] = 2;
    t.pair[2] = 0.5;
  }
  double points[kMostWinogradInputs - 1] = {};
  for (int i = 1; i < n - 1; ++i) points[i] = i % 2 == 1 ? t.pair[i / 2] : -t.pair[(i - 1) / 2];

  for (int row = 0; row < n; ++row) {
    // The product of (x - q) over the finite points q other than the row's own.
    const bool at_infinity = row == n - 1;
    double* polynomial = t.input[row];
    polynomial[0] = 1;
    int degree = 0;
    for (int j = 0; j < n - 1; ++j) {
      if (j == row) continue;
      ++degree;
      for (int k = degree; k > 0; --k) polynomial[k] = polynomial[k - 1] - points[j] * polynomial[k];
      polynomial[0] *= -points[j];
    }
    double scale = 1;
    for (int j = 0; j < n - 1 && !at_infinity; ++j) {
      if (j != row) scale *= points[row] - points[j];
    }
    double power = 1;
    for (int k = 0; k < taps; ++k) {
      t.weight[row][k] = at_infinity ? (k == taps - 1 ? 1 : 0) : power / scale;
      if (!at_infinity) power *= points[row];
    }
    power = 1;
    for (int i = 0; i < outputs; ++i) {
      t.output[i][row] = at_infinity ? (i == outputs - 1 ? 1 : 0) : power;
      if (!at_infinity) power *= points[row];
    }
  }
  return t;
}

}  // namespace
}  // namespace convolith
