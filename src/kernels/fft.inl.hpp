#pragma once

// Windows of the arrays to spectra and back, and the products of spectra.

#include "kernels/fft_tiles.inl.hpp"

namespace convolith::CONVOLITH_ISA_NAMESPACE {
namespace {

// ---- transforms ----------------------------------------------------------------------------

template <class T>
void clear_line(int n, T* line) {
  for (int x = 0; x < n; ++x) store_complex<T>(line + x * kComplex<T>, {zero<T>(), zero<T>()});
}

/// Reads the window and transforms its lines along x: to scratch.window.
template <class T>
void forward_along_x(const FftShape<T>& shape, const FftTiles<const T>& input,
                     const FftScratch<T>& scratch) {
  static constexpr T kNone[kLanes<T>] = {};
  const auto or_zeros = [](Vectors<T> v) { return v.data == nullptr ? Vectors<T>{kNone, 0} : v; };
  if (shape.twist == nullptr) {
    const RowReader<T> real(input, 0, 0, shape.x.n, scratch);
    const RowReader<T> imaginary(input, 1, 0, shape.x.n, scratch);
    for (int y = 0; y < shape.y.n; ++y) {
      T* to = scratch.window + y * shape.pitch * kComplex<T>;
      Vectors<T> re = real.read(y);
      Vectors<T> im = imaginary.read(y);
      if (re.data == nullptr && im.data == nullptr) {
        clear_line(shape.x.n, to);
        continue;
      }
      re = or_zeros(re);
      im = or_zeros(im);
      transform<T>(
          shape.x, scratch.work, [&](int x) { return Complex<T>{re.at(x), im.at(x)}; },
          [&](int x, Complex<T> v) { store_complex<T>(to + x * kComplex<T>, v); });
    }
    return;
  }
  const int count = shape.x.n * shape.y.n;
  int x = 0, y = 0;
  for (int column = 0; column < count; column += kChunk) {
    const int some = count - column < kChunk ? count - column : kChunk;
    const Vectors<T> re = or_zeros(RowReader<T>(input, 0, column, some, scratch).read(0));
    const Vectors<T> im = or_zeros(RowReader<T>(input, 1, column, some, scratch).read(0));
    for (int i = 0; i < some; ++i) {
      store_complex<T>(scratch.window + (y * shape.pitch + x) * kComplex<T>,
                       Complex<T>{re.at(i), im.at(i)});
      if (++y == shape.y.n) {
        y = 0;
        ++x;
      }
    }
  }
  for (y = 0; y < shape.y.n; ++y) {
    T* row = scratch.window + y * shape.pitch * kComplex<T>;
    const T* twist = shape.twist + 2 * y * shape.x.n;
    transform<T>(
        shape.x, scratch.work, [&](int i) { return load_complex(row + i * kComplex<T>); },
        [&](int k, Complex<T> v) {
          store_complex<T>(row + k * kComplex<T>, times_scalar<T>(v, twist + 2 * k));
        });
  }
}

/// The y of the frequency that is minus (x, y), whose x is minus x.
template <class T>
CONVOLITH_INLINE int mirrored(const FftShape<T>& shape, int x, int y) {
  if (shape.twist != nullptr && x > 0) return shape.y.n - 1 - y;
  return y == 0 ? 0 : shape.y.n - y;
}

template <class T>
void fft_forward(const FftShape<T>& shape, const FftTiles<const T>& input,
                 const FftSpectra<T>& spectra, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  forward_along_x(shape, input, scratch);
  for (int x = 0; x < shape.x.n; ++x) {
    const T* column = scratch.window + x * kComplex<T>;
    const std::int64_t step = shape.pitch * kComplex<T>;
    const auto point = [&](int y) { return load_complex(column + y * step); };
    if (2 * x <= shape.x.n) {
      T* to = spectra.data + x * shape.y.n * spectra.frequency_stride;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        T* at = to + y * spectra.frequency_stride;
        store_upto<T>(at, v.re, spectra.count);
        store_upto<T>(at + spectra.imaginary, v.im, spectra.count);
      });
    } else {
      T* to = spectra.data + (shape.x.n - x) * shape.y.n * spectra.frequency_stride +
              spectra.conjugate;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        T* at = to + mirrored(shape, x, y) * spectra.frequency_stride;
        store_upto<T>(at, v.re, spectra.count);
        store_upto<T>(at + spectra.imaginary, -v.im, spectra.count);
      });
    }
  }
}

/// Transforms the exchanged lines along x of scratch.window and writes what the tiles cover.
template <class T>
void inverse_along_x(const FftShape<T>& shape, const FftTiles<T>& output,
                     const FftScratch<T>& scratch) {
  std::int64_t rows = 0, columns = 0;
  for (int slot = 0; slot < output.slots; ++slot) {
    for (const FftTile<T>& tile : output.tiles[slot]) {
      if (tile.data == nullptr) continue;
      rows = rows < tile.row ? tile.row : rows;
      columns = columns < tile.column ? tile.column : columns;
    }
  }
  T* re = scratch.part[0];
  T* im = scratch.part[1];
  if (shape.twist == nullptr) {
    for (int y = 0; y < rows; ++y) {
      const T* row = scratch.window + y * shape.pitch * kComplex<T>;
      transform<T>(
          shape.x, scratch.work, [&](int x) { return load_complex(row + x * kComplex<T>); },
          [&](int x, Complex<T> v) {
            store<T>(re + x * kLanes<T>, v.im);
            store<T>(im + x * kLanes<T>, v.re);
          });
      write_columns(output, 0, y, 0, shape.x.n, scratch);
      write_columns(output, 1, y, 0, shape.x.n, scratch);
    }
    return;
  }
  for (int y = 0; y < shape.y.n; ++y) {
    T* row = scratch.window + y * shape.pitch * kComplex<T>;
    transform<T>(
        shape.x, scratch.work, [&](int x) { return load_complex(row + x * kComplex<T>); },
        [&](int x, Complex<T> v) { store_complex<T>(row + x * kComplex<T>, v); });
  }
  int x = 0, y = 0;
  for (std::int64_t column = 0; column < columns; column += kChunk) {
    const int some = columns - column < kChunk ? static_cast<int>(columns - column) : kChunk;
    for (int i = 0; i < some; ++i) {
      const Complex<T> v = load_complex(scratch.window + (y * shape.pitch + x) * kComplex<T>);
      store<T>(re + i * kLanes<T>, v.im);
      store<T>(im + i * kLanes<T>, v.re);
      if (++y == shape.y.n) {
        y = 0;
        ++x;
      }
    }
    write_columns(output, 0, 0, column, some, scratch);
    write_columns(output, 1, 0, column, some, scratch);
  }
}

/// A line of exchanged spectra along y, to column x of scratch.window, twisted back.
template <class T, class Load>
CONVOLITH_INLINE void inverse_along_y(const FftShape<T>& shape, int x, const Load& point,
                                      const FftScratch<T>& scratch) {
  T* column = scratch.window + x * kComplex<T>;
  const std::int64_t step = shape.pitch * kComplex<T>;
  if (shape.twist == nullptr) {
    transform<T>(shape.y, scratch.work, point,
                 [&](int y, Complex<T> v) { store_complex<T>(column + y * step, v); });
    return;
  }
  // Exchanged, the product with the conjugate is one with the number itself.
  const T* twist = shape.twist + 2 * x;
  transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
    store_complex<T>(column + y * step, times_scalar<T>(v, twist + 2 * y * shape.x.n));
  });
}

template <class T>
void fft_inverse(const FftShape<T>& shape, const FftSpectra<const T>& spectra,
                 const FftTiles<T>& output, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  for (int x = 0; x < shape.x.n; ++x) {
    if (2 * x <= shape.x.n) {
      const T* from = spectra.data + x * shape.y.n * spectra.frequency_stride;
      inverse_along_y(
          shape, x,
          [&](int y) {
            const T* at = from + y * spectra.frequency_stride;
            return Complex<T>{load_upto(at + spectra.imaginary, spectra.count),
                              load_upto(at, spectra.count)};
          },
          scratch);
    } else {
      const T* from = spectra.data + (shape.x.n - x) * shape.y.n * spectra.frequency_stride +
                      spectra.conjugate;
      inverse_along_y(
          shape, x,
          [&](int y) {
            const T* at = from + mirrored(shape, x, y) * spectra.frequency_stride;
            return Complex<T>{-load_upto(at + spectra.imaginary, spectra.count),
                              load_upto(at, spectra.count)};
          },
          scratch);
    }
  }
  inverse_along_x(shape, output, scratch);
}

// ---- products ------------------------------------------------------------------------------

template <class T>
void fft_depthwise(const FftShape<T>& shape, const FftTiles<const T>& input, const T* weights,
                   const FftTiles<T>& output, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  forward_along_x(shape, input, scratch);
  for (int x = 0; x < shape.x.n; ++x) {
    const T* column = scratch.window + x * kComplex<T>;
    const std::int64_t step = shape.pitch * kComplex<T>;
    const auto point = [&](int y) { return load_complex(column + y * step); };
    const auto exchanged_point = [&](int y) {
      return load_complex(scratch.line + y * kComplex<T>);
    };
    if (2 * x <= shape.x.n) {
      const T* of_column = weights + x * shape.y.n * kComplex<T>;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        const Complex<T> w = load_complex(of_column + y * kComplex<T>);
        store_complex<T>(scratch.line + y * kComplex<T>, exchanged(times<T>(v, w.re, w.im)));
      });
    } else {
      const T* of_column = weights + (shape.x.n - x) * shape.y.n * kComplex<T>;
      transform<T>(shape.y, scratch.work, point, [&](int y, Complex<T> v) {
        const Complex<T> w = load_complex(of_column + mirrored(shape, x, y) * kComplex<T>);
        store_complex<T>(scratch.line + y * kComplex<T>, exchanged(times<T>(v, w.re, -w.im)));
      });
    }
    inverse_along_y(shape, x, exchanged_point, scratch);
  }
  inverse_along_x(shape, output, scratch);
}

template <class T, int kRows>
void fft_product_of(const FftProduct<T>& p) {
  Vec<T> re[kRows] = {}, im[kRows] = {};
  RowPointers<T, kRows> real(p.a, p.a_row_stride);
  RowPointers<T, kRows> imaginary(p.a + p.a_imaginary, p.a_row_stride);
  const T* b = p.b;
  for (std::int64_t k = 0; k < p.k; ++k) {
    const Complex<T> column = load_complex(b);
    CONVOLITH_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> a_re = broadcast(real.at(r));
      re[r] = multiply_add(a_re, column.re, re[r]);
      im[r] = multiply_add(a_re, column.im, im[r]);
      const Vec<T> a_im = broadcast(imaginary.at(r));
      re[r] = multiply_add(-a_im, column.im, re[r]);
      im[r] = multiply_add(a_im, column.re, im[r]);
    }
    real.advance();
    imaginary.advance();
    b += kComplex<T>;
  }
  CONVOLITH_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    T* c = p.c + r * p.c_row_stride;
    if (p.accumulate) {
      re[r] = load_upto(c, p.columns) + re[r];
      im[r] = load_upto(c + p.c_imaginary, p.columns) + im[r];
    }
    store_upto<T>(c, re[r], p.columns);
    store_upto<T>(c + p.c_imaginary, im[r], p.columns);
  }
}

template <class T>
struct FftProductRows {
  template <int kRows>
  struct Rows {
    static void run(const FftProduct<T>& product) { fft_product_of<T, kRows>(product); }
  };
};

template <class T>
void fft_product(const FftProduct<T>& product) {
  ForRows<FftProductRows<T>::template Rows, kTileRows>::run(product.rows, product);
}

// ---- weights -------------------------------------------------------------------------------

template <class T>
void fft_weights(const FftShape<T>& shape, const FftWeights<T>& weights, T* memory) {
  const FftScratch<T> scratch(shape, memory);
  const bool twisted = shape.twist != nullptr;
  const Vec<T> scale = broadcast(weights.scale);
  const auto read = [&](int y, int x) {
    if (y >= weights.rows || x >= weights.columns) return Complex<T>{};
    const std::int64_t at = (static_cast<std::int64_t>(y) * weights.columns + x) * kLanes<T>;
    return Complex<T>{load(weights.real + at) * scale,
                      weights.imaginary == nullptr ? zero<T>()
                                                   : load(weights.imaginary + at) * scale};
  };
  for (int y = 0; y < shape.y.n; ++y) {
    T* row = scratch.window + y * shape.pitch * kComplex<T>;
    if (!twisted && y >= weights.rows) {
      clear_line(shape.x.n, row);
      continue;
    }
    const T* twist = shape.twist + 2 * y * shape.x.n;
    transform<T>(
        shape.x, scratch.work,
        [&](int x) { return twisted ? read(0, x * shape.y.n + y) : read(y, x); },
        [&](int x, Complex<T> v) {
          store_complex<T>(row + x * kComplex<T>,
                           twisted ? times_scalar<T>(v, twist + 2 * x) : v);
        });
  }
  const std::int64_t step = shape.pitch * kComplex<T>;
  for (int x = 0; x < shape.x.n; ++x) {
    T* column = scratch.window + x * kComplex<T>;
    transform<T>(
        shape.y, scratch.work, [&](int y) { return load_complex(column + y * step); },
        [&](int y, Complex<T> v) { store_complex<T>(column + y * step, v); });
  }
  // Z = A + iB with A and B those of real windows: A(f) = (Z(f) + conj Z(-f)) / 2 and
  // B(f) = (Z(f) - conj Z(-f)) / 2i. A correlation multiplies by the conjugates.
  const Vec<T> half = broadcast(T(0.5));
  for (int x = 0; 2 * x <= shape.x.n; ++x) {
    const int minus_x = x == 0 ? 0 : shape.x.n - x;
    for (int y = 0; y < shape.y.n; ++y) {
      const Complex<T> z = load_complex(scratch.window + y * step + x * kComplex<T>);
      const Complex<T> m = load_complex(scratch.window + mirrored(shape, x, y) * step +
                                        minus_x * kComplex<T>);
      const std::int64_t at = (x * shape.y.n + y) * weights.frequency_stride;
      store_complex<T>(weights.spectrum[0] + at,
                       {(z.re + m.re) * half, (m.im - z.im) * half});
      if (weights.spectrum[1] != nullptr) {
        store_complex<T>(weights.spectrum[1] + at,
                         {(z.im + m.im) * half, (z.re - m.re) * half});
      }
    }
  }
}

}  // namespace
}  // namespace convolith::CONVOLITH_ISA_NAMESPACE
