#pragma once

#include <cstdint>
#include <limits>
#include <utility>

#include "convolith/algorithm.hpp"
#include "kernels/depthwise_table.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// The part of an epilogue that kernels can do as they store: the bias, an activation that clamps,
/// and of some kernels the residual. `rest`: there is more, a second pass does it, and both wait
/// for that.
template <class T>
struct FusedClamp {
  bool rest, clamps, adds_residual;
  T least = -std::numeric_limits<T>::infinity();
  T greatest = std::numeric_limits<T>::infinity();

  explicit FusedClamp(const Epilogue& wanted, bool can_add_residual = false) noexcept {
    const bool limits =
        wanted.activation == Activation::relu || wanted.activation == Activation::relu6;
    rest = (wanted.residual && !can_add_residual) ||
           (wanted.activation != Activation::none && !limits);
    adds_residual = wanted.residual && !rest;
    clamps = limits && !rest;
    if (!clamps) return;
    least = T(0);
    if (wanted.activation == Activation::relu6) greatest = T(6);
  }

  SumStore<T> store() const noexcept { return {clamps, least, greatest}; }
};

/// For the same tile with its rows as columns.
template <class T>
TileEpilogue<T> transposed(TileEpilogue<T> epilogue) noexcept {
  std::swap(epilogue.residual_row_stride, epilogue.residual_column_stride);
  if (epilogue.bias_axis != BiasAxis::none) {
    epilogue.bias_axis =
        epilogue.bias_axis == BiasAxis::rows ? BiasAxis::columns : BiasAxis::rows;
  }
  return epilogue;
}

/// The epilogue of a problem, bound to the arrays of one call.
template <class T>
class BoundEpilogue {
 public:
  BoundEpilogue(const ConvProblem& problem, const ConvArguments& arguments) noexcept
      : epilogue_(problem.epilogue),
        channels_last_(problem.layout == Layout::channels_last),
        bias_(static_cast<const T*>(arguments.bias)),
        residual_(typed<const T>(arguments.residual)) {}

  bool empty() const noexcept { return epilogue_.empty(); }

  /// From the given channel on; null: none.
  const T* bias(std::int64_t channel) const noexcept {
    return epilogue_.bias ? bias_ + channel : nullptr;
  }

  /// For a tile that begins at the given sample, channel and pixel. Rows are channels in
  /// channels_first and pixels in channels_last; neighbouring pixels lie pixel_step apart.
  TileEpilogue<T> tile(std::int64_t sample, std::int64_t channel, std::int64_t pixel,
                       std::int64_t pixel_step = 1) const noexcept {
    TileEpilogue<T> tile{};
    if (epilogue_.bias) {
      tile.bias = bias_ + channel;
      tile.bias_axis = channels_last_ ? BiasAxis::columns : BiasAxis::rows;
    }
    if (epilogue_.residual) {
      tile.residual = residual_.sample(sample, channel) + pixel * residual_.pixel_stride;
      const std::int64_t pixel_stride = residual_.pixel_stride * pixel_step;
      tile.residual_row_stride = channels_last_ ? pixel_stride : residual_.channel_stride;
      tile.residual_column_stride = channels_last_ ? residual_.channel_stride : pixel_stride;
    }
    tile.activation = epilogue_.activation;
    tile.slope = static_cast<T>(epilogue_.slope);
    return tile;
  }

  /// What is left of it where the sums have their bias.
  TileEpilogue<T> rest(std::int64_t sample, std::int64_t channel, std::int64_t pixel,
                       std::int64_t pixel_step = 1) const noexcept {
    TileEpilogue<T> rest = tile(sample, channel, pixel, pixel_step);
    rest.bias_axis = BiasAxis::none;
    return rest;
  }

 private:
  Epilogue epilogue_;
  bool channels_last_;
  const T* bias_;
  Maps<const T> residual_;
};

}  // namespace convolith
