#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "convolith/problem.hpp"
#include "convolith/tensor.hpp"
#include "convolith/window.hpp"

namespace convolith {

enum class PoolOp : std::uint8_t { max, average, sum, lp, stochastic };

/// What a caller says; `windows` holds `rank` entries from index 0.
struct PoolSpec {
  PoolOp op = PoolOp::max;
  DType dtype = DType::float32;
  Layout layout = Layout::channels_first;
  int rank = 2;
  bool batched = true;  ///< whether the arrays have a batch axis: messages count axes
  std::int64_t batch = 1;
  std::int64_t channels = 1;
  std::array<WindowSpec, kSpatialAxes> windows{};  ///< of an adaptive one: input and output
  bool adaptive = false;
  Rounding rounding = Rounding::floor;
  bool count_include_pad = true;                   ///< average: whether the divisor counts padding
  std::optional<std::int64_t> divisor_override{};  ///< average: the divisor; any number but 0
  double norm_type = 2;                            ///< lp: the exponent, greater than 0
};

/// A pooling, whole. Values of this type are always legal.
class PoolProblem {
 public:
  /// Checks meaning: positive extents, windows that fit, explicit padding of at most half the
  /// effective kernel, 64-bit sizes. Throws InvalidArgument, Unsupported or Overflow.
  static PoolProblem make(const PoolSpec& spec);

  PoolOp op;
  DType dtype;
  Layout layout;
  int rank;
  std::int64_t batch;
  std::int64_t channels;
  std::array<Window, kSpatialAxes> windows;  ///< axes 3 - rank and up are the problem's own
  /// Output i of an axis covers [floor(i * input / output), ceil((i + 1) * input / output)) and
  /// the windows give the two extents alone.
  bool adaptive;
  bool count_include_pad;
  std::optional<std::int64_t> divisor_override;
  double norm_type;

  std::int64_t input_pixels() const noexcept;   ///< of one sample and channel
  std::int64_t output_pixels() const noexcept;

  bool operator==(const PoolProblem&) const = default;

 private:
  PoolProblem() = default;
};

/// How a pooling runs. Neither choice changes a bit of a result of max, and threads of none.
struct PoolOptions {
  int threads = 1;
  std::string_view isa{};  ///< empty: the one in use
};

/// The arrays of a pooling. Indices count pixels of the input plane of their channel.
struct PoolArguments {
  TensorView x{};
  TensorView y{};
  TensorView indices{};   ///< int64, of the elements chosen; written where it has data
  TensorView uniforms{};  ///< float64 in [0, 1), one per output: stochastic pooling draws with them
};

/// Writes y from x. max: a NaN wins, the last one's index counts; among equals the first in
/// row-major window order wins; a window with no element in bounds gives -inf and index 0.
/// stochastic without uniforms: the mean weighted by the elements' probabilities.
void pool(const PoolProblem& problem, const PoolArguments& arguments,
          const PoolOptions& options);

/// Writes dx, the gradient of x, for every op; stochastic means the weighted mean.
void pool_backward(const PoolProblem& problem, const TensorView& dy, const TensorView& x,
                   const TensorView& dx, const PoolOptions& options);

/// dx = 0, then dx[index] += dy for each index: the gradient of a choice of elements.
/// InvalidArgument if an index lies outside the input plane.
void pool_backward_indices(const PoolProblem& problem, const TensorView& dy,
                           const TensorView& indices, const TensorView& dx, int threads);

/// What a caller of max unpooling says: `input` of a window is the pooled extent.
struct UnpoolSpec {
  DType dtype = DType::float32;
  Layout layout = Layout::channels_first;
  int rank = 2;
  bool batched = true;
  std::int64_t batch = 1;
  std::int64_t channels = 1;
  std::array<WindowSpec, kSpatialAxes> windows{};
  std::optional<std::array<std::int64_t, kSpatialAxes>> output_size{};
};

/// Max unpooling: zeros, with the pooled elements written where their indices say.
class UnpoolProblem {
 public:
  /// The unpooled extents are (input - 1) * stride + kernel - before - after, or input * stride
  /// for "same"; an output_size may differ from them by less than the stride.
  static UnpoolProblem make(const UnpoolSpec& spec);

  DType dtype;
  Layout layout;
  int rank;
  std::int64_t batch;
  std::int64_t channels;
  std::array<std::int64_t, kSpatialAxes> pooled;    ///< axes 3 - rank and up are its own
  std::array<std::int64_t, kSpatialAxes> unpooled;

  std::int64_t pooled_pixels() const noexcept { return pooled[0] * pooled[1] * pooled[2]; }
  std::int64_t unpooled_pixels() const noexcept {
    return unpooled[0] * unpooled[1] * unpooled[2];
  }

 private:
  UnpoolProblem() = default;
};

/// y = 0, then y[index] = x; among equal indices the last in row-major order wins.
/// InvalidArgument, and no write, if an index lies outside the plane of y.
void unpool(const UnpoolProblem& problem, const TensorView& x, const TensorView& indices,
            const TensorView& y, int threads);

/// dx = dy[index]. InvalidArgument if an index lies outside the plane of dy.
void unpool_backward(const UnpoolProblem& problem, const TensorView& dy,
                     const TensorView& indices, const TensorView& dx, int threads);

}  // namespace convolith
