// Convolution by discrete Fourier transforms, for large kernels. Output tiles are computed by
// overlap-save (Oppenheim & Schafer, Discrete-Time Signal Processing, 8.7): the window that a tile
// reads is transformed, multiplied by the kernel's spectrum, frequency by frequency and summed
// over channels, and transformed back; the points that wrapped round are not written. Two real
// tiles make one complex transform, since the kernel is real: neither is ever separated.
//
// The transforms are written here (kernels/fft.inl.hpp) rather than taken from a library.
// pocketfft, the one inside NumPy and SciPy, is no build requirement to be had by name, FFTW's
// licence is the GPL, and both vectorise one line or neighbouring lines of an array: padding,
// pairing, transposing and the layout that the products want would each be a pass of their own.
// With a transform in every lane these merge into the first and last butterflies.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

// ---- lengths of transforms -----------------------------------------------------------------

struct Length {
  int n;
  int factors;
  int radix[kFftFactors];
};

constexpr Length kLengths[] = {
    {9, 2, {3, 3}},     {12, 2, {4, 3}},    {15, 2, {5, 3}},    {16, 2, {4, 4}},
    {18, 2, {6, 3}},    {20, 2, {5, 4}},    {21, 2, {7, 3}},    {24, 2, {6, 4}},
    {25, 2, {5, 5}},    {28, 2, {7, 4}},    {30, 2, {6, 5}},    {32, 2, {8, 4}},
    {35, 2, {7, 5}},    {36, 2, {6, 6}},    {40, 2, {8, 5}},    {42, 2, {7, 6}},
    {48, 2, {8, 6}},    {49, 2, {7, 7}},    {56, 2, {8, 7}},    {64, 2, {8, 8}},
    {72, 3, {6, 4, 3}}, {80, 3, {5, 4, 4}}, {84, 3, {7, 4, 3}}, {90, 3, {6, 5, 3}},
    {96, 3, {6, 4, 4}}, {100, 3, {5, 5, 4}}, {108, 3, {6, 6, 3}}, {112, 3, {7, 4, 4}},
    {120, 3, {6, 5, 4}}, {128, 3, {8, 4, 4}}, {140, 3, {7, 5, 4}}, {144, 3, {6, 6, 4}},
    {160, 3, {8, 5, 4}}, {168, 3, {7, 6, 4}}, {192, 3, {8, 6, 4}}, {224, 3, {7, 4, 8}},
    {256, 3, {8, 4, 8}},
};
constexpr Length kNoTransform = {1, 0, {}};

/// Vector operations of one transform along a line.
double operations(const Length& length) noexcept {
  constexpr double kButterfly[] = {0, 0, 4, 16, 16, 40, 44, 78, 60};
  double sum = 0;
  for (int i = 0; i < length.factors; ++i) {
    const double radix = length.radix[i];
    const double twiddles = i + 1 < length.factors ? 4 * (radix - 1) : 0;
    // Two vectors to load and to store for every point.
    sum += length.n / radix * (kButterfly[length.radix[i]] + twiddles) + 3.0 * length.n;
  }
  return sum;
}

// ---- geometry ------------------------------------------------------------------------------

/// One spatial axis as a correlation of stride 1: destination i reads the padded coordinates
/// i .. i + kernel - 1, of which coordinate 0 lies `before` places before the first source.
struct Axis {
  std::int64_t destinations, sources, before;
  std::int64_t kernel;  ///< effective
  std::int64_t taps, dilation;

  Axis(const Window& w, bool adjoint)
      : destinations(adjoint ? w.input : w.output),
        sources(adjoint ? w.output : w.input),
        before(adjoint ? w.effective_kernel() - 1 - w.before : w.before),
        kernel(w.effective_kernel()),
        taps(w.kernel),
        dilation(w.dilation) {}

  /// The sources that stand at the first `count` padded coordinates; -1 where none is needed.
  std::vector<std::int64_t> map(std::int64_t count, PaddingMode mode) const {
    std::vector<std::int64_t> result(static_cast<std::size_t>(count), -1);
    for (std::int64_t q = 0; q < std::min(count, destinations + kernel - 1); ++q) {
      result[static_cast<std::size_t>(q)] = padded_source(q - before, sources, mode);
    }
    return result;
  }
};

/// How an axis is cut: `tiles` of `outputs` destinations, by transforms of that length.
struct Cut {
  Length length;
  std::int64_t outputs, tiles;

  Cut(const Axis& axis, const Length& of)
      : length(of),
        outputs(std::min<std::int64_t>(of.n - axis.kernel + 1, axis.destinations)),
        tiles(divide_up(axis.destinations, outputs)) {}
};

/// The lengths worth considering: the shortest for each number of tiles.
std::vector<Cut> cuts(const Axis& axis) {
  std::vector<Cut> result;
  if (axis.kernel == 1) result.emplace_back(axis, kNoTransform);
  for (const Length& length : kLengths) {
    if (length.n < axis.kernel) continue;
    const Cut cut(axis, length);
    if (result.empty() || cut.tiles < result.back().tiles) result.push_back(cut);
    if (cut.tiles == 1) break;
  }
  return result;
}

struct Tiling {
  Length x, y;
  bool twisted = false;            ///< x and y together are the transform of a row
  std::int64_t tile_rows, tile_columns;
  std::int64_t tiles_y, tiles_x;

  std::int64_t frequencies() const noexcept { return (x.n / 2 + 1) * y.n; }
  std::int64_t pairs_per_image() const noexcept { return divide_up(tiles_y * tiles_x, 2); }
};

/// Vectors of channels: several pairs of tiles share one where there are few channels.
struct Lanes {
  std::int64_t channels, slots, vectors;
  std::int64_t stride;  ///< of a row of all channels

  Lanes(std::int64_t all, std::int64_t lanes)
      : channels(std::min(all, lanes)),
        slots(lanes / channels),
        vectors(divide_up(all, lanes)),
        stride(all < lanes ? all : round_up(all, lanes)) {}
};

constexpr std::int64_t kMostSpectra = 16 << 20;          ///< bytes of a block's spectra
constexpr std::int64_t kMostPacked = std::int64_t{512} << 20;

/// All that the size of things depends on.
struct Dimensions {
  bool adjoint, depthwise;
  std::int64_t groups, reduced, produced;  ///< channels of a group
  std::int64_t images, lanes, element;
  Axis depth, height, width;
  Lanes in, out;

  Dimensions(const ConvProblem& p, const Machine& machine)
      : adjoint(p.direction == Direction::backward_input),
        depthwise(p.in_channels_per_group() == 1 && p.out_channels_per_group() == 1),
        groups(p.groups),
        reduced(adjoint ? p.out_channels_per_group() : p.in_channels_per_group()),
        produced(adjoint ? p.in_channels_per_group() : p.out_channels_per_group()),
        images(0),
        lanes(p.dtype == DType::float32 ? machine.kernels->float32.lanes
                                        : machine.kernels->float64.lanes),
        element(static_cast<std::int64_t>(size_of(p.dtype))),
        depth(p.windows[0], adjoint),
        height(p.windows[1], adjoint),
        width(p.windows[2], adjoint),
        in(groups * reduced, lanes),
        out(groups * produced, lanes) {
    images = p.batch * depth.destinations;
  }

  std::int64_t pairs(const Tiling& t) const noexcept { return images * t.pairs_per_image(); }
  std::int64_t panels() const noexcept { return divide_up(produced, lanes); }

  std::int64_t packed_elements(const Tiling& t) const noexcept {
    if (depthwise) return t.frequencies() * in.vectors * 2 * lanes;
    return t.frequencies() * groups * panels() * reduced * 2 * lanes;
  }
  /// Of the spectra of one pair of tiles.
  std::int64_t pair_elements(const Tiling& t) const noexcept {
    return t.frequencies() * 4 * (in.stride + out.stride);
  }
  /// Pairs whose spectra are held at a time.
  std::int64_t block_pairs(const Tiling& t) const noexcept {
    const std::int64_t step = std::max(in.slots, out.slots);
    const std::int64_t fitting = kMostSpectra / (pair_elements(t) * element);
    const std::int64_t all = std::max<std::int64_t>(1, pairs(t));
    if (fitting >= all) return all;
    const std::int64_t blocks = divide_up(all, std::max(step, fitting));
    return round_up(divide_up(all, blocks), step);
  }
};

/// Predicted seconds on one core.
double seconds(const Dimensions& l, const Tiling& t, const Machine& machine) {
  const double vector_rate =
      machine.flops_per_second[l.element == 8] / (2.0 * static_cast<double>(l.lanes));
  const double line_x = operations(t.x), line_y = operations(t.y);
  const double all_lines = t.y.n * line_x + t.x.n * line_y;
  const double some_lines =
      (t.twisted ? t.y.n : static_cast<double>(t.tile_rows)) * line_x + t.x.n * line_y;
  const double points = static_cast<double>(t.x.n) * t.y.n;
  const auto pairs = static_cast<double>(l.pairs(t));
  const auto groups_of = [&](const Lanes& v) {
    return std::ceil(pairs / static_cast<double>(v.slots)) * static_cast<double>(v.vectors);
  };
  double operations_all = groups_of(l.in) * (all_lines + 4 * points) +
                          groups_of(l.out) * (some_lines + 4 * points);
  double bytes = 0;
  if (l.depthwise) {
    operations_all += groups_of(l.in) * 6 * points;
  } else {
    const double products = pairs * points * static_cast<double>(l.groups * l.reduced);
    operations_all += products * 4 * static_cast<double>(l.panels()) / 0.8;
    const double blocks = std::ceil(pairs / static_cast<double>(l.block_pairs(t)));
    bytes = static_cast<double>(l.element) *
            (blocks * static_cast<double>(l.packed_elements(t)) +
             2 * pairs * static_cast<double>(l.pair_elements(t)));
  }
  return operations_all / vector_rate + bytes / (3 * machine.bytes_per_second);
}

/// The tiling of the least predicted time, or nothing: `reason` says why.
std::optional<Tiling> choose(const Dimensions& l, const Machine& machine, std::string* reason) {
  std::optional<Tiling> best;
  double best_seconds = 0;
  bool packed_too_large = false;
  const auto consider = [&](const Tiling& t) {
    if (l.packed_elements(t) * l.element > kMostPacked) {
      packed_too_large = true;
      return;
    }
    if (!l.depthwise && l.pair_elements(t) * l.element * l.in.slots > 2 * kMostSpectra) return;
    const double cost = seconds(l, t, machine);
    if (best && cost >= best_seconds) return;
    best = t;
    best_seconds = cost;
  };
  const std::vector<Cut> columns = cuts(l.width);
  for (const Cut& y : cuts(l.height)) {
    for (const Cut& x : columns) {
      consider({x.length, y.length, false, y.outputs, x.outputs, y.tiles, x.tiles});
    }
  }
  if (l.height.kernel == 1) {
    for (const Length& x : kLengths) {
      for (const Length& y : kLengths) {
        const std::int64_t n = std::int64_t{x.n} * y.n;
        if (x.factors > 2 || y.n > x.n || 2 * y.n < x.n || n < l.width.kernel) continue;
        const std::int64_t outputs = std::min(n - l.width.kernel + 1, l.width.destinations);
        consider({x, y, true, 1, outputs, l.height.destinations,
                  divide_up(l.width.destinations, outputs)});
      }
    }
  }
  if (!best) {
    *reason = packed_too_large ? "the spectra of the weights would take more than " +
                                     std::to_string(kMostPacked >> 20) + " MiB"
                               : "no transform is as long as the kernel and small enough to block";
  }
  return best;
}

// ---- execution -----------------------------------------------------------------------------

/// A line's radices and its twiddles, which it owns.
template <class T>
class Line {
 public:
  explicit Line(const Length& length) {
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
  Fft(const ConvProblem& problem, const Dimensions& l, const Tiling& tiling, const Machine& machine,
      int threads)
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
                           problem.padding_mode)),
        columns_(l.width.map((tiling.tiles_x - 1) * tiling.tile_columns +
                                 std::int64_t{tiling.x.n} * (tiling.twisted ? tiling.y.n : 1),
                             problem.padding_mode)),
        depths_(l.depth.map(l.depth.destinations, problem.padding_mode)) {
    if (tiling.twisted) {
      for (std::int64_t y = 0; y < tiling.y.n; ++y) {
        for (std::int64_t x = 0; x < tiling.x.n; ++x) {
          Line<T>::append_root(twist_, x * y, std::int64_t{tiling.x.n} * tiling.y.n);
        }
      }
    }
    scratch_ = round_up(fft_.scratch_size(shape()), kAlignment / sizeof(T));
    kernel_window_ = l.height.kernel * l.width.kernel * l.lanes;
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
                                                (scratch_ + 2 * kernel_window_) * threads_);
  }

  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* spectra = static_cast<T*>(packed);
    T* scratch = spectra + l_.packed_elements(tiling_);
    const std::int64_t complex = 2 * l_.lanes;
    const std::int64_t pairs = divide_up(l_.reduced, 2);
    const std::int64_t units = l_.depthwise ? l_.in.vectors : l_.groups * l_.panels() * pairs;
    parallel_for(threads_, units, [&](std::int64_t unit, int thread) {
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
  std::int64_t frequency_stride(const Lanes& v) const noexcept {
    // An odd number of lines, so that frequencies do not compete for the same cache sets.
    const std::int64_t line = kAlignment / sizeof(T);
    return (divide_up(4 * block_ * v.stride, line) | 1) * line;
  }
  std::int64_t spectra_elements(const Lanes& v) const noexcept {
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
    const std::int64_t per_image = tiling_.pairs_per_image();
    const std::int64_t image = pair / per_image;
    const std::int64_t tile = 2 * (pair % per_image) + part;
    if (tile >= tiling_.tiles_y * tiling_.tiles_x) return std::nullopt;
    return TileAt{image / l_.depth.destinations, image % l_.depth.destinations,
                  tile / tiling_.tiles_x * tiling_.tile_rows,
                  tile % tiling_.tiles_x * tiling_.tile_columns};
  }

  /// Channels of vector `vector`.
  std::int64_t channels_of(const Lanes& v, std::int64_t all, std::int64_t vector) const noexcept {
    return std::min(v.channels, all - vector * l_.lanes);
  }

  FftTiles<const T> input_tiles(const Maps<const T>& source, std::int64_t pair, std::int64_t slots,
                                std::int64_t vector) const noexcept {
    FftTiles<const T> tiles{};
    tiles.slots = static_cast<int>(slots);
    tiles.channels = static_cast<int>(channels_of(l_.in, l_.groups * l_.reduced, vector));
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
    tiles.channels = static_cast<int>(channels_of(l_.out, l_.groups * l_.produced, vector));
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
    const auto spectra = [&]<class U>(U* data, const Lanes& v, std::int64_t pair,
                                      std::int64_t slots, std::int64_t vector) {
      const bool shared = v.channels < l_.lanes;
      return FftSpectra<U>{data + pair * v.stride + vector * l_.lanes, frequency_stride(v),
                           2 * pairs * v.stride, pairs * v.stride,
                           static_cast<int>(shared ? slots * v.channels : l_.lanes)};
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
  Dimensions l_;
  Tiling tiling_;
  Line<T> line_x_, line_y_;
  std::vector<T> twist_;
  std::vector<std::int64_t> rows_, columns_, depths_;
  std::int64_t scratch_ = 0, kernel_window_ = 0, block_ = 0;
  std::int64_t in_spectra_ = 0, out_spectra_ = 0;
};

class FftAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "fft"; }
  const char* summary() const noexcept override {
    return "multiplies the Fourier transforms of overlapping tiles";
  }
  bool strict() const noexcept override { return false; }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      return Support::no("gradients of weights are not computed by transforms");
    }
    for (const Window& w : problem.windows) {
      if (w.stride != 1) {
        return Support::no("stride " + std::to_string(w.stride) +
                           ": most of what the transforms compute would be dropped");
      }
      if (problem.direction == Direction::backward_input &&
          problem.padding_mode != PaddingMode::zeros && (w.before > 0 || w.after > 0)) {
        return Support::no(std::string("padding mode ") + convolith::name(problem.padding_mode) +
                           " folds margins back into the gradient");
      }
    }
    if (problem.windows[0].kernel != 1) {
      return Support::no("kernels of more than two axes have no transform here");
    }
    for (const KernelTable* isa : available_isas()) {
      const Machine machine = describe_machine(*isa);
      std::string reason;
      if (!choose(Dimensions(problem, machine), machine, &reason)) return Support::no(reason);
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const Dimensions l(problem, machine);
    std::string reason;
    const std::optional<Tiling> tiling = choose(l, machine, &reason);
    constexpr double kForkJoin = 6e-6;
    return tiling ? kForkJoin + seconds(l, *tiling, machine) : 1e9;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    const Dimensions l(problem, machine);
    std::string reason;
    const Tiling tiling = *choose(l, machine, &reason);
    if (problem.dtype == DType::float32) {
      return std::make_unique<Fft<float>>(problem, l, tiling, machine, threads);
    }
    return std::make_unique<Fft<double>>(problem, l, tiling, machine, threads);
  }
};

}  // namespace

const Algorithm& fft_algorithm() {
  static const FftAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
