#include "grouped/execution.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "arithmetic.hpp"
#include "grouped/grouped.hpp"
#include "row_share.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Lanes are the channels of several groups, over which every input channel is spread.
template <class T>
class GroupedChannelsLast final : public Grouped<T> {
  using Base = Grouped<T>;
  using Base::channels_, Base::destination_, Base::group_, Base::kernels_, Base::phases_,
      Base::problem_, Base::second_pass_, Base::store_, Base::table_, Base::threads_;

 public:
  GroupedChannelsLast(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads) {
    const std::int64_t lanes = table_.lanes;
    several_ = group_ <= lanes;
    span_ = several_ ? lanes / group_ * group_ : lanes;
    group_vectors_ = several_ ? 1 : divide_up(group_, lanes);
    vectors_ = several_ ? divide_up(channels_, span_) : problem.groups * group_vectors_;
    std::int64_t units = 0;
    for (const DensePhase& phase : phases_) {
      Tiles tiles;
      tiles.fixed = lanes % group_ == 0 && channels_ % lanes == 0 && phase.height.taps() == 3 &&
                    phase.width.taps() == 3 && phase.height.shared() && phase.width.shared() &&
                    phase.height.stride() == phase.width.stride() && phase.width.stride() <= 2 &&
                    phase.phase.taps() * group_ <= kMaxChain;
      const std::int64_t block_rows = tiles.fixed ? kernels_.block_rows : 1;
      const std::int64_t block_columns = tiles.fixed ? kernels_.block_columns : kGroupedColumns;
      tiles.rows = strips(phase.height, block_rows);
      tiles.blocks = row_blocks(phase, block_columns);
      tiles.packed_begin = packed_;
      packed_ += vectors_ * phase.phase.taps() * group_ * lanes;
      most_slabs_ = std::max(most_slabs_, phase.depth.taps() * phase.height.taps());
      most_pixels_ = std::max(
          most_pixels_, phase.depth.taps() * phase.width.steps(block_columns) *
                            (tiles.fixed ? phase.height.steps(block_rows) : phase.height.taps()));
      units += problem.batch * phase.phase.axes[0].count *
               static_cast<std::int64_t>(tiles.rows.size());
      tiles_.push_back(std::move(tiles));
    }
    share_ = RowShare(units, vectors_, vectors_, threads);
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }
  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(packed_ + channels_) * sizeof(T);
  }

  /// [phase][vector][slab][channel of the group][tap of the slab][lane], then a pixel of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    for (std::size_t n = 0; n < phases_.size(); ++n) {
      const DensePhase& phase = phases_[n];
      const std::int64_t slab_rows = tiles_[n].fixed ? phase.height.taps() : 1;
      const std::int64_t elements = phase.depth.taps() * phase.height.taps() * phase.width.taps() *
                                    group_ * table_.lanes;
      parallel_for(threads_, vectors_, [&](std::int64_t vector, int) {
        pack_vector(source, phase, slab_rows, vector, target + vector * elements);
      });
      target += vectors_ * elements;
    }
    std::fill(target, target + channels_, T(0));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    const int parts = share_.row_parts * share_.vector_parts;
    parallel(parts, [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (int part = thread; part < parts; part += team) {
        run_part(call, part / share_.vector_parts,
                 Range::share(vectors_, part % share_.vector_parts, share_.vector_parts), scratch);
      }
    });
  }

 private:
  /// Blocks of a row that lie one after the other and whose pixels exist, or one at a border.
  struct Blocks {
    std::int64_t first;  ///< destination
    int columns;
    std::int64_t blocks;
  };
  struct Tiles {
    bool fixed;
    std::vector<Strip> rows;
    std::vector<Blocks> blocks;
    std::int64_t packed_begin;
  };

  /// The output channel of a lane, or -1.
  void pack_vector(const T* source, const DensePhase& phase, std::int64_t slab_rows,
                   std::int64_t vector, T* target) const noexcept {
    std::array<std::int64_t, kAlignment / sizeof(T)> lane_places;  // -1: an empty lane
    for (int i = 0; i < table_.lanes; ++i) {
      const std::int64_t channel = channel_of(vector, i);
      lane_places[i] = channel < 0 ? -1
                                   : this->group_place(channel / group_ * group_) +
                                         channel % group_ * this->produced_stride();
    }
    for (std::int64_t z = 0; z < phase.depth.taps(); ++z) {
      for (std::int64_t row = 0; row < phase.height.taps(); row += slab_rows) {
        for (std::int64_t c = 0; c < group_; ++c) {
          for (std::int64_t y = row; y < row + slab_rows; ++y) {
            for (std::int64_t x = 0; x < phase.width.taps(); ++x) {
              const T* from = source + c * this->reduced_stride() + this->tap_place(phase, z, y, x);
              for (int i = 0; i < table_.lanes; ++i) {
                *target++ = lane_places[i] < 0 ? T(0) : from[lane_places[i]];
              }
            }
          }
        }
      }
    }
  }

  std::int64_t channel_of(std::int64_t vector, std::int64_t lane) const noexcept {
    if (several_) {
      const std::int64_t channel = vector * span_ + lane;
      return lane < span_ && channel < channels_ ? channel : -1;
    }
    const std::int64_t in_group = vector % group_vectors_ * span_ + lane;
    return in_group < group_ ? vector / group_vectors_ * group_ + in_group : -1;
  }

  /// Output channels of vectors [begin, end).
  Range channels_of(const Range& vectors) const noexcept {
    const auto first = [&](std::int64_t vector) {
      if (several_) return std::min(channels_, vector * span_);
      return vector / group_vectors_ * group_ + vector % group_vectors_ * span_;
    };
    return {first(vectors.begin), first(vectors.end)};
  }

  std::vector<Blocks> row_blocks(const DensePhase& phase, std::int64_t most) const {
    std::vector<Blocks> result;
    bool last_inside = false;
    for (const Strip& strip : strips(phase.width, most)) {
      const bool inside = phase.width.inside(strip.first, strip.count);
      if (inside && last_inside && result.back().columns == strip.count &&
          strip.first ==
              result.back().first + result.back().blocks * strip.count * phase.width.class_step()) {
        ++result.back().blocks;
        continue;
      }
      result.push_back({strip.first, static_cast<int>(strip.count), 1});
      last_inside = inside;
    }
    return result;
  }

  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<const T*>(most_pixels_) + aligned_bytes<std::int64_t>(most_slabs_);
  }

  void run_part(const DirectedCall<T>& call, int row_part, const Range& vectors,
                std::byte* scratch) const noexcept {
    for (std::size_t n = 0; n < phases_.size(); ++n) {
      const auto rows = static_cast<std::int64_t>(tiles_[n].rows.size());
      const std::int64_t planes = phases_[n].phase.axes[0].count;
      const Range units = Range::share(problem_.batch * planes * rows, row_part, share_.row_parts);
      for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
        run_rows(call, phases_[n], tiles_[n], unit / rows / planes, unit / rows % planes,
                 tiles_[n].rows[unit % rows], vectors, scratch);
      }
    }
  }

  void run_rows(const DirectedCall<T>& call, const DensePhase& phase, const Tiles& tiles,
                std::int64_t sample, std::int64_t d, const Strip& rows, const Range& vectors,
                std::byte* scratch) const noexcept {
    auto* pixels = reinterpret_cast<const T**>(scratch);
    auto* slab_weights =
        reinterpret_cast<std::int64_t*>(scratch + aligned_bytes<const T*>(most_pixels_));
    const auto& axes = phase.phase.axes;
    const std::int64_t column_step = phase.width.class_step();
    GroupedBlocks<T> b{};
    b.pixels = pixels;
    b.slab_weights = slab_weights;
    b.stride = static_cast<int>(phase.width.stride());
    b.kernel_width = phase.width.taps();
    b.rows = static_cast<int>(rows.count);
    b.group_channels = group_;
    b.channels = channels_;
    b.weight = call.packed + tiles.packed_begin;
    b.vector_weights = phase.phase.taps() * group_ * table_.lanes;
    b.bias = call.bias;
    b.output_row_stride = phase.height.class_step() * axes[1].step * destination_[2] *
                          call.output.pixel_stride;
    b.output_column_stride = column_step * axes[2].step * call.output.pixel_stride;
    b.vector_begin = vectors.begin;
    b.vector_end = vectors.end;
    b.store = store_;
    // A pixel of zeros does not move on from block to block.
    const bool movable = !tiles.fixed || phase.height.inside(rows.first, rows.count);
    for (const Blocks& all : tiles.blocks) {
      b.columns = all.columns;
      b.blocks = movable ? all.blocks : 1;
      b.source_step = all.columns * column_step * axes[2].source_step * call.source.pixel_stride;
      for (std::int64_t n = 0; n < all.blocks; n += b.blocks) {
        const std::int64_t first = all.first + n * all.columns * column_step;
        list_pixels(call, phase, tiles, sample, d, rows, first, pixels, slab_weights, b);
        b.output = call.output.sample(sample, 0) +
                   this->destination_pixel(phase, d, rows.first, first) * call.output.pixel_stride;
        kernels_.blocks(b, tiles.fixed);
      }
    }
    if (!second_pass_) return;
    const Range channels = channels_of(vectors);
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t pixel =
          this->destination_pixel(phase, d, rows.first + r * phase.height.class_step(), 0);
      const auto rest = call.epilogue.rest(sample, channels.begin, pixel, axes[2].step);
      table_.epilogue(rest, static_cast<int>(axes[2].count),
                      static_cast<int>(channels.end - channels.begin),
                      call.output.sample(sample, channels.begin) + pixel * call.output.pixel_stride,
                      axes[2].step * call.output.pixel_stride, 1);
    }
  }

  /// The pixels under a block that begins at column `first`, slab by slab. Those in zero padding
  /// are a pixel of zeros; kernels of any extent leave out rows that are.
  void list_pixels(const DirectedCall<T>& call, const DensePhase& phase, const Tiles& tiles,
                   std::int64_t sample, std::int64_t d, const Strip& rows, std::int64_t first,
                   const T** pixels, std::int64_t* slab_weights,
                   GroupedBlocks<T>& b) const noexcept {
    const std::int64_t columns = phase.width.steps(b.columns);
    const std::int64_t lines = phase.height.steps(rows.count);
    const std::int64_t tap_weights = group_ * table_.lanes;
    const T* zeros = call.packed + packed_;
    b.slabs = 0;
    b.slab_pixels = tiles.fixed ? lines * columns : columns;
    for (std::int64_t z = 0; z < phase.depth.taps(); ++z) {
      const std::int64_t plane = phase.depth.source(d, z);
      if (plane < 0) continue;
      for (std::int64_t i = 0; i < lines; ++i) {
        const std::int64_t h = phase.height.source(rows.first, i);
        if (!tiles.fixed) {
          if (h < 0) continue;
          slab_weights[b.slabs++] = (z * phase.plane_taps() + i * phase.width.taps()) * tap_weights;
        }
        const T* line = call.source.sample(sample, 0) + (plane * phase.extents[1] + h) *
                                                            phase.extents[2] *
                                                            call.source.pixel_stride;
        for (std::int64_t j = 0; j < columns; ++j) {
          const std::int64_t w = phase.width.source(first, j);
          *pixels++ = h < 0 || w < 0 ? zeros : line + w * call.source.pixel_stride;
        }
      }
      if (tiles.fixed) slab_weights[b.slabs++] = z * phase.plane_taps() * tap_weights;
    }
  }

  bool several_;                ///< groups in a vector, or one at most
  std::int64_t span_;           ///< channels in a vector
  std::int64_t group_vectors_;  ///< vectors of a group, where several
  std::int64_t vectors_;
  std::vector<Tiles> tiles_;  ///< of each phase
  std::int64_t packed_ = 0, most_pixels_ = 0, most_slabs_ = 0;
  RowShare share_;
};

}  // namespace

std::unique_ptr<const Execution> make_grouped_channels_last(const ConvProblem& problem,
                                                            const Machine& machine, int threads) {
  return make_typed<GroupedChannelsLast>(problem, machine, threads);
}

}  // namespace convolith
