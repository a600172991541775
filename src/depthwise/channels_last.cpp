#include "depthwise/execution.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "depthwise/depthwise.hpp"
#include "depthwise/rolling.hpp"
#include "row_share.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Lanes are channels; pixels are read where they lie.
template <class T>
class DepthwiseChannelsLast final : public Depthwise<T> {
  using Base = Depthwise<T>;
  using Base::channels_, Base::destination_, Base::kernels_, Base::multiplier_, Base::plans_,
      Base::problem_, Base::second_pass_, Base::source_pixels_, Base::store_, Base::table_,
      Base::threads_, Base::zeros_, Base::zeros_begin_;

 public:
  DepthwiseChannelsLast(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads) {
    const std::int64_t lanes = table_.lanes;
    zeros_ = round_up(problem.in_channels, lanes);
    std::int64_t units = 0;
    for (DepthwisePhase<T>& plan : plans_) {
      plan.packed_begin = zeros_begin_;
      zeros_begin_ += plan.phase.taps() * round_up(channels_, lanes);
      if (multiplier_ == 1 && channels_ >= lanes) plan.choose_kernel(kernels_, true);
      Tiles tiles;
      tiles.rows = strips(plan.height, plan.block_rows);
      if (plan.kernel != 0) {
        tiles.columns = RollColumns(plan.width);
        lengths_.pointers =
            std::max(lengths_.pointers, plan.depth.taps() * plan.height.steps(plan.block_rows));
        lengths_.columns =
            std::max(lengths_.columns, static_cast<std::int64_t>(tiles.columns.columns.size()));
      } else {
        tiles.blocks = row_blocks(plan);
        lengths_.pointers = std::max(lengths_.pointers, plan.depth.taps() * plan.height.taps() *
                                                            plan.width.steps(kDepthwiseColumns));
      }
      lengths_.weights = std::max(lengths_.weights, plan.depth.taps() * plan.height.taps());
      units += problem.batch * plan.phase.axes[0].count *
               static_cast<std::int64_t>(tiles.rows.size());
      tiles_.push_back(std::move(tiles));
    }
    const std::int64_t vectors = multiplier_ == 1 ? channels_ / lanes : 1;
    share_ = RowShare(units, std::max<std::int64_t>(vectors, 1), vectors, threads);
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }

  /// [phase][vector of channels][tap][lane], then a pixel of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps(), lanes = table_.lanes;
    for (const DepthwisePhase<T>& plan : plans_) {
      for (std::int64_t at = 0; at < channels_; at += lanes) {
        const std::int64_t first = plan.kernel != 0 ? std::min(at, channels_ - lanes) : at;
        const std::int64_t count = std::min(lanes, channels_ - first);
        T* vector = target + plan.packed_begin + at * plan.phase.taps();
        for_each_tap(plan.phase, problem_, [&](std::int64_t place, std::int64_t tap) {
          T* row = vector + place * lanes;
          for (std::int64_t i = 0; i < count; ++i) row[i] = source[(first + i) * taps + tap];
          std::fill(row + count, row + lanes, T(0));
        });
      }
    }
    std::fill(target + zeros_begin_, target + zeros_begin_ + zeros_, T(0));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    const int parts = share_.row_parts * share_.vector_parts;
    parallel(parts, [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (int part = thread; part < parts; part += team) {
        const std::int64_t lanes = table_.lanes;
        const int channel_part = part % share_.vector_parts;
        const Range vectors = Range::share(channels_ / lanes, channel_part, share_.vector_parts);
        const Range channels{vectors.begin * lanes, channel_part + 1 == share_.vector_parts
                                                        ? channels_
                                                        : vectors.end * lanes};
        run_part(call, part / share_.vector_parts, channels, scratch);
      }
    });
  }

 private:
  /// Blocks of a row that lie one after the other and whose pixels exist, or one at a border.
  struct Blocks {
    std::int64_t first;  ///< destination
    int columns;
    std::int64_t blocks;
    Range taps;  ///< of a kernel row, without those that find padding alone
  };
  struct Tiles {
    std::vector<Strip> rows;
    RollColumns columns;         ///< for a fixed kernel
    std::vector<Blocks> blocks;  ///< for kernels of any extent
  };

  std::vector<Blocks> row_blocks(const DepthwisePhase<T>& plan) const {
    std::vector<Blocks> result;
    const DenseAxis& width = plan.width;
    bool last_inside = false;
    for (const Strip& strip : strips(width, kDepthwiseColumns)) {
      const bool inside = width.inside(strip.first, strip.count);
      if (inside && last_inside && result.back().columns == strip.count &&
          strip.first ==
              result.back().first + result.back().blocks * strip.count * width.class_step()) {
        ++result.back().blocks;
        continue;
      }
      result.push_back({strip.first, static_cast<int>(strip.count), 1, taps_inside(width, strip)});
      last_inside = inside;
    }
    return result;
  }

  static Range taps_inside(const DenseAxis& width, const Strip& strip) {
    const auto inside = [&](std::int64_t tap) {
      for (std::int64_t k = 0; k < strip.count; ++k) {
        if (width.source(strip.first, k * width.stride() + tap) >= 0) return true;
      }
      return false;
    };
    Range taps{0, width.taps()};
    while (taps.begin < taps.end && !inside(taps.begin)) ++taps.begin;
    while (taps.end > taps.begin && !inside(taps.end - 1)) --taps.end;
    return taps;
  }

  std::size_t thread_bytes() const noexcept { return lengths_.bytes(); }

  void run_part(const DirectedCall<T>& call, int row_part, const Range& channels,
                std::byte* scratch) const noexcept {
    const SourceLists<T> lists(scratch, lengths_);
    for (std::size_t n = 0; n < plans_.size(); ++n) {
      const DepthwisePhase<T>& plan = plans_[n];
      const Tiles& tiles = tiles_[n];
      lists.list_columns(tiles.columns, call.source.pixel_stride);
      const auto rows = static_cast<std::int64_t>(tiles.rows.size());
      const std::int64_t planes = plan.phase.axes[0].count;
      const Range units = Range::share(problem_.batch * planes * rows, row_part, share_.row_parts);
      for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
        const std::int64_t sample = unit / rows / planes;
        const std::int64_t d = unit / rows % planes;
        const Strip& strip = tiles.rows[unit % rows];
        if (plan.kernel != 0) {
          roll(call, plan, tiles, sample, d, strip, channels, lists);
        } else {
          run_blocks(call, plan, tiles, sample, d, strip.first, channels, lists);
        }
        if (second_pass_) finish(call, plan, sample, d, strip, channels);
      }
    }
  }

  /// The row of the source under step i of the output rows from `first` on; null in zero padding.
  const T* source_row(const DirectedCall<T>& call, const DepthwisePhase<T>& plan,
                      std::int64_t sample, std::int64_t source_plane, std::int64_t first,
                      std::int64_t i) const noexcept {
    const std::int64_t h = plan.height.source(first, i);
    if (h < 0) return nullptr;
    return call.source.sample(sample, 0) +
           (source_plane * source_pixels_[1] + h) * source_pixels_[2] * call.source.pixel_stride;
  }

  void roll(const DirectedCall<T>& call, const DepthwisePhase<T>& plan, const Tiles& tiles,
            std::int64_t sample, std::int64_t d, const Strip& rows, const Range& channels,
            const SourceLists<T>& lists) const noexcept {
    const auto& axes = plan.phase.axes;
    DepthwiseRoll<T> p{};
    p.weight = call.packed + plan.packed_begin;
    p.bias = call.bias;
    p.output_row_stride = plan.height.class_step() * axes[1].step * destination_[2] *
                          call.output.pixel_stride;
    p.output_column_stride = plan.width.class_step() * axes[2].step * call.output.pixel_stride;
    p.channel_begin = channels.begin;
    p.channel_end = channels.end;
    p.store = store_;
    roll_rows(
        kernels_, plan, tiles.columns, lists, call.packed + zeros_begin_, table_.lanes, d, rows, p,
        [&](std::int64_t plane, std::int64_t i) {
          return source_row(call, plan, sample, plane, rows.first, i);
        },
        [&](std::int64_t a) {
          return call.output.sample(sample, 0) +
                 this->destination_pixel(plan, d, rows.first, a) * call.output.pixel_stride;
        });
  }

  void run_blocks(const DirectedCall<T>& call, const DepthwisePhase<T>& plan, const Tiles& tiles,
                  std::int64_t sample, std::int64_t d, std::int64_t row, const Range& channels,
                  const SourceLists<T>& lists) const noexcept {
    const auto& axes = plan.phase.axes;
    const std::int64_t column_step = plan.width.class_step();
    DepthwiseBlocks<T> b{};
    b.pixels = lists.pointers;
    b.slab_weights = lists.weights;
    b.stride = static_cast<int>(plan.width.stride());
    b.weight = call.packed + plan.packed_begin;
    b.vector_weights = plan.phase.taps() * table_.lanes;
    b.bias = call.bias;
    b.output_column_stride = column_step * axes[2].step * call.output.pixel_stride;
    b.channel_begin = channels.begin;
    b.channel_end = channels.end;
    b.multiplier = multiplier_;
    b.store = store_;
    for (const Blocks& blocks : tiles.blocks) {
      b.columns = blocks.columns;
      b.blocks = blocks.blocks;
      b.source_step = blocks.columns * column_step * axes[2].source_step * call.source.pixel_stride;
      b.kernel_width = blocks.taps.end - blocks.taps.begin;
      b.slab_pixels = plan.width.steps(b.columns) - (plan.width.taps() - b.kernel_width);
      b.slabs = 0;
      const T** pixels = lists.pointers;
      for (std::int64_t z = 0; z < plan.depth.taps(); ++z) {
        const std::int64_t plane = plan.depth.source(d, z);
        if (plane < 0) continue;
        for (std::int64_t i = 0; i < plan.height.taps(); ++i) {
          const T* line = source_row(call, plan, sample, plane, row, i);
          if (line == nullptr) continue;
          lists.weights[b.slabs++] =
              (z * plan.plane_taps() + i * plan.width.taps() + blocks.taps.begin) * table_.lanes;
          for (std::int64_t j = 0; j < b.slab_pixels; ++j) {
            const std::int64_t w = plan.width.source(blocks.first, blocks.taps.begin + j);
            *pixels++ = w < 0 ? call.packed + zeros_begin_ : line + w * call.source.pixel_stride;
          }
        }
      }
      b.output = call.output.sample(sample, 0) +
                 this->destination_pixel(plan, d, row, blocks.first) * call.output.pixel_stride;
      kernels_.blocks(b);
    }
  }

  /// What of the epilogue the kernels leave.
  void finish(const DirectedCall<T>& call, const DepthwisePhase<T>& plan, std::int64_t sample,
              std::int64_t d, const Strip& rows, const Range& channels) const noexcept {
    const AxisPhase& width = plan.phase.axes[2];
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t pixel =
          this->destination_pixel(plan, d, rows.first + r * plan.height.class_step(), 0);
      const auto rest = call.epilogue.rest(sample, channels.begin, pixel, width.step);
      table_.epilogue(rest, static_cast<int>(width.count),
                      static_cast<int>(channels.end - channels.begin),
                      call.output.sample(sample, channels.begin) + pixel * call.output.pixel_stride,
                      width.step * call.output.pixel_stride, 1);
    }
  }

  std::vector<Tiles> tiles_;  ///< of each phase
  typename SourceLists<T>::Lengths lengths_;
  RowShare share_;
};

}  // namespace

std::unique_ptr<const Execution> make_depthwise_channels_last(const ConvProblem& problem,
                                                              const Machine& machine, int threads) {
  return make_typed<DepthwiseChannelsLast>(problem, machine, threads);
}

}  // namespace convolith
