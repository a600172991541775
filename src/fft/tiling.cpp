#include "fft/tiling.hpp"

#include <algorithm>
#include <cmath>

#include "arithmetic.hpp"
#include "taps.hpp"

namespace convolith {
namespace {

constexpr FftLength kLengths[] = {
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
constexpr FftLength kNoTransform = {1, 0, {}};

constexpr std::int64_t kMostSpectra = 16 << 20;  // bytes of a block's
constexpr std::int64_t kMostPacked = std::int64_t{512} << 20;

/// Cost of a transform along a line, in vector operations of full rate: sums and products, and
/// two loads and stores for each point and pass, which weigh most. Fitted to measurements.
double line_cost(const FftLength& length) noexcept {
  constexpr double kButterfly[] = {0, 0, 0, 16, 16, 40, 44, 78, 60};
  double operations = 0;
  for (int i = 0; i < length.factors; ++i) {
    const double radix = length.radix[i];
    const double twiddles = i + 1 < length.factors ? 4 * (radix - 1) : 0;
    operations += length.n / radix * (kButterfly[length.radix[i]] + twiddles);
  }
  return 0.35 * operations + 7.0 * length.n * length.factors;
}

/// How an axis is cut: `tiles` of `outputs` destinations, by transforms of that length.
struct Cut {
  FftLength length;
  std::int64_t outputs, tiles;

  Cut(const FftAxis& axis, const FftLength& of)
      : length(of),
        outputs(std::min<std::int64_t>(of.n - axis.kernel + 1, axis.destinations)),
        tiles(divide_up(axis.destinations, outputs)) {}
};

/// The lengths worth considering: the shortest for each number of tiles.
std::vector<Cut> cuts(const FftAxis& axis) {
  std::vector<Cut> result;
  if (axis.kernel == 1) result.emplace_back(axis, kNoTransform);
  for (const FftLength& length : kLengths) {
    if (length.n < axis.kernel) continue;
    const Cut cut(axis, length);
    if (result.empty() || cut.tiles < result.back().tiles) result.push_back(cut);
    if (cut.tiles == 1) break;
  }
  return result;
}

/// Two lengths whose product transforms a row.
struct Twisted {
  FftLength x, y;
  std::int64_t n;
};

/// Nearly square ones, by ascending n.
const std::vector<Twisted>& twisted_lengths() {
  static const std::vector<Twisted> lengths = [] {
    std::vector<Twisted> result;
    for (const FftLength& x : kLengths) {
      for (const FftLength& y : kLengths) {
        if (x.factors > 2 || y.n > x.n || 2 * y.n < x.n) continue;
        result.push_back({x, y, std::int64_t{x.n} * y.n});
      }
    }
    std::sort(result.begin(), result.end(),
              [](const Twisted& a, const Twisted& b) { return a.n < b.n; });
    return result;
  }();
  return lengths;
}

}  // namespace

FftAxis::FftAxis(const Window& w, bool adjoint)
    : destinations(adjoint ? w.input : w.output),
      sources(adjoint ? w.output : w.input),
      before(adjoint ? w.effective_kernel() - 1 - w.before : w.before),
      kernel(w.effective_kernel()),
      taps(w.kernel),
      dilation(w.dilation) {}

std::vector<std::int64_t> FftAxis::map(std::int64_t count, PaddingMode mode) const {
  std::vector<std::int64_t> result(static_cast<std::size_t>(count), -1);
  for (std::int64_t q = 0; q < std::min(count, destinations + kernel - 1); ++q) {
    result[static_cast<std::size_t>(q)] = padded_source(q - before, sources, mode);
  }
  return result;
}

FftLanes::FftLanes(std::int64_t all_channels, std::int64_t lanes)
    : all(all_channels),
      channels(std::min(all, lanes)),
      slots(lanes / channels),
      vectors(divide_up(all, lanes)),
      stride(all < lanes ? all : round_up(all, lanes)) {}

FftDimensions::FftDimensions(const ConvProblem& p, const Machine& machine)
    : adjoint(p.direction == Direction::backward_input),
      depthwise(p.in_channels_per_group() == 1 && p.out_channels_per_group() == 1),
      channels_last(p.layout == Layout::channels_last),
      groups(p.groups),
      reduced(adjoint ? p.out_channels_per_group() : p.in_channels_per_group()),
      produced(adjoint ? p.in_channels_per_group() : p.out_channels_per_group()),
      lanes(p.dtype == DType::float32 ? machine.kernels->float32.lanes
                                      : machine.kernels->float64.lanes),
      element_bytes(static_cast<std::int64_t>(size_of(p.dtype))),
      planes(0),
      depth(p.windows[0], adjoint),
      height(p.windows[1], adjoint),
      width(p.windows[2], adjoint),
      in(groups * reduced, lanes),
      out(groups * produced, lanes) {
  planes = p.batch * depth.destinations;
}

std::int64_t FftDimensions::packed_elements(const FftTiling& t) const noexcept {
  return t.frequencies() * (depthwise ? in.vectors : groups * panels() * reduced) * 2 * lanes;
}

std::int64_t FftDimensions::pair_elements(const FftTiling& t) const noexcept {
  return t.frequencies() * 4 * (in.stride + out.stride);
}

std::int64_t FftDimensions::block_pairs(const FftTiling& t) const noexcept {
  const std::int64_t step = std::max(in.slots, out.slots);
  const std::int64_t fitting = kMostSpectra / (pair_elements(t) * element_bytes);
  const std::int64_t all = std::max<std::int64_t>(1, pairs(t));
  if (fitting >= all) return all;
  const std::int64_t blocks = divide_up(all, std::max(step, fitting));
  return round_up(divide_up(all, blocks), step);
}

double FftDimensions::seconds(const FftTiling& t, const Machine& machine) const noexcept {
  const double multiply_add_rate = machine.flops_per_second[element_bytes == 8] /
                                   (2.0 * static_cast<double>(lanes));
  const double vector_rate = 2 * machine.cycles_per_second;
  const auto real = [](std::int64_t count) { return static_cast<double>(count); };
  const double line_x = line_cost(t.x), line_y = line_cost(t.y);
  const double points = static_cast<double>(t.x.n) * t.y.n;
  // Windows that outgrow a part of L2 slow their lines down.
  const double window_bytes = 2 * points * real(lanes * element_bytes);
  const double reach = window_bytes > 0.4 * real(machine.l2_bytes) ? 1.2 : 1.0;
  // Arrays are read and written by vectors, or by squares that are transposed.
  const double touch = 2 * (channels_last ? 3.0 : 10.0);
  const double written = t.twisted ? points : real(t.tile_rows) * t.x.n;
  const double rows_written = t.twisted ? t.y.n : real(t.tile_rows);
  const double forward = reach * (t.y.n * line_x + t.x.n * line_y) + touch * points;
  const double inverse = reach * (rows_written * line_x + t.x.n * line_y) + touch * written;
  const auto bundles = [&](const FftLanes& v) {
    return real(divide_up(pairs(t), v.slots) * v.vectors);
  };
  const double transforms = bundles(in) * forward + bundles(out) * inverse;
  if (depthwise) return (transforms + bundles(in) * 6 * points) / vector_rate;

  // Four products each, by tiles of rows; fewer than four rows wait for their sums. Weights stream
  // from L3 or from memory, spectra from L2 or L3. The factors are fitted to measurements.
  const double blocks = real(divide_up(std::max<std::int64_t>(1, pairs(t)), block_pairs(t)));
  const double rows_of_pair = t.x.n == 1 ? 1 : 2;  // of a column's frequencies, but for two columns
  const double rows = std::max(4.0, rows_of_pair * real(pairs(t)) / blocks);
  const double products =
      blocks * rows / rows_of_pair * points * real(groups * panels() * reduced) * 4;
  const double weights = blocks * real(packed_elements(t) * element_bytes);
  const double spectra = real(pairs(t) * pair_elements(t) * element_bytes);
  const bool from_memory = real(packed_elements(t) * element_bytes) > 0.8 * real(machine.l3_bytes);
  return 1.5 * transforms / vector_rate + 1.4 * products / multiply_add_rate +
         (weights / (from_memory ? 2 : 2.8) + spectra / 1.2) / machine.bytes_per_second;
}

std::optional<FftTiling> FftDimensions::choose(const Machine& machine, std::string* reason) const {
  std::optional<FftTiling> best;
  double best_seconds = 0;
  bool packed_too_large = false;
  const auto consider = [&](const FftTiling& t) {
    if (packed_elements(t) * element_bytes > kMostPacked) {
      packed_too_large = true;
      return;
    }
    const std::int64_t least = std::min(pairs(t), std::max(in.slots, out.slots));
    if (!depthwise && pair_elements(t) * element_bytes * least > kMostSpectra) return;
    const double cost = seconds(t, machine);
    if (best && cost >= best_seconds) return;
    best = t;
    best_seconds = cost;
  };
  const std::vector<Cut> columns = cuts(width);
  for (const Cut& y : cuts(height)) {
    for (const Cut& x : columns) {
      consider({x.length, y.length, false, y.outputs, x.outputs, y.tiles, x.tiles});
    }
  }
  if (height.kernel == 1) {
    std::int64_t fewest = 0;  // the shortest for each number of tiles
    for (const Twisted& length : twisted_lengths()) {
      if (length.n < width.kernel) continue;
      const std::int64_t outputs = std::min(length.n - width.kernel + 1, width.destinations);
      const std::int64_t tiles = divide_up(width.destinations, outputs);
      if (tiles == fewest) continue;
      fewest = tiles;
      consider({length.x, length.y, true, 1, outputs, height.destinations, tiles});
      if (tiles == 1) break;
    }
  }
  if (!best) {
    *reason = packed_too_large ? "the spectra of the weights would take more than " +
                                     std::to_string(kMostPacked >> 20) + " MiB"
                               : "no transform is as long as the kernel and small enough to hold";
  }
  return best;
}

}  // namespace convolith
