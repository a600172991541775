#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "kernels/fft_table.hpp"

namespace convolith {

/// A length of transform and the radices that it is composed of.
struct FftLength {
  int n;
  int factors;
  int radix[kFftFactors];
};

/// How output planes are cut into tiles, and the transforms of the windows that they read.
struct FftTiling {
  FftLength x, y;
  bool twisted;  ///< x and y together are the transform of one row
  std::int64_t tile_rows, tile_columns;
  std::int64_t tiles_y, tiles_x;

  /// That are kept of one transform, those of real tiles being symmetric.
  std::int64_t frequencies() const noexcept { return (x.n / 2 + 1) * y.n; }
  std::int64_t pairs_per_plane() const noexcept { return (tiles_y * tiles_x + 1) / 2; }
};

/// One spatial axis as a correlation of stride 1: destination i reads the padded coordinates
/// i .. i + kernel - 1, of which coordinate 0 lies `before` places before the first source.
struct FftAxis {
  std::int64_t destinations, sources, before;
  std::int64_t kernel;  ///< effective
  std::int64_t taps, dilation;

  FftAxis(const Window& window, bool adjoint);

  /// The sources that stand at the first `count` padded coordinates; -1 where none is needed.
  std::vector<std::int64_t> map(std::int64_t count, PaddingMode mode) const;
};

/// Vectors of channels: several pairs of tiles share one where there are few channels.
struct FftLanes {
  std::int64_t all;       ///< channels
  std::int64_t channels;  ///< of a vector, at most
  std::int64_t slots;     ///< pairs of a vector
  std::int64_t vectors;   ///< of all channels
  std::int64_t stride;    ///< of a row of all channels

  FftLanes(std::int64_t all_channels, std::int64_t lanes);
};

/// What the sizes of things depend on, and what tiling a problem gets.
struct FftDimensions {
  bool adjoint, depthwise, channels_last;
  std::int64_t groups, reduced, produced;  ///< channels of a group that are read and written
  std::int64_t lanes, element_bytes;
  std::int64_t planes;                     ///< of the output
  FftAxis depth, height, width;
  FftLanes in, out;

  FftDimensions(const ConvProblem& problem, const Machine& machine);

  std::int64_t pairs(const FftTiling& t) const noexcept { return planes * t.pairs_per_plane(); }
  std::int64_t panels() const noexcept { return divide_up(produced, lanes); }
  /// Of the weights' spectra.
  std::int64_t packed_elements(const FftTiling& t) const noexcept;
  /// Of the spectra of one pair of tiles, inputs and outputs.
  std::int64_t pair_elements(const FftTiling& t) const noexcept;
  /// Pairs whose spectra are held at a time.
  std::int64_t block_pairs(const FftTiling& t) const noexcept;

  /// Predicted seconds on one core.
  double seconds(const FftTiling& t, const Machine& machine) const noexcept;

  /// The tiling of the least predicted time, or nothing: `reason` then says why.
  std::optional<FftTiling> choose(const Machine& machine, std::string* reason) const;
};

}  // namespace convolith
