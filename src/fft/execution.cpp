#include "fft/execution.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <vector>

#include "arithmetic.hpp"
#include "epilogue.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// A line's radices and its twiddles, which it owns.
template <class T>
class Line {
 public:
  explicit Line(const FftLength& length) {
    line_.n = length.n;
    line_.factors = length.factors;
    int left = length.n;
    for (int i = 0; i < length.factors; ++i) {
      const int radix = line_.radix[i] = length.radix[i];
      if (i + 1 == length.factors) break;
      std::vector<T>& twiddle = twiddles_[static_cast<std::size_t>(i)];
      for (int j = 0; j < left / radix; ++j) {
        for (int k = 0; k < radix; ++k) append_root(twiddle, std::int64_t{j} * k, left);
      }
      left /= radix;
    }
  }

  FftLine<T> get() const noexcept {
    FftLine<T> line = line_;
    for (std::size_t i = 0; i < twiddles_.size(); ++i) line.twiddle[i] = twiddles_[i].data();
    return line;
  }

  /// exp(-2 pi i numerator / denominator)
  static void append_root(std::vector<T>& to, std::int64_t numerator, std::int64_t denominator) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(numerator % denominator) /
                         static_cast<double>(denominator);
    to.push_back(static_cast<T>(std::cos(angle)));
    to.push_back(static_cast<T>(-std::sin(angle)));
  }

 private:
  FftLine<T> line_{};
  std::array<std::vector<T>, kFftFactors - 1> twiddles_;
};

template <class T>
class Fft final : public Execution {
 public:
  Fft(const ConvProblem& problem, const FftDimensions& l, const FftTiling& tiling,
      const Machine& machine, int threads)
      : problem_(problem),
        kernels_(kernels_for<T>(machine)),
        fft_(*kernels_.fft),
        threads_(threads),
        l_(l),
        tiling_(tiling),
        line_x_(tiling.x),
        line_y_(tiling.y),
        rows_(l.height.map((tiling.tiles_y - 1) * tiling.tile_rows +
                               (tiling.twisted ? 1 : tiling.y.n),
                           mode(problem))),
        columns_(l.width.map((tiling.tiles_x - 1) * tiling.tile_columns +
                                 std::int64_t{tiling.x.n} * (tiling.twisted ? tiling.y.n : 1),
                             mode(problem))),
        depths_(l.depth.map(l.depth.destinations, mode(problem))) {
    if (tiling.twisted) {
      for (std::int64_t y = 0; y < tiling.y.n; ++y) {
        for (std::int64_t x = 0; x < tiling.x.n; ++x) {
          Line<T>::append_root(twist_, x * y, std::int64_t{tiling.x.n} * tiling.y.n);
        }
      }
    }
    scratch_ = round_up(fft_.scratch_size(shape()), kAlignment / sizeof(T));
    kernel_window_ = l.height.kernel * l.width.kernel * l.lanes;
    pack_units_ = l.depthwise ? l.in.vectors : l.groups * l.panels() * divide_up(l.reduced, 2);
    constexpr std::int64_t kMostPackThreads = 16;
    pack_threads_ = static_cast<int>(std::min({std::int64_t{threads}, pack_units_,
                                               kMostPackThreads}));
    block_ = l.block_pairs(tiling);
    if (!l.depthwise) {
      in_spectra_ = spectra_elements(l.in);
      out_spectra_ = spectra_elements(l.out);
    }
  }

  std::size_t workspace_bytes() const noexcept override {
    return sizeof(T) * static_cast<std::size_t>(in_spectra_ + out_spectra_ + scratch_ * threads_);
  }

  /// Behind the spectra lies the scratch of the threads that make them.
  std::size_t packed_bytes() const noexcept override {
    return sizeof(T) * static_cast<std::size_t>(l_.packed_elements(tiling_) +
                                                (scratch_ + 2 * kernel_window_) * pack_threads_);
  }

  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* spectra = static_cast<T*>(packed);
    T* scratch = spectra + l_.packed_elements(tiling_);
    const std::int64_t complex = 2 * l_.lanes;
    const std::int64_t pairs = divide_up(l_.reduced, 2);
    parallel_for(pack_threads_, pack_units_, [&](std::int64_t unit, int thread) {
      T* memory = scratch + (scratch_ + 2 * kernel_window_) * thread;
      T* real = memory + scratch_;
      T* imaginary = real + kernel_window_;
      FftWeights<T> weights{};
      weights.real = real;
      weights.rows = static_cast<int>(l_.height.kernel);
      weights.columns = static_cast<int>(l_.width.kernel);
      weights.scale = static_cast<T>(1.0 / (static_cast<double>(tiling_.x.n) * tiling_.y.n));
      if (l_.depthwise) {
        for (std::int64_t slot = 0; slot < l_.in.slots; ++slot) {
          const std::int64_t first = unit * l_.lanes;
          window(source + first * problem_.taps(), problem_.taps(),
                 std::min(l_.in.channels, l_.groups - first), slot * l_.in.channels, real);
        }
        weights.spectrum[0] = spectra + unit * tiling_.frequencies() * complex;
        weights.frequency_stride = complex;
      } else {
        const std::int64_t c = unit % pairs * 2;
        const std::int64_t panel = unit / pairs % l_.panels();
        const std::int64_t group = unit / pairs / l_.panels();
        const std::int64_t first = panel * l_.lanes;
        const std::int64_t in_stride = problem_.taps();
        const std::int64_t out_stride = in_stride * problem_.in_channels_per_group();
        const std::int64_t lane_stride = l_.adjoint ? in_stride : out_stride;
        const std::int64_t reduced_stride = l_.adjoint ? out_stride : in_stride;
        const T* from = source + group * problem_.out_channels_per_group() * out_stride +
                        first * lane_stride + c * reduced_stride;
        const std::int64_t count = std::min(l_.lanes, l_.produced - first);
        weights.spectrum[0] =
            spectra + ((group * l_.panels() + panel) * l_.reduced + c) * complex;
        weights.frequency_stride = l_.groups * l_.panels() * l_.reduced * complex;
        window(from, lane_stride, count, 0, real);
        if (c + 1 < l_.reduced) {
          window(from + reduced_stride, lane_stride, count, 0, imaginary);
          weights.imaginary = imaginary;
          weights.spectrum[1] = weights.spectrum[0] + complex;
        }
      }
      fft_.weights(shape(), weights, memory);
    });
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const Call call{typed<const T>(l_.adjoint ? arguments.y : arguments.x),
                    typed<T>(l_.adjoint ? arguments.x : arguments.y),
                    BoundEpilogue<T>(problem_, arguments), static_cast<const T*>(packed),
                    static_cast<T*>(workspace),
                    static_cast<T*>(workspace) + in_spectra_,
                    static_cast<T*>(workspace) + in_spectra_ + out_spectra_};
    const std::int64_t pairs = l_.pairs(tiling_);
    if (l_.depthwise) {
      run_depthwise(call, pairs);
      return;
    }
    for (std::int64_t first = 0; first < pairs; first += block_) {
      run_block(call, first, std::min(block_, pairs - first));
    }
  }

 private:
  /// Sources beyond the gradient's margins are zeros, whatever pads the forward's.
  static PaddingMode mode(const ConvProblem& problem) noexcept {
    return problem.direction == Direction::backward_input ? PaddingMode::zeros
                                                          : problem.padding_mode;
  }

  struct Call {
    Maps<const T> source;
    Maps<T> output;
    BoundEpilogue<T> epilogue;
    const T* weights;
    T* in_spectra;
    T* out_spectra;
    T* scratch;
  };

  FftShape<T> shape() const noexcept {
    FftShape<T> shape;
    shape.x = line_x_.get();
    shape.y = line_y_.get();
    shape.pitch = tiling_.x.n | 1;
    shape.twist = tiling_.twisted ? twist_.data() : nullptr;
    return shape;
  }

  /// Spectra of a block: [frequency][re, im][pair's (a, b)][channel].
  std::int64_t frequency_stride(const FftLanes& v) const noexcept {
    return odd_lines<T>(4 * block_ * v.stride);
  }
  std::int64_t spectra_elements(const FftLanes& v) const noexcept {
    return tiling_.frequencies() * frequency_stride(v);
  }

  /// Kernels of neighbouring lanes as a window, dilated and, for the adjoint, reversed.
  void window(const T* weight, std::int64_t lane_stride, std::int64_t count,
              std::int64_t first_lane, T* to) const noexcept {
    if (first_lane == 0) std::fill_n(to, kernel_window_, T(0));
    for (std::int64_t y = 0; y < l_.height.taps; ++y) {
      const std::int64_t row = l_.adjoint ? l_.height.taps - 1 - y : y;
      for (std::int64_t x = 0; x < l_.width.taps; ++x) {
        const std::int64_t column = l_.adjoint ? l_.width.taps - 1 - x : x;
        const T* from = weight + y * l_.width.taps + x;
        T* at = to + first_lane + (row * l_.height.dilation * l_.width.kernel +
                                   column * l_.width.dilation) * l_.lanes;
        for (std::int64_t i = 0; i < count; ++i) at[i] = from[i * lane_stride];
      }
    }
  }

  struct TileAt {
    std::int64_t sample, depth, row, column;  ///< of the output
  };
  /// One of the two tiles of a pair, or nothing.
  std::optional<TileAt> tile_at(std::int64_t pair, int part) const noexcept {
    const std::int64_t per_plane = tiling_.pairs_per_plane();
    const std::int64_t plane = pair / per_plane;
    const std::int64_t tile = 2 * (pair % per_plane) + part;
    if (tile >= tiling_.tiles_y * tiling_.tiles_x) return std::nullopt;
    return TileAt{plane / l_.depth.destinations, plane % l_.depth.destinations,
                  tile / tiling_.tiles_x * tiling_.tile_rows,
                  tile % tiling_.tiles_x * tiling_.tile_columns};
  }

  /// Channels of vector `vector`.
  std::int64_t channels_of(const FftLanes& v, std::int64_t vector) const noexcept {
    return std::min(v.channels, v.all - vector * l_.lanes);
  }

  FftTiles<const T> input_tiles(const Maps<const T>& source, std::int64_t pair, std::int64_t slots,
                                std::int64_t vector) const noexcept {
    FftTiles<const T> tiles{};
    tiles.slots = static_cast<int>(slots);
    tiles.channels = static_cast<int>(channels_of(l_.in, vector));
    tiles.channel_stride = source.channel_stride;
    tiles.pixel_stride = source.pixel_stride;
    tiles.row_stride = l_.width.sources * source.pixel_stride;
    tiles.rows = rows_.data();
    tiles.columns = columns_.data();
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      for (int part = 0; part < 2; ++part) {
        const std::optional<TileAt> at = tile_at(pair + slot, part);
        if (!at) continue;
        const std::int64_t depth = depths_[static_cast<std::size_t>(at->depth)];
        if (depth < 0) continue;
        tiles.tiles[slot][part] = {source.sample(at->sample, vector * l_.lanes) +
                                       depth * l_.height.sources * tiles.row_stride,
                                   at->row, at->column};
      }
    }
    return tiles;
  }

  FftTiles<T> output_tiles(const Maps<T>& output, std::int64_t pair, std::int64_t slots,
                           std::int64_t vector) const noexcept {
    FftTiles<T> tiles{};
    tiles.slots = static_cast<int>(slots);
    tiles.channels = static_cast<int>(channels_of(l_.out, vector));
    tiles.channel_stride = output.channel_stride;
    tiles.pixel_stride = output.pixel_stride;
    tiles.row_stride = l_.width.destinations * output.pixel_stride;
    for (std::int64_t slot = 0; slot < slots; ++slot) {
      for (int part = 0; part < 2; ++part) {
        const std::optional<TileAt> at = tile_at(pair + slot, part);
        if (!at) continue;
        tiles.tiles[slot][part] = {
            output.sample(at->sample, vector * l_.lanes) + pixel(*at) * output.pixel_stride,
            std::min(tiling_.tile_rows, l_.height.destinations - at->row),
            std::min(tiling_.tile_columns, l_.width.destinations - at->column)};
      }
    }
    return tiles;
  }

  std::int64_t pixel(const TileAt& at) const noexcept {
    return (at.depth * l_.height.destinations + at.row) * l_.width.destinations + at.column;
  }

  void finish(const Call& call, const FftTiles<T>& tiles, std::int64_t pair,
              std::int64_t vector) const noexcept {
    if (call.epilogue.empty()) return;
    const bool channels_last = problem_.layout == Layout::channels_last;
    for (int slot = 0; slot < tiles.slots; ++slot) {
      for (int part = 0; part < 2; ++part) {
        const std::optional<TileAt> at = tile_at(pair + slot, part);
        if (!at) continue;
        const FftTile<T>& tile = tiles.tiles[slot][part];
        const auto columns = static_cast<int>(tile.column);
        for (std::int64_t row = 0; row < tile.row; ++row) {
          kernels_.epilogue(call.epilogue.tile(at->sample, vector * l_.lanes,
                                               pixel(*at) + row * l_.width.destinations),
                            channels_last ? columns : tiles.channels,
                            channels_last ? tiles.channels : columns,
                            tile.data + row * tiles.row_stride,
                            channels_last ? tiles.pixel_stride : tiles.channel_stride,
                            channels_last ? tiles.channel_stride : tiles.pixel_stride);
        }
      }
    }
  }

  void run_depthwise(const Call& call, std::int64_t pairs) const noexcept {
    const FftShape<T> transform = shape();
    const std::int64_t bundles = divide_up(pairs, l_.in.slots);
    parallel_for(threads_, l_.in.vectors * bundles, [&](std::int64_t index, int thread) {
      const std::int64_t vector = index / bundles;
      const std::int64_t pair = index % bundles * l_.in.slots;
      const std::int64_t slots = std::min(l_.in.slots, pairs - pair);
      const FftTiles<T> output = output_tiles(call.output, pair, slots, vector);
      fft_.depthwise(transform, input_tiles(call.source, pair, slots, vector),
                     call.weights + vector * tiling_.frequencies() * 2 * l_.lanes, output,
                     call.scratch + scratch_ * thread);
      finish(call, output, pair, vector);
    });
  }

  void run_block(const Call& call, std::int64_t first, std::int64_t pairs) const noexcept {
    const FftShape<T> transform = shape();
    const auto spectra = [&]<class U>(U* data, const FftLanes& v, std::int64_t pair,
                                      std::int64_t slots, std::int64_t vector) {
      const bool shared = v.channels < l_.lanes;
      return FftSpectra<U>{data + pair * v.stride + vector * l_.lanes, frequency_stride(v),
                           2 * pairs * v.stride, pairs * v.stride,
                           static_cast<int>(shared ? slots * v.channels : channels_of(v, vector))};
    };
    const std::int64_t in_bundles = divide_up(pairs, l_.in.slots);
    parallel_for(threads_, in_bundles * l_.in.vectors, [&](std::int64_t index, int thread) {
      const std::int64_t vector = index % l_.in.vectors;
      const std::int64_t pair = index / l_.in.vectors * l_.in.slots;
      const std::int64_t slots = std::min(l_.in.slots, pairs - pair);
      fft_.forward(transform, input_tiles(call.source, first + pair, slots, vector),
                   spectra(call.in_spectra, l_.in, pair, slots, vector),
                   call.scratch + scratch_ * thread);
    });

    parallel_for(threads_, tiling_.frequencies(), [&](std::int64_t frequency, int) {
      multiply(call, frequency, pairs);
    });

    const std::int64_t out_bundles = divide_up(pairs, l_.out.slots);
    parallel_for(threads_, out_bundles * l_.out.vectors, [&](std::int64_t index, int thread) {
      const std::int64_t vector = index % l_.out.vectors;
      const std::int64_t pair = index / l_.out.vectors * l_.out.slots;
      const std::int64_t slots = std::min(l_.out.slots, pairs - pair);
      const FftTiles<T> output = output_tiles(call.output, first + pair, slots, vector);
      fft_.inverse(transform,
                   spectra(static_cast<const T*>(call.out_spectra), l_.out, pair, slots, vector),
                   output, call.scratch + scratch_ * thread);
      finish(call, output, first + pair, vector);
    });
  }

  /// Spectra of the output at one frequency, for all pairs of a block.
  void multiply(const Call& call, std::int64_t frequency, std::int64_t pairs) const noexcept {
    // Columns that are their own conjugates hold one number of each pair.
    const std::int64_t x = frequency / tiling_.y.n;
    const std::int64_t rows = x == 0 || 2 * x == tiling_.x.n ? pairs : 2 * pairs;
    const std::int64_t panel_size = l_.reduced * 2 * l_.lanes;
    const std::int64_t chunks = divide_up(l_.reduced, kMaxChain / 2);
    const T* weights = call.weights + frequency * l_.groups * l_.panels() * panel_size;
    const T* in = call.in_spectra + frequency * frequency_stride(l_.in);
    T* out = call.out_spectra + frequency * frequency_stride(l_.out);
    FftProduct<T> product{};
    product.a_row_stride = l_.in.stride;
    product.a_imaginary = 2 * pairs * l_.in.stride;
    product.c_row_stride = l_.out.stride;
    product.c_imaginary = 2 * pairs * l_.out.stride;
    const std::int64_t tiles = divide_up(rows, kernels_.tile_rows);
    for (std::int64_t g = 0; g < l_.groups; ++g) {
      for (std::int64_t panel = 0; panel < l_.panels(); ++panel, weights += panel_size) {
        const std::int64_t column = g * l_.produced + panel * l_.lanes;
        product.columns = static_cast<int>(std::min(l_.lanes, l_.produced - panel * l_.lanes));
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
          const Range sum =
              Range::share(l_.reduced, static_cast<int>(chunk), static_cast<int>(chunks));
          product.b = weights + sum.begin * 2 * l_.lanes;
          product.k = sum.end - sum.begin;
          product.accumulate = chunk > 0;
          for (std::int64_t tile = 0; tile < tiles; ++tile) {
            const Range range =
                Range::share(rows, static_cast<int>(tile), static_cast<int>(tiles));
            product.rows = static_cast<int>(range.end - range.begin);
            product.a = in + range.begin * l_.in.stride + g * l_.reduced + sum.begin;
            product.c = out + range.begin * l_.out.stride + column;
            fft_.product(product);
          }
        }
      }
    }
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  const FftKernels<T>& fft_;
  int threads_;
  FftDimensions l_;
  FftTiling tiling_;
  Line<T> line_x_, line_y_;
  std::vector<T> twist_;
  std::vector<std::int64_t> rows_, columns_, depths_;
  std::int64_t pack_units_ = 0;
  int pack_threads_ = 1;
  std::int64_t scratch_ = 0, kernel_window_ = 0, block_ = 0;
  std::int64_t in_spectra_ = 0, out_spectra_ = 0;
};

}  // namespace

std::unique_ptr<const Execution> prepare_fft(const ConvProblem& problem,
                                             const FftDimensions& dimensions,
                                             const FftTiling& tiling, const Machine& machine,
                                             int threads) {
  return make_typed<Fft>(problem, dimensions, tiling, machine, threads);
}

}  // namespace convolith
