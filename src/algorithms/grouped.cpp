// Convolution in groups of few channels, too few to fill a vector or a panel of weights. In
// channels_last the lanes are the channels of several groups, over which every input channel is
// spread; in channels_first they are pixels, and a group is packed with its padding into L1.
//
// Backward-input is a forward with transposed weights for each residue of the stride; of stride 2,
// kernels of its own mostly do all residues together.

#include <algorithm>
#include <array>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "kernels/grouped_table.hpp"
#include "narrow_gradient.hpp"
#include "packed_rows.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "stride_two/stride_two.hpp"
#include "tolerance.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

constexpr std::int64_t kMostChannels = 16;

template <class T>
struct GroupedCall {
  Maps<T> source, output;
  const T* bias;
  BoundEpilogue<T> epilogue;
  const T* packed;
};

template <class T>
class Grouped : public Execution {
 public:
  Grouped(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(*table_.grouped),
        threads_(threads),
        adjoint_(is_adjoint(problem)),
        channels_(problem.in_channels),
        group_(problem.in_channels_per_group()) {
    const Extents extents = source_extents(problem);
    destination_ = destination_extents(problem);
    for (const Phase& phase : phases(problem)) {
      phases_.emplace_back(phase, extents, problem.padding_mode);
    }
    // What the kernels do not do themselves follows while the outputs are in L1.
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = {fused.clamps, fused.least, fused.greatest};
  }

 protected:
  GroupedCall<T> bind(const ConvArguments& arguments, const void* packed) const noexcept {
    return {typed<T>(adjoint_ ? arguments.y : arguments.x),
            typed<T>(adjoint_ ? arguments.x : arguments.y), static_cast<const T*>(arguments.bias),
            BoundEpilogue<T>(problem_, arguments), static_cast<const T*>(packed)};
  }

  std::int64_t destination_pixel(const DensePhase& phase, std::int64_t d, std::int64_t h,
                                 std::int64_t w) const noexcept {
    const auto& axes = phase.phase.axes;
    return ((axes[0].begin + d * axes[0].step) * destination_[1] + axes[1].begin +
            h * axes[1].step) *
               destination_[2] +
           axes[2].begin + w * axes[2].step;
  }

  /// The caller's weight between two channels of a group under taps of a phase, by number.
  /// A weight's place in the array is the sum of its group's, channels' and tap's.
  std::int64_t group_place(std::int64_t first_channel) const noexcept {
    return first_channel * group_ * problem_.taps();
  }
  std::int64_t produced_stride() const noexcept {
    return (adjoint_ ? 1 : group_) * problem_.taps();
  }
  std::int64_t reduced_stride() const noexcept { return (adjoint_ ? group_ : 1) * problem_.taps(); }
  std::int64_t tap_place(const DensePhase& phase, std::int64_t z, std::int64_t y,
                         std::int64_t x) const noexcept {
    const auto& axes = phase.phase.axes;
    return (axes[0].taps[z].tap * problem_.windows[1].kernel + axes[1].taps[y].tap) *
               problem_.windows[2].kernel +
           axes[2].taps[x].tap;
  }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const GroupedKernels<T>& kernels_;
  int threads_;
  bool adjoint_;
  std::int64_t channels_, group_;
  std::array<std::int64_t, kSpatialAxes> destination_{};
  std::vector<DensePhase> phases_;
  bool second_pass_;
  SumStore<T> store_{};
};

template <class T>
class GroupedChannelsLast final : public Grouped<T> {
  using Base = Grouped<T>;
  using Base::adjoint_, Base::channels_, Base::destination_, Base::group_, Base::kernels_,
      Base::phases_, Base::problem_, Base::second_pass_, Base::store_, Base::table_, Base::threads_;

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
    // Threads share the rows, or the vectors where rows are few.
    std::int64_t best = -1;
    for (int parts = 1; parts <= std::min<std::int64_t>(threads, vectors_); ++parts) {
      const std::int64_t cost = divide_up(units, threads / parts) * divide_up(vectors_, parts);
      if (best < 0 || cost < best) {
        best = cost;
        vector_parts_ = parts;
        row_parts_ = threads / parts;
      }
    }
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
      const std::int64_t elements = phase.depth.taps() * phase.height.taps() *
                                    phase.width.taps() * group_ * table_.lanes;
      parallel_for(threads_, vectors_, [&](std::int64_t vector, int) {
        pack_vector(source, phase, slab_rows, vector, target + vector * elements);
      });
      target += vectors_ * elements;
    }
    std::fill(target, target + channels_, T(0));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const GroupedCall<T> call = this->bind(arguments, packed);
    const int parts = row_parts_ * vector_parts_;
    parallel(parts, [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (int part = thread; part < parts; part += team) {
        run_part(call, part / vector_parts_,
                 Range::share(vectors_, part % vector_parts_, vector_parts_), scratch);
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
          strip.first == result.back().first +
                             result.back().blocks * strip.count * phase.width.class_step()) {
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

  void run_part(const GroupedCall<T>& call, int row_part, const Range& vectors,
                std::byte* scratch) const noexcept {
    for (std::size_t n = 0; n < phases_.size(); ++n) {
      const auto rows = static_cast<std::int64_t>(tiles_[n].rows.size());
      const std::int64_t planes = phases_[n].phase.axes[0].count;
      const Range units = Range::share(problem_.batch * planes * rows, row_part, row_parts_);
      for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
        run_rows(call, phases_[n], tiles_[n], unit / rows / planes, unit / rows % planes,
                 tiles_[n].rows[unit % rows], vectors, scratch);
      }
    }
  }

  void run_rows(const GroupedCall<T>& call, const DensePhase& phase, const Tiles& tiles,
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
  void list_pixels(const GroupedCall<T>& call, const DensePhase& phase, const Tiles& tiles,
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
  int vector_parts_ = 1, row_parts_ = 1;
};

template <class T>
class GroupedChannelsFirst final : public Grouped<T> {
  using Base = Grouped<T>;
  using Base::adjoint_, Base::channels_, Base::destination_, Base::group_, Base::kernels_,
      Base::phases_, Base::problem_, Base::second_pass_, Base::store_, Base::table_, Base::threads_;

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
                  const T* from = source + this->group_place(first) +
                                  c * this->reduced_stride() + this->tap_place(phase, z, y, x);
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
    const GroupedCall<T> call = this->bind(arguments, packed);
    parallel(threads_, [&](int thread, int team) {
      T* scratch = reinterpret_cast<T*>(static_cast<std::byte*>(workspace) + thread_bytes() * thread);
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
    std::int64_t pixel;                     ///< of the first output
    std::size_t sources, vectors;           ///< where its entries begin
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
    const std::int64_t fitting =
        packed_most / std::max<std::int64_t>(1, group_ * planes * packing.stride);
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
            const std::int64_t h =
                i < height.steps(rows.count) ? height.source(rows.first, i) : -1;
            tiles.row_sources.push_back(
                h < 0 || plane < 0 ? -1
                                   : (plane * phase.extents[1] + h) * phase.extents[2]);
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
          tiles.pieces.push_back(
              {this->destination_pixel(phase, d, rows.first, columns.begin), sources, vectors,
               tiles.vector_places.size() - vectors, columns.runs, columns.run_count, rows.first,
               rows.count, columns.count, columns.begin, d});
        }
      }
    }
    tiles.runs = std::move(packing.runs);
  }

  void run_units(const GroupedCall<T>& call, const DensePhase& phase, const Tiles& tiles,
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
  void finish(const GroupedCall<T>& call, const DensePhase& phase, const Piece& piece,
              std::int64_t sample, std::int64_t channel) const noexcept {
    const std::int64_t step = phase.phase.axes[2].step;
    for (std::int64_t r = 0; r < piece.rows; ++r) {
      const std::int64_t pixel =
          this->destination_pixel(phase, piece.d, piece.first_row + r * phase.height.class_step(),
                                  piece.first_column);
      const auto rest = call.epilogue.rest(sample, channel, pixel, step);
      table_.epilogue(rest, static_cast<int>(group_), static_cast<int>(piece.columns),
                      call.output.sample(sample, channel) + pixel, call.output.channel_stride,
                      step);
    }
  }

  std::vector<Tiles> tiles_;  ///< of each phase
  std::int64_t packed_ = 0, elements_ = 0;
};

class GroupedAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "grouped"; }
  const char* summary() const noexcept override {
    return "groups of few channels, several of them in a vector";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      std::string reason = narrow_gradient_refusal(problem);
      if (reason.empty() && problem.in_channels_per_group() == 1) {
        reason = "groups are of 1 channel";
      }
      return reason.empty() ? Support{} : Support::no(std::move(reason));
    }
    if (std::string reason = too_long_to_list(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    const std::int64_t in = problem.in_channels_per_group();
    const std::int64_t out = problem.out_channels_per_group();
    if (problem.groups == 1 || in != out || in < 2 || in > kMostChannels) {
      return Support::no("groups are of " + std::to_string(in) + " channels in and " +
                         std::to_string(out) + " out; it takes several of 2 to " +
                         std::to_string(kMostChannels) + " in and as many out");
    }
    if (std::string reason = not_in_phases(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    const std::int64_t terms = reduction_terms(problem);
    if (terms > kMaxChain * kMaxChain / 2) {
      return Support::no("sums of " + std::to_string(terms) +
                         " products would be folded in a chain above " +
                         std::to_string(kMaxChain));
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) {
      return narrow_gradient_cost(problem, machine);
    }
    const bool wide = problem.dtype == DType::float64;
    const int lanes = lanes_of(problem.dtype, machine);
    const std::int64_t pixels =
        is_adjoint(problem) ? problem.windows[2].input : problem.windows[2].output;
    const std::int64_t group = problem.in_channels_per_group();
    double filled = 0;
    if (problem.layout == Layout::channels_first) {
      filled = static_cast<double>(pixels) / static_cast<double>(round_up(pixels, lanes));
    } else if (group <= lanes) {
      filled = static_cast<double>(lanes / group * group) / static_cast<double>(lanes);
    } else {
      filled = static_cast<double>(group) / static_cast<double>(round_up(group, lanes));
    }
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size());
    constexpr double kForkJoin = 1e-6;
    const double share_of_peak = problem.layout == Layout::channels_last ? 0.9 : 0.75;
    return std::max(problem.flops() / (machine.flops_per_second[wide] * share_of_peak * filled),
                    bytes / (2 * machine.bytes_per_second)) +
           kForkJoin;
  }

  double packing_cost(const ConvProblem& problem, const Machine& /*machine*/) const override {
    if (problem.direction == Direction::backward_weight) return 0;
    constexpr double kElement = 2.5e-9;  // seconds: they are gathered one by one
    return static_cast<double>(problem.weight_size()) * kElement;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.direction == Direction::backward_weight) {
      return make_narrow_gradient(problem, machine, threads);
    }
    if (is_stride_two(problem, machine)) return make_stride_two(problem, machine, threads);
    if (problem.layout == Layout::channels_last) {
      return make_typed<GroupedChannelsLast>(problem, machine, threads);
    }
    return make_typed<GroupedChannelsFirst>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& grouped_algorithm() {
  static const GroupedAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
