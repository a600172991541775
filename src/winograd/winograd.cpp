#include "winograd/winograd.hpp"

#include <algorithm>
#include <cmath>

#include "amplification.hpp"
#include "arithmetic.hpp"
#include "kernels/cook_toom_table.hpp"
#include "kernels/kernel_table.hpp"
#include "runtime/cpu.hpp"
#include "tolerance.hpp"
#include "winograd/blocks.hpp"
#include "winograd/execution.hpp"
#include "winograd/weight_gradient.hpp"

namespace convolith {

Support Winograd::supports(const ConvProblem& problem) const {
  std::string reason;
  if (problem.direction == Direction::backward_weight) {
    if (winograd_weight_gradient_size(problem, outputs_, &reason) >= 0) return {};
    return Support::no(reason);
  }
  if (WinogradGeometry::make(problem, outputs_, &reason)) return {};
  return Support::no(reason);
}

double Winograd::cost(const ConvProblem& problem, const Machine& machine) const {
  if (problem.direction == Direction::backward_weight) {
    return winograd_weight_gradient_cost(problem, outputs_, machine);
  }
  const WinogradGeometry geometry = *WinogradGeometry::make(problem, outputs_, nullptr);
  const bool wide = problem.dtype == DType::float64;
  const std::int64_t lanes = lanes_of(problem.dtype, machine);
  const std::int64_t tile_rows =
      wide ? machine.kernels->float64.tile_rows : machine.kernels->float32.tile_rows;
  const auto bytes = static_cast<double>(size_of(problem.dtype));
  const double cycle = 1 / machine.cycles_per_second;
  const auto groups = static_cast<double>(problem.groups);
  const auto frequencies = static_cast<double>(geometry.frequencies());
  const std::int64_t all_tiles = std::max<std::int64_t>(1, problem.batch) * geometry.tiles();
  const auto tiles = static_cast<double>(all_tiles);
  const auto terms = static_cast<double>(
      geometry.reduced_taps == 1 ? geometry.reduced
                                 : geometry.reduced_taps * round_up(geometry.reduced, lanes));
  const auto panels = static_cast<double>(divide_up(geometry.produced, 2 * lanes));
  const auto produced = static_cast<double>(round_up(geometry.produced, lanes));

  // Products: fewer than four rows wait for their multiply-adds; each register tile is stored. The
  // constants here were fitted to the layers of the classic networks.
  constexpr double kEfficiency = 0.95, kTileCycles = 40;
  const double filled = std::min(1.0, tiles / 4);
  double products = 2 * frequencies * tiles * terms * produced /
                        (kEfficiency * filled * machine.flops_per_second[wide]) +
                    frequencies * panels * std::ceil(tiles / static_cast<double>(tile_rows)) *
                        static_cast<double>(geometry.reduced_taps) * kTileCycles * cycle;
  // Weights stream past every block of tiles: from an L3 nearby almost unnoticed, from one far away
  // half unnoticed, from memory beside the multiply-adds.
  const double weights = frequencies * terms * panels * 2 * static_cast<double>(lanes) * bytes;
  const double blocks = geometry.few_tiles(problem.batch, static_cast<int>(tile_rows))
                            ? 1
                            : std::ceil(tiles / static_cast<double>(4 * tile_rows));
  const double fetched = blocks * weights / machine.bytes_per_second;
  if (l3_is_far(machine)) {
    products += fetched / 4;
  } else {
    products = weights > static_cast<double>(kPastL3) ? std::max(products, fetched / 1.5)
                                                      : products + fetched / 10;
  }

  // Transforms, a vector of channels of a tile: loads, stores, their misses, and the transposition
  // of channels_first.
  const auto inputs = static_cast<double>(geometry.column().tile_inputs);
  const double rows = geometry.square() ? inputs : 1;
  const double output_rows = geometry.square() ? outputs_ : 1;
  double source_cycles = 0.55 * inputs * frequencies;
  double output_cycles = 0.1 * inputs * inputs * frequencies;
  if (problem.layout == Layout::channels_first) {
    source_cycles += 200 * rows * outputs_ / static_cast<double>(lanes);
    output_cycles += 65 * output_rows * outputs_ / static_cast<double>(lanes);
  }
  const double transforms =
      tiles * cycle *
      (static_cast<double>(geometry.reduced_taps * divide_up(geometry.reduced, lanes)) *
           source_cycles +
       produced / static_cast<double>(lanes) * output_cycles);
  const double maps_bytes = static_cast<double>(problem.x_size() + problem.y_size()) * bytes;
  constexpr double kForkJoin = 1e-5;
  return groups * (products + transforms) + 0.75 * maps_bytes / machine.bytes_per_second +
         kForkJoin;
}

double Winograd::packing_cost(const ConvProblem& problem, const Machine& machine) const {
  if (problem.direction == Direction::backward_weight) return 0;
  const WinogradGeometry geometry = *WinogradGeometry::make(problem, outputs_, nullptr);
  const bool wide = problem.dtype == DType::float64;
  const int lanes = lanes_of(problem.dtype, machine);
  const int tile_rows = wide ? machine.kernels->float64.tile_rows
                             : machine.kernels->float32.tile_rows;
  const std::int64_t elements = problem.groups * geometry.frequencies() * geometry.reduced_taps *
                                geometry.reduced * round_up(geometry.produced, 2 * lanes);
  // Transposed, transformed and stored; then written to memory, unless it is used at once.
  constexpr double kVectorCycles = 6;
  const double cycle = 4.0 * lanes / machine.flops_per_second[wide];
  const double transform = static_cast<double>(elements) / lanes * kVectorCycles * cycle;
  if (geometry.few_tiles(problem.batch, tile_rows)) return transform;
  const auto bytes = static_cast<double>(elements) * static_cast<double>(size_of(problem.dtype));
  return std::max(transform, packing_seconds(bytes, machine));
}

Tolerance Winograd::tolerance(const ConvProblem& problem) const {
  if (problem.direction == Direction::backward_weight) {
    // F(r, m); the sums are over tiles.
    const int size = winograd_weight_gradient_size(problem, outputs_, nullptr);
    const CookToom matrices = cook_toom(kWinogradSizes[size].taps, outputs_);
    const double amplified = amplification(matrices);
    const auto tiles = static_cast<double>(winograd_weight_gradient_tiles(problem, size));
    return {summation_bound(problem.dtype, 1),
            probable_bound(problem.dtype, tiles + 6.0 * matrices.inputs) * amplified * amplified};
  }
  const WinogradGeometry geometry = *WinogradGeometry::make(problem, outputs_, nullptr);
  const CookToom matrices = cook_toom(outputs_, static_cast<int>(geometry.column().taps));
  double amplified = amplification(matrices);
  if (geometry.square()) amplified *= amplified;
  // The additions of channels, and the few of the transforms, two of which follow one another on
  // each axis.
  const double transform_additions = (geometry.square() ? 6.0 : 3.0) * matrices.inputs;
  const double additions =
      static_cast<double>(geometry.reduced * geometry.reduced_taps) + transform_additions;
  return {summation_bound(problem.dtype, 1),
          probable_bound(problem.dtype, additions) * amplified};
}

std::unique_ptr<const Execution> Winograd::prepare(const ConvProblem& problem,
                                                   const Machine& machine, int threads) const {
  if (problem.direction == Direction::backward_weight) {
    return make_winograd_weight_gradient(problem, outputs_, machine, threads);
  }
  return make_winograd(problem, *WinogradGeometry::make(problem, outputs_, nullptr), machine,
                       threads);
}

}  // namespace convolith
