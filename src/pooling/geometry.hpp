#pragma once

#include <cstdint>
#include <vector>

#include "convolith/pooling.hpp"
#include "kernels/pooling_table.hpp"

namespace convolith {

/// The windows of one axis, output by output: sliding or adaptive, clipped to the input.
struct AxisWindows {
  std::int64_t input = 1;
  std::int64_t step = 1;                ///< between taps
  std::vector<std::int64_t> first{0};   ///< input under the first tap of each output
  std::vector<std::int64_t> taps{1};
  std::vector<double> divisor{1};
  /// Windows repeat: output o + period begins advance inputs after output o, borders apart.
  std::int64_t period = 1;
  std::int64_t advance = 1;
  /// The outputs as runs of windows that are not clipped, where kernels can do with those.
  std::vector<PoolRun> padded_runs{};

  static AxisWindows sliding(const Window& window);
  static AxisWindows adaptive(std::int64_t input, std::int64_t output);

  std::int64_t output() const noexcept { return static_cast<std::int64_t>(first.size()); }

  /// Of windows without dilation: for each input the outputs that read it.
  AxisWindows transposed() const;

  /// Most outputs whose windows span one input.
  std::int64_t most_readers() const noexcept;

  /// The outputs as runs of like windows, as few as can be.
  std::vector<PoolRun> runs() const;
};

/// The windows of a pooling: depth, height, width.
struct PoolWindows {
  AxisWindows axes[kSpatialAxes];

  explicit PoolWindows(const PoolProblem& problem);

  /// For each input the outputs that read it.
  PoolWindows transposed() const;

  /// Most outputs that read one input.
  std::int64_t most_readers() const;

  /// Makes one axis of two where windows span the whole inner one, so that global pooling runs
  /// over a plane in one sweep.
  void merge();

  std::int64_t input_pixels() const noexcept;
  std::int64_t output_rows() const noexcept { return axes[0].output() * axes[1].output(); }
  std::int64_t output_pixels() const noexcept { return output_rows() * axes[2].output(); }

 private:
  PoolWindows() = default;
};

/// A pass over those windows, and what it points to. x, y and indices are left to the caller.
template <class T>
class PassTables {
 public:
  PassTables(PoolWindows windows, bool divide);
  PassTables(const PassTables&) = delete;
  PassTables& operator=(const PassTables&) = delete;

  PoolPass<T> pass{};

 private:
  PoolWindows windows_;
  std::vector<PoolRun> runs_;
  std::vector<T> divisors_[kSpatialAxes];
};

}  // namespace convolith
