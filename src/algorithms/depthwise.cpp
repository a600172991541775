// Depthwise convolution: every output channel reads one input channel, so that memory is what
// counts. Lanes are channels in channels_last, which reads the pixels where they lie; and pixels
// in channels_first, which packs a few rows of a channel with their padding into L1.
//
// Backward-input is a forward for each residue of the stride; of stride 2, kernels of its own
// mostly do all residues together.

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "kernels/depthwise_table.hpp"
#include "narrow_gradient.hpp"
#include "packed_rows.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "stride_two/stride_two.hpp"
#include "taps.hpp"
#include "tolerance.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// What a phase needs in either layout.
template <class T>
struct PhasePlan : DensePhase {
  using DensePhase::DensePhase;

  std::int64_t packed_begin = 0;  ///< of its weights, in elements
  int kernel = 0;                 ///< extent of a fixed kernel, or 0
  std::int64_t block_rows = 1;

  /// Whether height and width are those of a kernel with code of its own.
  void choose_kernel(const DepthwiseKernels<T>& kernels, bool with_width) {
    const std::int64_t taps = height.taps();
    if (width.taps() != taps || (taps != 3 && taps != 5 && taps != 7)) return;
    if (!height.shared() || height.stride() > 2 || phase.taps() > kMaxChain) return;
    if (with_width && (!width.shared() || width.stride() != height.stride())) return;
    kernel = static_cast<int>(taps);
    block_rows = kernels.roll_rows[(taps - 3) / 2];
  }
};

template <class T>
class Depthwise : public Execution {
 public:
  Depthwise(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(*table_.depthwise),
        threads_(threads),
        adjoint_(is_adjoint(problem)),
        channels_(adjoint_ ? problem.in_channels : problem.out_channels),
        multiplier_(problem.out_channels_per_group()) {
    const Extents extents = source_extents(problem);
    destination_ = destination_extents(problem);
    source_pixels_ = extents;
    for (const Phase& phase : phases(problem)) {
      plans_.emplace_back(phase, extents, problem.padding_mode);
    }
    // What the kernels do not do themselves follows while the outputs are in L1.
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = {fused.clamps, fused.least, fused.greatest};
  }

  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(zeros_begin_ + zeros_) * sizeof(T);
  }

 protected:
  std::int64_t destination_pixel(const PhasePlan<T>& plan, std::int64_t d, std::int64_t h,
                                 std::int64_t w) const noexcept {
    const auto& axes = plan.phase.axes;
    return ((axes[0].begin + d * axes[0].step) * destination_[1] + axes[1].begin +
            h * axes[1].step) *
               destination_[2] +
           axes[2].begin + w * axes[2].step;
  }

  /// visit(place, tap): the taps of a phase in order, and their numbers in the caller's array.
  template <class Visit>
  void for_each_tap(const PhasePlan<T>& plan, const Visit& visit) const noexcept {
    std::int64_t place = 0;
    for (const AxisPhase::Tap& d : plan.phase.axes[0].taps) {
      for (const AxisPhase::Tap& h : plan.phase.axes[1].taps) {
        for (const AxisPhase::Tap& w : plan.phase.axes[2].taps) {
          visit(place++, (d.tap * problem_.windows[1].kernel + h.tap) * problem_.windows[2].kernel +
                             w.tap);
        }
      }
    }
  }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const DepthwiseKernels<T>& kernels_;
  int threads_;
  bool adjoint_;
  std::int64_t channels_, multiplier_;
  std::array<std::int64_t, kSpatialAxes> source_pixels_{}, destination_{};
  std::vector<PhasePlan<T>> plans_;
  bool second_pass_;
  SumStore<T> store_{};
  std::int64_t zeros_begin_ = 0, zeros_ = 0;  ///< zeros behind the packed weights
};

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
    for (PhasePlan<T>& plan : plans_) {
      plan.packed_begin = zeros_begin_;
      zeros_begin_ += plan.phase.taps() * round_up(channels_, lanes);
      if (multiplier_ == 1 && channels_ >= lanes) plan.choose_kernel(kernels_, true);
      Tiles tiles;
      tiles.rows = strips(plan.height, plan.block_rows);
      if (plan.kernel != 0) {
        list_columns(plan, tiles);
        most_pointers_ = std::max(most_pointers_,
                                  plan.depth.taps() * plan.height.steps(plan.block_rows));
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
    // Threads share the rows, or the channels where rows are few.
    std::int64_t best = -1;
    const std::int64_t vectors = multiplier_ == 1 ? channels_ / lanes : 1;
    for (int parts = 1; parts <= std::max<std::int64_t>(1, std::min<std::int64_t>(threads, vectors));
         ++parts) {
      const std::int64_t cost =
          divide_up(units, threads / parts) * divide_up(std::max<std::int64_t>(vectors, 1), parts);
      if (best < 0 || cost < best) {
        best = cost;
        channel_parts_ = parts;
        row_parts_ = threads / parts;
      }
    }
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }

  /// [phase][vector of channels][tap][lane], then a pixel of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps(), lanes = table_.lanes;
    for (const PhasePlan<T>& plan : plans_) {
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
    const Call call{typed<T>(adjoint_ ? arguments.y : arguments.x),
                    typed<T>(adjoint_ ? arguments.x : arguments.y),
                    static_cast<const T*>(arguments.bias), BoundEpilogue<T>(problem_, arguments),
                    static_cast<const T*>(packed)};
    const int parts = row_parts_ * channel_parts_;
    parallel(parts, [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (int part = thread; part < parts; part += team) {
        const std::int64_t lanes = table_.lanes;
        const int channel_part = part % channel_parts_;
        const Range vectors = Range::share(channels_ / lanes, channel_part, channel_parts_);
        const Range channels{vectors.begin * lanes, channel_part + 1 == channel_parts_
                                                        ? channels_
                                                        : vectors.end * lanes};
        run_part(call, part / channel_parts_, channels, scratch);
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
  struct Call {
    Maps<T> source, output;
    const T* bias;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  void list_columns(const PhasePlan<T>& plan, Tiles& tiles) const {
    const DenseAxis& width = plan.width;
    for (std::int64_t a = 0; a < width.classes(); ++a) {
      tiles.class_columns.push_back(static_cast<std::int64_t>(tiles.columns.size()));
      const std::int64_t steps = width.steps(width.count(a));
      for (std::int64_t j = 0; j < steps; ++j) tiles.columns.push_back(width.source(a, j));
      // The last outputs take as many steps as the others.
      tiles.columns.insert(tiles.columns.end(), static_cast<std::size_t>(width.stride() - 1), -1);
    }
  }

  std::vector<Blocks> row_blocks(const PhasePlan<T>& plan) const {
    std::vector<Blocks> result;
    const DenseAxis& width = plan.width;
    bool last_inside = false;
    for (const Strip& strip : strips(width, kDepthwiseColumns)) {
      const bool inside = width.inside(strip.first, strip.count);
      if (inside && last_inside && result.back().columns == strip.count &&
          strip.first == result.back().first +
                             result.back().blocks * strip.count * width.class_step()) {
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
    const T** pointers;                  ///< to pixels, or to rows
    std::int64_t* weights;               ///< offsets
    const std::int64_t** row_columns;
    std::int64_t* columns;               ///< offsets of pixels from the begin of a row
    std::int64_t* no_columns;            ///< zeros
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
    lists.no_columns = reinterpret_cast<std::int64_t*>(
        scratch + aligned_bytes<std::int64_t>(most_columns_));
    return lists;
  }

  void run_part(const Call& call, int row_part, const Range& channels,
                std::byte* scratch) const noexcept {
    const Lists lists = lists_in(scratch);
    for (std::size_t n = 0; n < plans_.size(); ++n) {
      const PhasePlan<T>& plan = plans_[n];
      const Tiles& tiles = tiles_[n];
      for (std::size_t j = 0; j < tiles.columns.size(); ++j) {
        lists.columns[j] =
            tiles.columns[j] < 0 ? -1 : tiles.columns[j] * call.source.pixel_stride;
        lists.no_columns[j] = 0;
      }
      const auto rows = static_cast<std::int64_t>(tiles.rows.size());
      const std::int64_t planes = plan.phase.axes[0].count;
      const Range units = Range::share(problem_.batch * planes * rows, row_part, row_parts_);
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
  const T* source_row(const Call& call, const PhasePlan<T>& plan, std::int64_t sample,
                      std::int64_t source_plane, std::int64_t first,
                      std::int64_t i) const noexcept {
    const std::int64_t h = plan.height.source(first, i);
    if (h < 0) return nullptr;
    return call.source.sample(sample, 0) +
           (source_plane * source_pixels_[1] + h) * source_pixels_[2] * call.source.pixel_stride;
  }

  void roll(const Call& call, const PhasePlan<T>& plan, const Tiles& tiles, std::int64_t sample,
            std::int64_t d, const Strip& rows, const Range& channels,
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

  void run_blocks(const Call& call, const PhasePlan<T>& plan, const Tiles& tiles,
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
      b.source_step =
          blocks.columns * column_step * axes[2].source_step * call.source.pixel_stride;
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
  void finish(const Call& call, const PhasePlan<T>& plan, std::int64_t sample, std::int64_t d,
              const Strip& rows, const Range& channels) const noexcept {
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
  int channel_parts_ = 1, row_parts_ = 1;
};

template <class T>
class DepthwiseChannelsFirst final : public Depthwise<T> {
  using Base = Depthwise<T>;
  using Base::adjoint_, Base::channels_, Base::destination_, Base::kernels_, Base::multiplier_,
      Base::plans_, Base::problem_, Base::second_pass_, Base::source_pixels_, Base::store_,
      Base::table_, Base::threads_, Base::zeros_, Base::zeros_begin_;

 public:
  DepthwiseChannelsFirst(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads) {
    const std::int64_t packed_most =
        static_cast<std::int64_t>(machine.l1_bytes / 2 / sizeof(T));
    for (PhasePlan<T>& plan : plans_) {
      plan.packed_begin = zeros_begin_;
      zeros_begin_ += plan.phase.taps() * channels_;
      plan.choose_kernel(kernels_, false);
      Tiles tiles;
      tiles.flat = flat_plane(plan, table_.lanes);
      tiles.packed_elements = tiles.flat.elements;
      if (tiles.flat.elements == 0) plan_rows(plan, packed_most, tiles);
      packed_elements_ = std::max(packed_elements_, tiles.packed_elements);
      packed_rows_ = std::max(packed_rows_, tiles.packed_rows);
      zeros_ = std::max(zeros_, tiles.packing.stride + 2 * table_.lanes);
      tiles_.push_back(std::move(tiles));
    }
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }

  /// [phase][channel][tap], then a row of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps();
    for (const PhasePlan<T>& plan : plans_) {
      const std::int64_t phase_taps = plan.phase.taps();
      this->for_each_tap(plan, [&](std::int64_t place, std::int64_t tap) {
        T* to = target + plan.packed_begin + place;
        for (std::int64_t c = 0; c < channels_; ++c) to[c * phase_taps] = source[c * taps + tap];
      });
    }
    std::fill(target + zeros_begin_, target + zeros_begin_ + zeros_, T(0));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const Call call{typed<T>(adjoint_ ? arguments.y : arguments.x),
                    typed<T>(adjoint_ ? arguments.x : arguments.y),
                    static_cast<const T*>(arguments.bias), BoundEpilogue<T>(problem_, arguments),
                    static_cast<const T*>(packed)};
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
    RowPacking packing;
    std::vector<RowBlock> rows;
    std::vector<std::int64_t> row_sources, plane_weights;
    std::int64_t packed_elements = 0, packed_rows = 0;

    std::int64_t pieces() const noexcept {
      return flat.elements > 0 ? 1 : static_cast<std::int64_t>(rows.size() * packing.blocks.size());
    }
  };
  struct Call {
    Maps<T> source, output;
    const T* bias;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  void plan_rows(const PhasePlan<T>& plan, std::int64_t packed_most, Tiles& tiles) const {
    const DenseAxis& height = plan.height;
    tiles.packing = row_packing(plan, table_.lanes);
    // As many output rows as fit with what they read.
    const std::int64_t planes = std::max<std::int64_t>(1, plan.depth.taps());
    const std::int64_t fitting =
        packed_most / std::max<std::int64_t>(1, planes * tiles.packing.stride);
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
    tiles.packed_elements = tiles.packed_rows * tiles.packing.stride + 2 * table_.lanes;
  }

  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<T>(packed_elements_) + aligned_bytes<const T*>(packed_rows_);
  }

  void run_rows(const Call& call, const PhasePlan<T>& plan, const Tiles& tiles, const Range& units,
                std::byte* scratch) const noexcept {
    const auto& axes = plan.phase.axes;
    DepthwiseRows<T> p{};
    p.packed = reinterpret_cast<T*>(scratch);
    p.packed_stride = tiles.packing.stride;
    p.packed_rows = reinterpret_cast<const T**>(scratch + aligned_bytes<T>(packed_elements_));
    p.zeros = call.packed + zeros_begin_;
    p.kernel_height = plan.height.taps();
    p.kernel_width = plan.width.taps();
    p.tap_columns = tiles.packing.tap_columns.data();
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

  void run_flat(const Call& call, const PhasePlan<T>& plan, const Tiles& tiles, const Range& units,
                std::byte* scratch) const noexcept {
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

  void finish(const Call& call, std::int64_t sample, std::int64_t channel, std::int64_t pixel,
              std::int64_t count, std::int64_t step) const noexcept {
    const auto rest = call.epilogue.rest(sample, channel, pixel, step);
    table_.epilogue(rest, 1, static_cast<int>(count), call.output.sample(sample, channel) + pixel,
                    0, step);
  }

  std::vector<Tiles> tiles_;  ///< of each phase
  std::int64_t packed_elements_ = 0, packed_rows_ = 0;
};

class DepthwiseAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "depthwise"; }
  const char* summary() const noexcept override {
    return "one input channel for each output channel, read once";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      std::string reason = narrow_gradient_refusal(problem);
      if (reason.empty() && problem.in_channels_per_group() > 1) {
        reason = "groups is " + std::to_string(problem.groups) +
                 "; it must equal in_channels, " + std::to_string(problem.in_channels);
      }
      return reason.empty() ? Support{} : Support::no(std::move(reason));
    }
    if (std::string reason = too_long_to_list(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    if (problem.in_channels_per_group() != 1) {
      return Support::no("groups is " + std::to_string(problem.groups) +
                         "; it must equal in_channels, " + std::to_string(problem.in_channels));
    }
    if (is_adjoint(problem) && problem.out_channels_per_group() != 1) {
      return Support::no("backward_input sums over a channel multiplier of " +
                         std::to_string(problem.out_channels_per_group()));
    }
    if (std::string reason = not_in_phases(problem); !reason.empty()) {
      return Support::no(std::move(reason));
    }
    // Chains are folded after kMaxChain / 2 taps at the earliest.
    if (problem.taps() > kMaxChain * kMaxChain / 2) {
      return Support::no("sums of " + std::to_string(problem.taps()) +
                         " products would be folded in a chain above " +
                         std::to_string(kMaxChain));
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    if (problem.direction == Direction::backward_weight) {
      return narrow_gradient_cost(problem, machine);
    }
    const int lanes = lanes_of(problem.dtype, machine);
    const std::int64_t pixels =
        is_adjoint(problem) ? problem.windows[2].input : problem.windows[2].output;
    const std::int64_t extent =
        problem.layout == Layout::channels_last ? problem.out_channels : pixels;
    const double filled =
        static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size());
    constexpr double kForkJoin = 1e-6;
    // Packed rows cost more than pixels whose channels touch, steps of 3 and more a load for each
    // lane, several outputs of a channel a pass each.
    double multiply_adds = problem.layout == Layout::channels_last ? 1 : 0.6;  // a cycle
    if (problem.windows[2].stride > 2) multiply_adds *= 0.2;
    if (problem.out_channels_per_group() > 1) multiply_adds *= 0.5;
    // Rows of taps that find padding alone are left out; of columns, those under a whole block.
    double share = 1;
    if (problem.padding_mode == PaddingMode::zeros) {
      share = share_inside(problem.windows[0]) * share_inside(problem.windows[1]) *
              (1 + share_inside(problem.windows[2])) / 2;
    }
    return std::max(problem.flops() * share /
                        (2 * lanes * machine.cycles_per_second * multiply_adds * filled),
                    bytes / (2 * machine.bytes_per_second)) +
           kForkJoin;
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
      return make_typed<DepthwiseChannelsLast>(problem, machine, threads);
    }
    return make_typed<DepthwiseChannelsFirst>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& depthwise_algorithm() {
  static const DepthwiseAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
