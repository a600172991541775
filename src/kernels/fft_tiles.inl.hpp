#pragma once

// Tiles of feature maps to lines of vectors and back: padding, few channels, and the squares that
// are transposed where lanes lie apart.

#include "kernels/fft_line.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

// ---- scratch -------------------------------------------------------------------------------

constexpr int kChunk = kFftLongestLine;  // columns that are read or written at a time

/// The kernels' memory, cut up: the window between its lines along x and y, and single lines.
template <class T>
struct FftScratch {
  T* window;   ///< [y][pitch], complex vectors
  T* work;     ///< of transform
  T* line;     ///< complex
  T* part[2];  ///< [kChunk] vectors: real and imaginary parts that come and go
  T* rows;     ///< [lanes][kChunk]

  FftScratch(const FftShape<T>& shape, T* memory) {
    window = memory;
    work = window + shape.y.n * shape.pitch * kComplex<T>;
    line = work + kFftLongestLine * kComplex<T>;
    part[0] = line + kFftLongestLine * kComplex<T>;
    part[1] = part[0] + kChunk * kLanes<T>;
    rows = part[1] + kChunk * kLanes<T>;
  }
};

template <class T>
std::int64_t fft_scratch_size(const FftShape<T>& shape) {
  return (shape.y.n * shape.pitch + 2 * kFftLongestLine) * kComplex<T> + 3 * kChunk * kLanes<T>;
}

// ---- input ---------------------------------------------------------------------------------

/// Vectors `step` elements apart; null: zeros.
template <class T>
struct Vectors {
  const T* data;
  std::int64_t step;

  CONVOLITH_INLINE Vec<T> at(std::int64_t i) const { return load(data + i * step); }
};

/// The columns [begin, end) of a tile are neighbours in the array. The others are zeros unless
/// `scattered`, where the padding mode gives them sources.
struct Band {
  int begin, end;
  bool scattered;
};

inline Band band_of(const std::int64_t* columns, int count) {
  Band band{0, 0, false};
  while (band.begin < count && columns[band.begin] < 0) ++band.begin;
  band.end = band.begin;
  while (band.end < count &&
         columns[band.end] == columns[band.begin] + band.end - band.begin) {
    ++band.end;
  }
  for (int i = band.end; i < count; ++i) band.scattered |= columns[i] >= 0;
  return band;
}

/// Reads one part of some columns, row by row.
template <class T>
class RowReader {
 public:
  RowReader(const FftTiles<const T>& input, int part, std::int64_t column, int count,
            const FftScratch<T>& scratch)
      : input_(input), part_(part), column_(column), count_(count), buffer_(scratch.part[part]),
        rows_(scratch.rows) {
    int begin = count, end = 0;
    for (int slot = 0; slot < input.slots; ++slot) {
      const FftTile<const T>& tile = input.tiles[slot][part];
      if (tile.data == nullptr) continue;
      bands_[slot] = band_of(input.columns + tile.column + column, count);
      if (bands_[slot].scattered) {
        bands_[slot].begin = 0;
        bands_[slot].end = count;
      }
      begin = bands_[slot].begin < begin ? bands_[slot].begin : begin;
      end = bands_[slot].end > end ? bands_[slot].end : end;
    }
    // Rows are written between `begin` and `end` alone, whole squares from each lane's memory.
    squares_begin_ = begin / kLanes<T> * kLanes<T>;
    squares_end_ = end;
    for (int i = 0; i < count && i < begin; ++i) store<T>(buffer_ + i * kLanes<T>, zero<T>());
    for (int i = end; i < count; ++i) store<T>(buffer_ + i * kLanes<T>, zero<T>());
  }

  Vectors<T> read(std::int64_t row) const {
    if (input_.slots == 1 && input_.channel_stride == 1) return read_channels(row);
    return read_lanes(row);
  }

 private:
  const T* row_of(int slot, std::int64_t row) const {
    const FftTile<const T>& tile = input_.tiles[slot][part_];
    if (tile.data == nullptr) return nullptr;
    const std::int64_t y = input_.rows[tile.row + row];
    return y < 0 ? nullptr : tile.data + y * input_.row_stride;
  }

  /// Neighbouring channels fill a vector.
  Vectors<T> read_channels(std::int64_t row) const {
    const T* source = row_of(0, row);
    const Band& band = bands_[0];
    if (source == nullptr || band.begin == band.end) return {nullptr, 0};
    const std::int64_t* columns = input_.columns + input_.tiles[0][part_].column + column_;
    if (band.scattered) {
      for (int i = 0; i < count_; ++i) {
        const T* from = source + columns[i] * input_.pixel_stride;
        store<T>(buffer_ + i * kLanes<T>,
                 columns[i] < 0 ? zero<T>() : load_upto(from, input_.channels));
      }
      return {buffer_, kLanes<T>};
    }
    const T* from = source + (columns[band.begin] - band.begin) * input_.pixel_stride;
    const bool whole = input_.channels == kLanes<T>;
    if (whole && band.end - band.begin == count_) return {from, input_.pixel_stride};
    for (int i = band.begin; i < band.end; ++i) {
      const T* at = from + i * input_.pixel_stride;
      store<T>(buffer_ + i * kLanes<T>, whole ? load(at) : load_partial(at, input_.channels));
    }
    return {buffer_, kLanes<T>};
  }

  /// Lanes lie apart: squares are transposed.
  Vectors<T> read_lanes(std::int64_t row) const {
    const T* lanes[kFftMostLanes] = {};
    Band bands[kFftMostLanes] = {};
    bool any = false;
    for (int slot = 0; slot < input_.slots; ++slot) {
      const T* source = row_of(slot, row);
      const Band& band = bands_[slot];
      if (source == nullptr || band.begin == band.end) continue;
      any = true;
      const std::int64_t* columns = input_.columns + input_.tiles[slot][part_].column + column_;
      for (int c = 0; c < input_.channels; ++c, source += input_.channel_stride) {
        const int lane = slot * input_.channels + c;
        bands[lane] = band;
        if (input_.pixel_stride == 1 && !band.scattered) {
          lanes[lane] = source + columns[band.begin] - band.begin;
          continue;
        }
        T* composed = rows_ + lane * kChunk;
        for (int i = band.begin; i < band.end; ++i) {
          composed[i] = columns[i] < 0 ? T(0) : source[columns[i] * input_.pixel_stride];
        }
        lanes[lane] = composed;
      }
    }
    if (!any) return {nullptr, 0};
    for (int first = squares_begin_; first < squares_end_; first += kLanes<T>) {
      Vec<T> square[kLanes<T>];
      CONVOLITH_UNROLL(16)
      for (int lane = 0; lane < kLanes<T>; ++lane) {
        const int begin = bands[lane].begin - first;
        const int end = bands[lane].end - first;
        if (begin <= 0 && end >= kLanes<T>) {
          square[lane] = load(lanes[lane] + first);
        } else if (begin < kLanes<T> && end > 0) {
          square[lane] = load_between<T>(lanes[lane] + first, begin < 0 ? 0 : begin,
                                         end < kLanes<T> ? end : kLanes<T>, zero<T>());
        } else {
          square[lane] = zero<T>();
        }
      }
      transpose<T>(square);
      CONVOLITH_UNROLL(16)
      for (int i = 0; i < kLanes<T>; ++i) store<T>(buffer_ + (first + i) * kLanes<T>, square[i]);
    }
    return {buffer_, kLanes<T>};
  }

  const FftTiles<const T>& input_;
  int part_;
  std::int64_t column_;
  int count_;
  T* buffer_;
  T* rows_;
  Band bands_[kFftMostLanes] = {};
  int squares_begin_, squares_end_;
};

// ---- output --------------------------------------------------------------------------------

/// Writes one part of `count` columns of a row of the tiles, from `column` on, from
/// scratch.part[part].
template <class T>
void write_columns(const FftTiles<T>& output, int part, std::int64_t row, std::int64_t column,
                   int count, const FftScratch<T>& scratch) {
  const T* buffer = scratch.part[part];
  const auto columns_of = [&](const FftTile<T>& tile) {
    if (tile.data == nullptr || row >= tile.row) return 0;
    const std::int64_t left = tile.column - column;
    return left < 0 ? 0 : left < count ? static_cast<int>(left) : count;
  };
  if (output.slots == 1 && output.channel_stride == 1) {
    const FftTile<T>& tile = output.tiles[0][part];
    const int columns = columns_of(tile);
    T* to = tile.data + row * output.row_stride + column * output.pixel_stride;
    for (int i = 0; i < columns; ++i) {
      store_upto<T>(to + i * output.pixel_stride, load(buffer + i * kLanes<T>), output.channels);
    }
    return;
  }
  T* lanes[kFftMostLanes] = {};
  int columns[kFftMostLanes] = {};
  for (int slot = 0; slot < output.slots; ++slot) {
    const FftTile<T>& tile = output.tiles[slot][part];
    for (int c = 0; c < output.channels; ++c) {
      const int lane = slot * output.channels + c;
      columns[lane] = columns_of(tile);
      if (columns[lane] == 0) continue;
      lanes[lane] = tile.data + c * output.channel_stride + row * output.row_stride +
                    column * output.pixel_stride;
    }
  }
  if (output.pixel_stride != 1) {
    for (int lane = 0; lane < output.slots * output.channels; ++lane) {
      for (int i = 0; i < columns[lane]; ++i) {
        lanes[lane][i * output.pixel_stride] = buffer[i * kLanes<T> + lane];
      }
    }
    return;
  }
  for (int first = 0; first < count; first += kLanes<T>) {
    Vec<T> square[kLanes<T>];
    CONVOLITH_UNROLL(16)
    for (int i = 0; i < kLanes<T>; ++i) square[i] = load(buffer + (first + i) * kLanes<T>);
    transpose<T>(square);
    CONVOLITH_UNROLL(16)
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const int some = columns[lane] - first;
      if (some > 0) store_upto<T>(lanes[lane] + first, square[lane], some);
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
