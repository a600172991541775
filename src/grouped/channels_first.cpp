#include "grouped/execution.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "grouped/grouped.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Lanes are pixels; a group is packed with its padding into L1.
template <class T>
class GroupedChannelsFirst final : public Grouped<T> {
  using Base = Grouped<T>;
  using Base::channels_, Base::destination_, Base::group_, Base::kernels_, Base::phases_,
      Base::problem_, Base::second_pass_, Base::store_, Base::table_, Base::threads_;

 public:
  GroupedChannelsFirst(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads) {
    const std::int64_t packed_most = static_cast<std::int64_t>(machine.l1_bytes / 2 / sizeof(T));
    for (const DensePhase& phase : phases_) {
      Tiles tiles;
      tiles.packed_begin = packed_;
      packed_ += channels_ * phase.phase.taps() * group_;
      if (!plan_flat(phase, tiles)) plan_rows(phase, packed_most, tiles);
      elements_ = std::max(elements_, tiles.channel_elements * group_ + 2 * table_.lanes);
      tiles_.push_back(std::move(tiles));
    }
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }
  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(packed_) * sizeof(T);
  }

  /// [phase][group][block of channels][channel][tap][channel of the block]
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    for (const DensePhase& phase : phases_) {
      for (std::int64_t first = 0; first < channels_; first += group_) {
        for (std::int64_t k = 0; k < group_; k += kernels_.channel_block) {
          const std::int64_t end = std::min<std::int64_t>(group_, k + kernels_.channel_block);
          for (std::int64_t c = 0; c < group_; ++c) {
            for (std::int64_t z = 0; z < phase.depth.taps(); ++z) {
              for (std::int64_t y = 0; y < phase.height.taps(); ++y) {
                for (std::int64_t x = 0; x < phase.width.taps(); ++x) {
                  const T* from = source + this->group_place(first) + c * this->reduced_stride() +
                                  this->tap_place(phase, z, y, x);
                  for (std::int64_t m = k; m < end; ++m) {
                    *target++ = from[m * this->produced_stride()];
                  }
                }
              }
            }
          }
        }
      }
    }
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    parallel(threads_, [&](int thread, int team) {
      T* scratch =
          reinterpret_cast<T*>(static_cast<std::byte*>(workspace) + thread_bytes() * thread);
      for (std::size_t n = 0; n < phases_.size(); ++n) {
        std::fill(scratch, scratch + elements_, T(0));
        const auto pieces = static_cast<std::int64_t>(tiles_[n].pieces.size());
        run_units(call, phases_[n], tiles_[n],
                  Range::share(problem_.batch * problem_.groups * pieces, thread, team), scratch);
      }
    });
  }

 private:
  /// Output vectors that are computed from one filling of the buffer.
  struct Piece {
    std::int64_t pixel;            ///< of the first output
    std::size_t sources, vectors;  ///< where its entries begin
    std::size_t vector_count;
    std::size_t runs, run_count;
    std::int64_t first_row, rows, columns;  ///< for the second pass
    std::int64_t first_column, d;
  };
  struct Tiles {
    bool flat = false;
    std::vector<Piece> pieces;
    std::vector<std::int64_t> row_sources, row_places;  ///< row_places: the same for all pieces
    std::int64_t row_length = 0;
    std::vector<PackedRun> runs;
    std::vector<std::int64_t> term_places, vector_places, vector_outputs;
    std::vector<std::int32_t> vector_counts, lanes;
    std::int64_t channel_elements = 0, packed_begin = 0;
  };

  std::size_t thread_bytes() const noexcept { return aligned_bytes<T>(elements_); }

  void list_terms(const std::vector<std::int64_t>& tap_places, Tiles& tiles) const {
    for (std::int64_t c = 0; c < group_; ++c) {
      for (std::int64_t place : tap_places) {
        tiles.term_places.push_back(c * tiles.channel_elements + place);
      }
    }
  }

  bool plan_flat(const DensePhase& phase, Tiles& tiles) const {
    FlatPlane plane = flat_plane(phase, table_.lanes);
    if (plane.elements == 0) return false;
    tiles.flat = true;
    tiles.channel_elements = plane.elements;
    list_terms(plane.tap_places, tiles);
    tiles.row_sources = std::move(plane.row_sources);
    tiles.row_places = std::move(plane.row_places);
    tiles.runs = std::move(plane.runs);
    tiles.lanes = std::move(plane.lanes);
    const auto outputs = static_cast<std::int32_t>(phase.phase.pixels());
    for (std::size_t v = 0; v < plane.places.size(); ++v) {
      tiles.vector_places.push_back(static_cast<std::int64_t>(v) * table_.lanes);
      tiles.vector_outputs.push_back(plane.places[v]);
      // More than it keeps, where the next vector writes after it.
      tiles.vector_counts.push_back(std::min(table_.lanes, outputs - plane.places[v]));
    }
    tiles.pieces.push_back({0, 0, 0, plane.places.size(), 0, tiles.runs.size(), 0,
                            phase.phase.axes[1].count, phase.phase.axes[2].count, 0, 0});
    return true;
  }

  void plan_rows(const DensePhase& phase, std::int64_t packed_most, Tiles& tiles) const {
    const auto& axes = phase.phase.axes;
    const DenseAxis& height = phase.height;
    const std::int64_t lanes = table_.lanes;
    RowPacking packing = row_packing(phase, lanes);
    tiles.row_length = packing.stride;
    const std::int64_t planes = phase.depth.taps();
    const std::int64_t fitting = packed_most /
                                 std::max<std::int64_t>(1, group_ * planes * packing.stride);
    const std::int64_t most_rows = std::max<std::int64_t>(
        1, height.stride() > 0 ? (fitting - height.taps()) / height.stride() + 1 : 64);
    const std::vector<Strip> row_strips = strips(height, most_rows);
    std::int64_t plane_rows = 0;
    for (const Strip& rows : row_strips) {
      plane_rows = std::max(plane_rows, height.steps(rows.count));
    }
    tiles.channel_elements = planes * plane_rows * packing.stride;
    for (std::int64_t i = 0; i < planes * plane_rows; ++i) {
      tiles.row_places.push_back(i * packing.stride);
    }
    std::vector<std::int64_t> tap_places;
    for (std::int64_t z = 0; z < planes; ++z) {
      for (std::int64_t y = 0; y < height.taps(); ++y) {
        for (std::int64_t column : packing.tap_columns) {
          tap_places.push_back((z * plane_rows + y) * packing.stride + column);
        }
      }
    }
    list_terms(tap_places, tiles);
    for (std::int64_t d = 0; d < axes[0].count; ++d) {
      for (const Strip& rows : row_strips) {
        const std::size_t sources = tiles.row_sources.size();
        for (std::int64_t z = 0; z < planes; ++z) {
          const std::int64_t plane = phase.depth.source(d, z);
          for (std::int64_t i = 0; i < plane_rows; ++i) {
            const std::int64_t h = i < height.steps(rows.count) ? height.source(rows.first, i) : -1;
            tiles.row_sources.push_back(
                h < 0 || plane < 0 ? -1 : (plane * phase.extents[1] + h) * phase.extents[2]);
          }
        }
        for (const RowPacking::Columns& columns : packing.blocks) {
          const std::size_t vectors = tiles.vector_places.size();
          for (std::int64_t r = 0; r < rows.count; ++r) {
            for (std::int64_t w = 0; w < columns.count; w += lanes) {
              tiles.vector_places.push_back(r * height.stride() * packing.stride + w);
              tiles.vector_outputs.push_back(
                  r * height.class_step() * axes[1].step * destination_[2] + w * axes[2].step);
              tiles.vector_counts.push_back(
                  static_cast<std::int32_t>(std::min(lanes, columns.count - w)));
            }
          }
          tiles.pieces.push_back({this->destination_pixel(phase, d, rows.first, columns.begin),
                                  sources, vectors, tiles.vector_places.size() - vectors,
                                  columns.runs, columns.run_count, rows.first, rows.count,
                                  columns.count, columns.begin, d});
        }
      }
    }
    tiles.runs = std::move(packing.runs);
  }

  void run_units(const DirectedCall<T>& call, const DensePhase& phase, const Tiles& tiles,
                 const Range& units, T* scratch) const noexcept {
    const auto& axes = phase.phase.axes;
    GroupedRows<T> p{};
    p.source_channel_stride = call.source.channel_stride;
    p.channels = group_;
    p.row_places = tiles.row_places.data();
    p.row_count = static_cast<std::int64_t>(tiles.row_places.size());
    p.row_length = tiles.row_length;
    p.packed = scratch;
    p.packed_channel_stride = tiles.channel_elements;
    p.term_places = tiles.term_places.data();
    p.terms = static_cast<std::int64_t>(tiles.term_places.size());
    p.lanes = tiles.flat ? tiles.lanes.data() : nullptr;
    p.output_channel_stride = call.output.channel_stride;
    p.output_column_stride = axes[2].step;
    p.store = store_;
    const auto pieces = static_cast<std::int64_t>(tiles.pieces.size());
    for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
      const Piece& piece = tiles.pieces[unit % pieces];
      const std::int64_t channel = unit / pieces % problem_.groups * group_;
      const std::int64_t sample = unit / pieces / problem_.groups;
      p.source = call.source.sample(sample, channel);
      p.row_sources = tiles.row_sources.data() + piece.sources;
      p.runs = tiles.runs.data() + piece.runs;
      p.run_count = static_cast<std::int64_t>(piece.run_count);
      p.vector_places = tiles.vector_places.data() + piece.vectors;
      p.vector_outputs = tiles.vector_outputs.data() + piece.vectors;
      p.vector_counts = tiles.vector_counts.data() + piece.vectors;
      p.vectors = static_cast<std::int64_t>(piece.vector_count);
      p.weight = call.packed + tiles.packed_begin + channel * p.terms;
      p.bias = call.bias != nullptr ? call.bias + channel : nullptr;
      p.output = call.output.sample(sample, channel) + piece.pixel;
      kernels_.rows(p);
      if (second_pass_) finish(call, phase, piece, sample, channel);
    }
  }

  /// What of the epilogue the kernels leave.
  void finish(const DirectedCall<T>& call, const DensePhase& phase, const Piece& piece,
              std::int64_t sample, std::int64_t channel) const noexcept {
    const std::int64_t step = phase.phase.axes[2].step;
    for (std::int64_t r = 0; r < piece.rows; ++r) {
      const std::int64_t pixel = this->destination_pixel(
          phase, piece.d, piece.first_row + r * phase.height.class_step(), piece.first_column);
      const auto rest = call.epilogue.rest(sample, channel, pixel, step);
      table_.epilogue(rest, static_cast<int>(group_), static_cast<int>(piece.columns),
                      call.output.sample(sample, channel) + pixel, call.output.channel_stride,
                      step);
    }
  }

  std::vector<Tiles> tiles_;  ///< of each phase
  std::int64_t packed_ = 0, elements_ = 0;
};

}  // namespace

std::unique_ptr<const Execution> make_grouped_channels_first(const ConvProblem& problem,
                                                             const Machine& machine, int threads) {
  return make_typed<GroupedChannelsFirst>(problem, machine, threads);
}

}  // namespace convolith
