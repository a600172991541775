#pragma once

// The FFT kernels' part of the table. Every lane of a vector is a transform of its own, so that
// no kernel shuffles but where it reads and writes the arrays. A complex transform carries two
// real tiles of the same channel, one as its real and one as its imaginary part.

#include <cstdint>

namespace convolith {

inline constexpr int kFftFactors = 3;
inline constexpr int kFftLongestLine = 256;
inline constexpr int kFftMostLanes = 16;

/// A complex transform along a line, n = the product of the radices, each of 3 .. 8.
template <class T>
struct FftLine {
  int n = 1;  ///< 1: the identity
  int factors = 0;
  int radix[kFftFactors] = {};
  /// Of all passes but the last, for m = what the radices up to this one leave of n:
  /// exp(-2 pi i j k / (radix m)) as [j < m][k < radix][re, im].
  const T* twiddle[kFftFactors - 1] = {};
};

/// A transform of a window of x.n columns and y.n rows or, with a twist, of x.n * y.n columns:
/// column c then is (c / y.n, c % y.n) as (x, y), and between the lines along x and those along y
/// the point (x, y) is multiplied by twist[y][x] = exp(-2 pi i x y / (x.n y.n)).
/// Frequencies are numbered x * y.n + y; those with x <= x.n / 2 are kept, since the others are
/// conjugates.
template <class T>
struct FftShape {
  FftLine<T> x, y;
  std::int64_t pitch = 0;  ///< of the scratch, in complex vectors: no power of two
  const T* twist = nullptr;
};

/// A real tile of an array of feature maps.
template <class T>
struct FftTile {
  /// The first channel, of an input at the sample's first pixel, of an output at the tile's. Null:
  /// no tile.
  T* data;
  std::int64_t row, column;  ///< input: into the maps of coordinates; output: extents to write
};

/// The tiles of one vector: lane slot * channels + c is channel c of the pair tiles[slot].
template <class T>
struct FftTiles {
  FftTile<T> tiles[kFftMostLanes][2];
  int slots;
  int channels;
  std::int64_t channel_stride, pixel_stride, row_stride;
  /// Input: the coordinate that stands at a padded one, -1: zero.
  const std::int64_t* rows;
  const std::int64_t* columns;
};

/// Where one vector lies in the spectra of many: complex numbers of frequency f begin at
/// data + f * frequency_stride. The tiles' pair (a, b) has the spectrum A + iB. Of a frequency f
/// that is not its own column's conjugate, two numbers are kept: (A + iB)(f), and the conjugate
/// of (A + iB)(-f), which lies `conjugate` elements further on.
template <class T>
struct FftSpectra {
  T* data;
  std::int64_t frequency_stride;
  std::int64_t imaginary;  ///< distance from real to imaginary parts
  std::int64_t conjugate;
  int count;               ///< lanes in use
};

/// Two real windows of kernels, [row][column][lane], that make one complex transform.
template <class T>
struct FftWeights {
  const T* real;
  const T* imaginary;   ///< null: zeros
  int rows, columns;
  T scale;
  T* spectrum[2];       ///< conjugates, [frequency][re lanes, im lanes]; the second may be null
  std::int64_t frequency_stride;
};

/// c[rows, columns] (+)= a[rows, k] b[k, lanes], all complex. Rows of a and c are contiguous, real
/// and imaginary parts apart; b is [k][re lanes, im lanes].
template <class T>
struct FftProduct {
  const T* a;
  std::int64_t a_row_stride, a_imaginary;
  const T* b;
  T* c;
  std::int64_t c_row_stride, c_imaginary;
  std::int64_t k;
  int rows, columns;
  bool accumulate;
};

template <class T>
struct FftKernels {
  /// Elements of the scratch that the kernels need.
  std::int64_t (*scratch_size)(const FftShape<T>& shape);

  void (*forward)(const FftShape<T>& shape, const FftTiles<const T>& input,
                  const FftSpectra<T>& spectra, T* scratch);
  void (*inverse)(const FftShape<T>& shape, const FftSpectra<const T>& spectra,
                  const FftTiles<T>& output, T* scratch);

  /// Forward, product with weights [frequency][re lanes, im lanes], inverse.
  void (*depthwise)(const FftShape<T>& shape, const FftTiles<const T>& input, const T* weights,
                    const FftTiles<T>& output, T* scratch);

  void (*weights)(const FftShape<T>& shape, const FftWeights<T>& weights, T* scratch);

  /// tile_rows rows and a vector of columns at most.
  void (*product)(const FftProduct<T>& product);
};

}  // namespace convolith
