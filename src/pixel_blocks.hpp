#pragma once

#include <algorithm>
#include <cstdint>

#include "arithmetic.hpp"
#include "runtime/threads.hpp"

namespace convolith {

/// Pixels of the output that are taken together: rows [row, row + rows) and columns
/// [column, column + columns) of `planes` planes, a plane being a depth of a sample.
struct PixelBlock {
  std::int64_t plane, planes, row, rows, column, columns;

  std::int64_t pixels() const noexcept { return planes * rows * columns; }
};

/// All pixels, in blocks of about as many as are wanted: pieces of rows, rows or planes. A piece of
/// a row has a quarter more than `columns_wanted` at most.
class PixelBlocks {
 public:
  PixelBlocks() = default;
  PixelBlocks(std::int64_t planes, std::int64_t height, std::int64_t width, std::int64_t wanted,
              std::int64_t columns_wanted)
      : planes_(planes), height_(height), width_(width) {
    column_blocks_ = divide_up(width, columns_wanted + columns_wanted / 4);
    const std::int64_t columns = divide_up(width, column_blocks_);
    row_blocks_ = divide_up(height, std::clamp<std::int64_t>(wanted / columns, 1, height));
    std::int64_t together = 1;
    if (row_blocks_ == 1 && column_blocks_ == 1) {
      together = std::max<std::int64_t>(1, wanted / (height * width));
    }
    plane_blocks_ = divide_up(planes, together);
  }

  std::int64_t size() const noexcept { return plane_blocks_ * row_blocks_ * column_blocks_; }

  /// At least as large as every block.
  PixelBlock most() const noexcept {
    const std::int64_t planes = plane_blocks_ == 0 ? 1 : divide_up(planes_, plane_blocks_);
    return {0, planes, 0, divide_up(height_, row_blocks_), 0, divide_up(width_, column_blocks_)};
  }

  PixelBlock operator[](std::int64_t index) const noexcept {
    const auto share = [](std::int64_t count, std::int64_t number, std::int64_t of) {
      return Range::share(count, static_cast<int>(number), static_cast<int>(of));
    };
    const Range columns = share(width_, index % column_blocks_, column_blocks_);
    index /= column_blocks_;
    const Range rows = share(height_, index % row_blocks_, row_blocks_);
    const Range planes = share(planes_, index / row_blocks_, plane_blocks_);
    return {planes.begin,  planes.end - planes.begin,   rows.begin, rows.end - rows.begin,
            columns.begin, columns.end - columns.begin};
  }

 private:
  std::int64_t planes_ = 0, height_ = 1, width_ = 1;
  std::int64_t plane_blocks_ = 0, row_blocks_ = 1, column_blocks_ = 1;
};

}  // namespace convolith
