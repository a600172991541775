#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/range.hpp"

namespace convolith {

/// The products of a Winograd convolution, for each of `groups` groups: `frequencies` matrices of
/// `tiles` rows of `terms` terms, times as many of `panels` panels of columns, of which `produced`
/// are computed.
struct WinogradWork {
  std::int64_t groups, frequencies, tiles, terms, panels, produced;
  std::int64_t row;        ///< elements of V of a tile and a frequency
  std::size_t element;     ///< bytes
  int tile_rows, columns;  ///< of a register tile, at most
  bool few_tiles;          ///< WinogradGeometry::few_tiles
};

/// How many tiles and panels go through the three steps together. No sum depends on it.
class WinogradBlocks {
 public:
  WinogradBlocks() = default;
  WinogradBlocks(const WinogradWork& work, std::size_t l2_bytes, int threads);

  std::int64_t count = 1;   ///< blocks of tiles
  std::int64_t tiles = 1;   ///< of a block, at most
  std::int64_t parts = 1;   ///< of a block, among which threads share its products
  std::int64_t panels = 1;  ///< of a group of panels, at most
  std::int64_t panel_groups = 1;
  bool shared = false;  ///< all threads work on one block, each on parts or panels of its own

  Range block(std::int64_t index) const noexcept {
    return Range::share(all_tiles_, static_cast<int>(index), static_cast<int>(count));
  }

 private:
  void balance(const WinogradWork& work, int threads) noexcept;

  std::int64_t all_tiles_ = 0;
};

}  // namespace convolith
