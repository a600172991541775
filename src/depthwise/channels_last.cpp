#include "depthwise/execution.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "depthwise/depthwise.hpp"
#include "row_share.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Lanes are channels; pixels are read where they lie.
template <class T>
class DepthwiseChannelsLast final : public Depthwise<T> {
  using Base = Depthwise<T>;
  using Base::adjoint_, Base::channels_, Base::destination_, Base::kernels_, Base::multiplier_,
      Base::plans_, Base::problem_, Base::second_pass_, Base::source_pixels_, Base::store_,
      Base::table_, Base::threads_, Base::zeros_, Base::zeros_begin_;

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
        list_columns(plan, tiles);
        most_pointers_ =
            std::max(most_pointers_, plan.depth.taps() * plan.height.steps(plan.block_rows));
        most_columns_ = std::max(most_columns_, static_cast<std::int64_t>(tiles.columns.size()));
      } else {
        tiles.blocks = row_blocks(plan);
        most_pointers_ = std::max(most_pointers_, plan.depth.taps() * plan.height.taps() *
                                                      plan.width.steps(kDepthwiseColumns));
      }
      most_slabs_ = std::max(most_slabs_, plan.depth.taps() * plan.height.taps());
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
        this->for_each_tap(plan, [&](std::int64_t place, std::int64_t tap) {
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
    const DepthwiseCall<T> call = this->bind(arguments, packed);
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
    std::vector<Blocks> blocks;         ///< for kernels of any extent
    std::vector<std::int64_t> columns;  ///< of the source for every step of every class, or -1
    std::vector<std::int64_t> class_columns;  ///< where those of a class begin
  };

  void list_columns(const DepthwisePhase<T>& plan, Tiles& tiles) const {
    const DenseAxis& width = plan.width;
    for (std::int64_t a = 0; a < width.classes(); ++a) {
      tiles.class_columns.push_back(static_cast<std::int64_t>(tiles.columns.size()));
      const std::int64_t steps = width.steps(width.count(a));
      for (std::int64_t j = 0; j < steps; ++j) tiles.columns.push_back(width.source(a, j));
      // The last outputs take as many steps as the others.
      tiles.columns.insert(tiles.columns.end(), static_cast<std::size_t>(width.stride() - 1), -1);
    }
  }

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

  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<const T*>(most_pointers_) + aligned_bytes<std::int64_t>(most_slabs_) +
           aligned_bytes<const std::int64_t*>(most_pointers_) +
           2 * aligned_bytes<std::int64_t>(most_columns_);
  }

  /// A thread's part of the workspace.
  struct Lists {
    const T** pointers;     ///< to pixels, or to rows
    std::int64_t* weights;  ///< offsets
    const std::int64_t** row_columns;
    std::int64_t* columns;     ///< offsets of pixels from the begin of a row
    std::int64_t* no_columns;  ///< zeros
  };

  Lists lists_in(std::byte* scratch) const noexcept {
    Lists lists{};
    lists.pointers = reinterpret_cast<const T**>(scratch);
    scratch += aligned_bytes<const T*>(most_pointers_);
    lists.weights = reinterpret_cast<std::int64_t*>(scratch);
    scratch += aligned_bytes<std::int64_t>(most_slabs_);
    lists.row_columns = reinterpret_cast<const std::int64_t**>(scratch);
    scratch += aligned_bytes<const std::int64_t*>(most_pointers_);
    lists.columns = reinterpret_cast<std::int64_t*>(scratch);
    lists.no_columns =
        reinterpret_cast<std::int64_t*>(scratch + aligned_bytes<std::int64_t>(most_columns_));
    return lists;
  }

  void run_part(const DepthwiseCall<T>& call, int row_part, const Range& channels,
                std::byte* scratch) const noexcept {
    const Lists lists = lists_in(scratch);
    for (std::size_t n = 0; n < plans_.size(); ++n) {
      const DepthwisePhase<T>& plan = plans_[n];
      const Tiles& tiles = tiles_[n];
      for (std::size_t j = 0; j < tiles.columns.size(); ++j) {
        lists.columns[j] = tiles.columns[j] < 0 ? -1 : tiles.columns[j] * call.source.pixel_stride;
        lists.no_columns[j] = 0;
      }
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
  const T* source_row(const DepthwiseCall<T>& call, const DepthwisePhase<T>& plan,
                      std::int64_t sample, std::int64_t source_plane, std::int64_t first,
                      std::int64_t i) const noexcept {
    const std::int64_t h = plan.height.source(first, i);
    if (h < 0) return nullptr;
    return call.source.sample(sample, 0) +
           (source_plane * source_pixels_[1] + h) * source_pixels_[2] * call.source.pixel_stride;
  }

  void roll(const DepthwiseCall<T>& call, const DepthwisePhase<T>& plan, const Tiles& tiles,
            std::int64_t sample, std::int64_t d, const Strip& rows, const Range& channels,
            const Lists& lists) const noexcept {
    const auto& axes = plan.phase.axes;
    DepthwiseRoll<T> p{};
    p.rows = lists.pointers;
    p.row_columns = lists.row_columns;
    p.columns = lists.columns;
    p.plane_rows = plan.height.steps(rows.count);
    p.plane_weights = lists.weights;
    std::int64_t listed = 0;
    for (std::int64_t z = 0; z < plan.depth.taps(); ++z) {
      const std::int64_t plane = plan.depth.source(d, z);
      if (plane < 0) continue;
      lists.weights[p.planes++] = z * plan.plane_taps() * table_.lanes;
      for (std::int64_t i = 0; i < p.plane_rows; ++i) {
        const T* row = source_row(call, plan, sample, plane, rows.first, i);
        lists.pointers[listed] = row != nullptr ? row : call.packed + zeros_begin_;
        lists.row_columns[listed++] = row != nullptr ? lists.columns : lists.no_columns;
      }
    }
    p.stride = static_cast<int>(plan.width.stride());
    p.output_rows = static_cast<int>(rows.count);
    p.weight = call.packed + plan.packed_begin;
    p.vector_weights = plan.phase.taps() * table_.lanes;
    p.bias = call.bias;
    p.output_row_stride = plan.height.class_step() * axes[1].step * destination_[2] *
                          call.output.pixel_stride;
    p.output_column_stride = plan.width.class_step() * axes[2].step * call.output.pixel_stride;
    p.channel_begin = channels.begin;
    p.channel_end = channels.end;
    p.store = store_;
    for (std::int64_t a = 0; a < plan.width.classes(); ++a) {
      p.first_column = tiles.class_columns[a];
      p.output_columns = plan.width.count(a);
      p.output = call.output.sample(sample, 0) +
                 this->destination_pixel(plan, d, rows.first, a) * call.output.pixel_stride;
      kernels_.roll(p, plan.kernel);
    }
  }

  void run_blocks(const DepthwiseCall<T>& call, const DepthwisePhase<T>& plan, const Tiles& tiles,
                  std::int64_t sample, std::int64_t d, std::int64_t row, const Range& channels,
                  const Lists& lists) const noexcept {
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
  void finish(const DepthwiseCall<T>& call, const DepthwisePhase<T>& plan, std::int64_t sample,
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
  std::int64_t most_pointers_ = 0, most_slabs_ = 0, most_columns_ = 0;
  RowShare share_;
};

}  // namespace

std::unique_ptr<const Execution> make_depthwise_channels_last(const ConvProblem& problem,
                                                              const Machine& machine, int threads) {
  return make_typed<DepthwiseChannelsLast>(problem, machine, threads);
}

}  // namespace convolith
