#pragma once

#include <cstddef>
#include <cstdint>

#include "convolith/algorithm.hpp"
#include "runtime/range.hpp"

namespace convolith {

/// Bytes of weights that an L3 nearby does not hold, for all that it may be larger: it may serve
/// many cores.
inline constexpr std::size_t kPastL3 = std::size_t{32} << 20;

/// The products of a Winograd convolution, for each of `groups` groups: `frequencies` matrices of
/// `tiles` rows of `terms` terms, times as many of `panels` panels of columns, of which `produced`
/// are computed.
struct WinogradWork {
  std::int64_t groups, frequencies, tiles, terms, panels, produced;
  std::int64_t row;        ///< elements of V of a tile and a frequency
  std::size_t element;     ///< bytes
  int tile_rows, columns;  ///< of a register tile, at most
  bool transforms_weights;  ///< each share those of its panels, rather than fetch them
};

/// How many tiles and panels go through the three steps together. No sum depends on it. A thread
/// multiplies none but the V that it has made itself: what another core has just written comes as
/// slowly as from memory, where the two have no cache in common.
class WinogradBlocks {
 public:
  WinogradBlocks() = default;
  WinogradBlocks(const WinogradWork& work, const Machine& machine, int threads);

  std::int64_t count = 1;   ///< blocks of tiles
  std::int64_t tiles = 1;   ///< of a block, at most
  std::int64_t panels = 1;  ///< of a group of panels, at most
  std::int64_t panel_groups = 1;
  std::int64_t shares = 1;  ///< of the groups, for each of which a block's V is made anew

  Range block(std::int64_t index) const noexcept {
    return Range::share(all_tiles_, static_cast<int>(index), static_cast<int>(count));
  }
  Range groups_of(std::int64_t share) const noexcept {
    return Range::share(panel_groups, static_cast<int>(share), static_cast<int>(shares));
  }

 private:
  void cut(const WinogradWork& work, std::int64_t fewest, int threads) noexcept;

  std::int64_t all_tiles_ = 0;
};

}  // namespace convolith
