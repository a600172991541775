#include "depthwise/execution.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "depthwise/depthwise.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Lanes are pixels. Rows of a channel are read where they lie, or a few of them are packed with
/// their padding into L1.
template <class T>
class DepthwiseChannelsFirst final : public Depthwise<T> {
  using Base = Depthwise<T>;
  using Base::channels_, Base::destination_, Base::kernels_, Base::multiplier_, Base::plans_,
      Base::problem_, Base::second_pass_, Base::source_pixels_, Base::store_, Base::table_,
      Base::threads_, Base::zeros_, Base::zeros_begin_;

 public:
  DepthwiseChannelsFirst(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads) {
    const std::int64_t packed_most = static_cast<std::int64_t>(machine.l1_bytes / 2 / sizeof(T));
    for (DepthwisePhase<T>& plan : plans_) {
      plan.packed_begin = zeros_begin_;
      zeros_begin_ += plan.phase.taps() * channels_;
      plan.choose_kernel(kernels_, false);
      Tiles tiles;
      tiles.in_place = reads_in_place(plan);
      if (!tiles.in_place) tiles.flat = flat_plane(plan, table_.lanes);
      tiles.packed_elements = tiles.flat.elements;
      if (tiles.flat.elements == 0) plan_rows(plan, packed_most, tiles);
      packed_elements_ = std::max(packed_elements_, tiles.packed_elements);
      packed_rows_ = std::max(packed_rows_, tiles.packed_rows);
      zeros_ = std::max(
          zeros_, tiles.in_place ? source_pixels_[2] : tiles.packing.stride + 2 * table_.lanes);
      tiles_.push_back(std::move(tiles));
    }
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }

  /// [phase][channel][tap], then a row of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps();
    for (const DepthwisePhase<T>& plan : plans_) {
      const std::int64_t phase_taps = plan.phase.taps();
      for_each_tap(plan.phase, problem_, [&](std::int64_t place, std::int64_t tap) {
        T* to = target + plan.packed_begin + place;
        for (std::int64_t c = 0; c < channels_; ++c) to[c * phase_taps] = source[c * taps + tap];
      });
    }
    std::fill(target + zeros_begin_, target + zeros_begin_ + zeros_, T(0));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    parallel(threads_, [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (std::size_t n = 0; n < plans_.size(); ++n) {
        const std::int64_t pieces = tiles_[n].pieces();
        const Range units = Range::share(problem_.batch * channels_ * pieces, thread, team);
        if (tiles_[n].flat.elements > 0) {
          run_flat(call, plans_[n], tiles_[n], units, scratch);
        } else {
          run_rows(call, plans_[n], tiles_[n], units, scratch);
        }
      }
    });
  }

 private:
  /// Output rows that are packed and summed together.
  struct RowBlock {
    std::int64_t d;
    Strip rows;
    std::int64_t planes, plane_rows;
    std::size_t sources, weights;  ///< where its entries begin
  };
  struct Tiles {
    FlatPlane flat;  ///< in place of all that follows, if it has elements
    bool in_place = false;  ///< rows are not packed
    RowPacking packing;
    std::vector<RowBlock> rows;
    std::vector<std::int64_t> row_sources, plane_weights;
    std::int64_t packed_elements = 0, packed_rows = 0;

    std::int64_t pieces() const noexcept {
      return flat.elements > 0 ? 1 : static_cast<std::int64_t>(rows.size() * packing.blocks.size());
    }
  };

  bool reads_in_place(const DepthwisePhase<T>& plan) const noexcept {
    constexpr std::int64_t kMostColumns = 4096;
    const AxisPhase& width = plan.phase.axes[2];
    if (plan.kernel == 0 || plan.kernel != kernels_.kernel_in_place) return false;
    if (source_pixels_[2] > kMostColumns) return false;
    if (problem_.padding_mode != PaddingMode::zeros) return false;
    return width.source_step == plan.height.stride() &&
           width.taps[1].offset - width.taps[0].offset == 1;
  }

  void plan_rows(const DepthwisePhase<T>& plan, std::int64_t packed_most, Tiles& tiles) const {
    const DenseAxis& height = plan.height;
    tiles.packing = tiles.in_place ? rows_in_place(plan) : row_packing(plan, table_.lanes);
    // As many output rows as fit with what they read.
    const std::int64_t planes = std::max<std::int64_t>(1, plan.depth.taps());
    const std::int64_t source_row = tiles.in_place ? source_pixels_[2] : tiles.packing.stride;
    const std::int64_t fitting = packed_most / std::max<std::int64_t>(1, planes * source_row);
    std::int64_t most_rows = std::max<std::int64_t>(
        plan.block_rows, height.stride() > 0 ? (fitting - height.taps()) / height.stride() : 64);
    std::vector<Strip> row_strips = strips(height, most_rows);
    for (std::int64_t d = 0; d < plan.phase.axes[0].count; ++d) {
      for (const Strip& rows : row_strips) {
        RowBlock block{d, rows, 0, height.steps(rows.count), tiles.row_sources.size(),
                       tiles.plane_weights.size()};
        for (std::int64_t z = 0; z < plan.depth.taps(); ++z) {
          const std::int64_t plane = plan.depth.source(d, z);
          if (plane < 0) continue;
          ++block.planes;
          tiles.plane_weights.push_back(z * plan.plane_taps());
          for (std::int64_t i = 0; i < block.plane_rows; ++i) {
            const std::int64_t h = height.source(rows.first, i);
            tiles.row_sources.push_back(
                h < 0 ? -1 : (plane * source_pixels_[1] + h) * source_pixels_[2]);
          }
        }
        tiles.packed_rows = std::max(tiles.packed_rows, block.planes * block.plane_rows);
        tiles.rows.push_back(block);
      }
    }
    if (tiles.in_place) return;
    tiles.packed_elements = tiles.packed_rows * tiles.packing.stride + 2 * table_.lanes;
  }

  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<T>(packed_elements_) + aligned_bytes<const T*>(packed_rows_);
  }

  void run_rows(const DirectedCall<T>& call, const DepthwisePhase<T>& plan, const Tiles& tiles,
                const Range& units, std::byte* scratch) const noexcept {
    const auto& axes = plan.phase.axes;
    DepthwiseRows<T> p{};
    p.packed = tiles.in_place ? nullptr : reinterpret_cast<T*>(scratch);
    p.packed_stride = tiles.packing.stride;
    p.packed_rows = reinterpret_cast<const T**>(scratch + aligned_bytes<T>(packed_elements_));
    p.zeros = call.packed + zeros_begin_;
    p.kernel_height = plan.height.taps();
    p.kernel_width = plan.width.taps();
    p.tap_columns = tiles.packing.tap_columns.data();
    p.source_columns = source_pixels_[2];
    p.stride = static_cast<int>(plan.height.stride());
    p.output_row_stride = plan.height.class_step() * axes[1].step * destination_[2];
    p.output_column_stride = axes[2].step;
    p.store = store_;
    std::fill(p.packed, p.packed + tiles.packed_elements, T(0));
    const std::int64_t pieces = tiles.pieces();
    const auto column_blocks = static_cast<std::int64_t>(tiles.packing.blocks.size());
    for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
      const std::int64_t piece = unit % pieces;
      const std::int64_t channel = unit / pieces % channels_;
      const std::int64_t sample = unit / pieces / channels_;
      const RowBlock& rows = tiles.rows[piece / column_blocks];
      const RowPacking::Columns& columns = tiles.packing.blocks[piece % column_blocks];
      const std::int64_t pixel =
          this->destination_pixel(plan, rows.d, rows.rows.first, columns.begin);
      p.source = call.source.sample(sample, channel / multiplier_);
      p.row_sources = tiles.row_sources.data() + rows.sources;
      p.planes = rows.planes;
      p.plane_rows = rows.plane_rows;
      p.runs = tiles.packing.runs.data() + columns.runs;
      p.run_count = static_cast<std::int64_t>(columns.run_count);
      p.plane_weights = tiles.plane_weights.data() + rows.weights;
      p.weight = call.packed + plan.packed_begin + channel * plan.phase.taps();
      p.bias = call.bias != nullptr ? call.bias[channel] : T(0);
      p.output = call.output.sample(sample, channel) + pixel;
      p.rows = rows.rows.count;
      p.columns = columns.count;
      kernels_.rows(p, plan.kernel);
      if (!second_pass_) continue;
      for (std::int64_t r = 0; r < rows.rows.count; ++r) {
        const std::int64_t first = this->destination_pixel(
            plan, rows.d, rows.rows.first + r * plan.height.class_step(), columns.begin);
        finish(call, sample, channel, first, columns.count, axes[2].step);
      }
    }
  }

  void run_flat(const DirectedCall<T>& call, const DepthwisePhase<T>& plan, const Tiles& tiles,
                const Range& units, std::byte* scratch) const noexcept {
    DepthwiseFlat<T> p{};
    p.packed = reinterpret_cast<T*>(scratch);
    std::fill(p.packed, p.packed + tiles.packed_elements, T(0));
    const FlatPlane& flat = tiles.flat;
    p.row_sources = flat.row_sources.data();
    p.row_places = flat.row_places.data();
    p.row_count = static_cast<std::int64_t>(flat.row_sources.size());
    p.runs = flat.runs.data();
    p.run_count = static_cast<std::int64_t>(flat.runs.size());
    p.tap_places = flat.tap_places.data();
    p.taps = plan.phase.taps();
    p.vectors = static_cast<std::int64_t>(flat.places.size());
    p.outputs = plan.phase.pixels();
    p.lanes = flat.lanes.data();
    p.places = flat.places.data();
    p.store = store_;
    for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
      const std::int64_t channel = unit % channels_;
      const std::int64_t sample = unit / channels_;
      p.source = call.source.sample(sample, channel / multiplier_);
      p.weight = call.packed + plan.packed_begin + channel * p.taps;
      p.bias = call.bias != nullptr ? call.bias[channel] : T(0);
      p.output = call.output.sample(sample, channel);
      kernels_.flat(p);
      if (second_pass_) finish(call, sample, channel, 0, p.outputs, 1);
    }
  }

  void finish(const DirectedCall<T>& call, std::int64_t sample, std::int64_t channel,
              std::int64_t pixel, std::int64_t count, std::int64_t step) const noexcept {
    const auto rest = call.epilogue.rest(sample, channel, pixel, step);
    table_.epilogue(rest, 1, static_cast<int>(count), call.output.sample(sample, channel) + pixel,
                    0, step);
  }

  std::vector<Tiles> tiles_;  ///< of each phase
  std::int64_t packed_elements_ = 0, packed_rows_ = 0;
};

}  // namespace

std::unique_ptr<const Execution> make_depthwise_channels_first(const ConvProblem& problem,
                                                               const Machine& machine,
                                                               int threads) {
  return make_typed<DepthwiseChannelsFirst>(problem, machine, threads);
}

}  // namespace convolith
