// Depthwise convolution: every output channel reads one input channel, so that memory is what
// counts. Lanes are channels in channels_last, which reads the pixels where they lie; and pixels
// in channels_first, which packs a few rows of a channel with their padding into L1.
//
// Backward-input is a forward for each residue of the stride.

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "arithmetic.hpp"
#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "tolerance.hpp"

namespace convolith {
namespace {

constexpr std::int64_t kMostPhases = 256;

bool is_adjoint(const ConvProblem& problem) {
  return problem.direction == Direction::backward_input;
}

/// One axis of a phase, as kernels without dilation see it. Destinations fall into classes
/// a, a + classes, a + 2 classes, ...; those of a class read sources `gap` apart, neighbours
/// `stride` steps of the gap from each other.
class DenseAxis {
 public:
  DenseAxis(const AxisPhase& phase, std::int64_t extent, PaddingMode mode)
      : phase_(phase), extent_(extent), mode_(mode) {
    const auto taps = static_cast<std::int64_t>(phase.taps.size());
    gap_ = taps > 1 ? phase.taps[1].offset - phase.taps[0].offset : 1;
    const std::int64_t common = std::gcd(gap_, phase.source_step);
    classes_ = gap_ / common;
    stride_ = phase.source_step / common;
    shared_ = stride_ <= taps;
    if (!shared_) stride_ = taps;
  }

  std::int64_t taps() const noexcept { return static_cast<std::int64_t>(phase_.taps.size()); }
  std::int64_t classes() const noexcept { return std::min(classes_, phase_.count); }
  std::int64_t class_step() const noexcept { return classes_; }
  std::int64_t count(std::int64_t a) const noexcept {
    return divide_up(phase_.count - a, classes_);
  }
  /// Steps from one destination of a class to the next; as many as there are taps where
  /// neighbours share none.
  std::int64_t stride() const noexcept { return stride_; }
  bool shared() const noexcept { return shared_; }
  std::int64_t extent() const noexcept { return extent_; }
  const AxisPhase& phase() const noexcept { return phase_; }

  /// Steps that `destinations` neighbours of a class read.
  std::int64_t steps(std::int64_t destinations) const noexcept {
    return destinations == 0 || taps() == 0 ? 0 : (destinations - 1) * stride_ + taps();
  }

  /// Coordinate, padding counted, of a step of the destinations from `first` on.
  std::int64_t coordinate(std::int64_t first, std::int64_t step) const noexcept {
    std::int64_t tap = step;
    if (!shared_) {
      first += step / taps() * classes_;
      tap = step % taps();
    }
    return first * phase_.source_step + tap * gap_ + phase_.taps[0].offset;
  }

  /// The source at that step, or -1 for zero.
  std::int64_t source(std::int64_t first, std::int64_t step) const noexcept {
    return padded_source(coordinate(first, step), extent_, mode_);
  }

  /// Whether the coordinates of all the steps of `destinations` neighbours exist.
  bool inside(std::int64_t first, std::int64_t destinations) const noexcept {
    const std::int64_t last = first + (destinations - 1) * classes_;
    return taps() > 0 && coordinate(first, 0) >= 0 &&
           last * phase_.source_step + phase_.taps.back().offset < extent_;
  }

 private:
  AxisPhase phase_;
  std::int64_t extent_;
  PaddingMode mode_;
  std::int64_t gap_, classes_, stride_;
  bool shared_;
};

/// Neighbours of a class: destinations first, first + class_step, ... of an axis.
struct Strip {
  std::int64_t first, count;
};

/// A class's destinations in strips of at most `most`, none much shorter than the others.
std::vector<Strip> strips(const DenseAxis& axis, std::int64_t most) {
  std::vector<Strip> result;
  for (std::int64_t a = 0; a < axis.classes(); ++a) {
    const std::int64_t count = axis.count(a);
    const auto parts = static_cast<int>(divide_up(count, most));
    for (int part = 0; part < parts; ++part) {
      const Range range = Range::share(count, part, parts);
      result.push_back({a + range.begin * axis.class_step(), range.end - range.begin});
    }
  }
  return result;
}

/// What a phase needs in either layout.
template <class T>
struct PhasePlan {
  Phase phase;
  DenseAxis depth, height, width;
  std::int64_t packed_begin;  ///< of its weights, in elements
  int kernel;                 ///< extent of a fixed kernel, or 0
  int block_rows;

  PhasePlan(const Phase& p, const std::array<std::int64_t, kSpatialAxes>& extents, PaddingMode mode)
      : phase(p),
        depth(p.axes[0], extents[0], mode),
        height(p.axes[1], extents[1], mode),
        width(p.axes[2], extents[2], mode) {}

  std::int64_t plane_taps() const noexcept { return height.taps() * width.taps(); }

  /// Whether height and width are those of a kernel with code of its own.
  void choose_kernel(const DepthwiseKernels<T>& kernels, bool with_width) {
    kernel = 0;
    block_rows = 1;
    const std::int64_t taps = height.taps();
    if (width.taps() != taps || (taps != 3 && taps != 5 && taps != 7)) return;
    if (!height.shared() || height.stride() > 2) return;
    if (with_width && (!width.shared() || width.stride() != height.stride())) return;
    kernel = static_cast<int>(taps);
    block_rows = kernels.block_rows[(taps - 3) / 2];
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
    std::array<std::int64_t, kSpatialAxes> extents;
    for (int i = 0; i < kSpatialAxes; ++i) {
      extents[i] = adjoint_ ? problem.windows[i].output : problem.windows[i].input;
      destination_[i] = adjoint_ ? problem.windows[i].input : problem.windows[i].output;
    }
    source_pixels_ = extents;
    for (const Phase& phase : phases(problem, adjoint_)) {
      plans_.emplace_back(phase, extents, problem.padding_mode);
    }
    const Epilogue& epilogue = problem.epilogue;
    // What the kernels do not do themselves follows while the outputs are in L1.
    const bool clamped =
        epilogue.activation == Activation::relu || epilogue.activation == Activation::relu6;
    second_pass_ = epilogue.residual || (epilogue.activation != Activation::none && !clamped);
    store_.clamp = clamped && !second_pass_;
    store_.least = T(0);
    store_.greatest = epilogue.activation == Activation::relu6
                          ? T(6)
                          : std::numeric_limits<T>::infinity();
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
  using Base::adjoint_, Base::channels_, Base::kernels_, Base::multiplier_, Base::plans_,
      Base::problem_, Base::second_pass_, Base::source_pixels_, Base::store_, Base::table_,
      Base::threads_, Base::zeros_, Base::zeros_begin_;

 public:
  DepthwiseChannelsLast(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads) {
    const std::int64_t lanes = table_.lanes;
    weight_stride_ = round_up(channels_, lanes);
    zeros_ = round_up(problem.in_channels, lanes);
    std::int64_t units = 0;
    for (PhasePlan<T>& plan : plans_) {
      plan.packed_begin = zeros_begin_;
      zeros_begin_ += plan.phase.taps() * weight_stride_;
      if (multiplier_ == 1 && channels_ >= lanes) plan.choose_kernel(kernels_, true);
      else plan.kernel = 0, plan.block_rows = 1;
      Tiles tiles;
      tiles.rows = strips(plan.height, plan.block_rows);
      tiles.blocks = row_blocks(plan);
      const std::int64_t columns = plan.width.steps(most_columns(plan));
      tiles.slabs = plan.kernel != 0 ? plan.depth.taps() : plan.depth.taps() * plan.height.taps();
      tiles.slab_pixels = plan.kernel != 0 ? plan.height.steps(plan.block_rows) * columns : columns;
      most_pixels_ = std::max(most_pixels_, tiles.slabs * tiles.slab_pixels);
      most_slabs_ = std::max(most_slabs_, tiles.slabs);
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

  /// [phase][tap][channel], then a pixel of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps();
    for (const PhasePlan<T>& plan : plans_) {
      this->for_each_tap(plan, [&](std::int64_t place, std::int64_t tap) {
        T* row = target + plan.packed_begin + place * weight_stride_;
        for (std::int64_t c = 0; c < channels_; ++c) row[c] = source[c * taps + tap];
        std::fill(row + channels_, row + weight_stride_, T(0));
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
  };
  struct Tiles {
    std::vector<Strip> rows;
    std::vector<Blocks> blocks;
    std::int64_t slabs, slab_pixels;
  };
  struct Call {
    Maps<T> source, output;
    const T* bias;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  std::int64_t most_columns(const PhasePlan<T>& plan) const noexcept {
    return plan.kernel != 0 ? kernels_.block_columns : kDepthwiseAnyColumns;
  }

  std::vector<Blocks> row_blocks(const PhasePlan<T>& plan) const {
    std::vector<Blocks> result;
    const DenseAxis& width = plan.width;
    bool last_inside = false;
    for (const Strip& strip : strips(width, most_columns(plan))) {
      const bool inside = width.inside(strip.first, strip.count);
      if (inside && last_inside && result.back().columns == strip.count &&
          strip.first == result.back().first +
                             result.back().blocks * strip.count * width.class_step()) {
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

  void run_part(const Call& call, int row_part, const Range& channels,
                std::byte* scratch) const noexcept {
    for (std::size_t n = 0; n < plans_.size(); ++n) {
      const PhasePlan<T>& plan = plans_[n];
      const Tiles& tiles = tiles_[n];
      const auto rows = static_cast<std::int64_t>(tiles.rows.size());
      const std::int64_t planes = plan.phase.axes[0].count;
      const Range units = Range::share(problem_.batch * planes * rows, row_part, row_parts_);
      for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
        run_rows(call, plan, tiles, unit / rows / planes, unit / rows % planes,
                 tiles.rows[unit % rows], channels, scratch);
      }
    }
  }

  void run_rows(const Call& call, const PhasePlan<T>& plan, const Tiles& tiles,
                std::int64_t sample, std::int64_t d, const Strip& rows, const Range& channels,
                std::byte* scratch) const noexcept {
    auto* pixels = reinterpret_cast<const T**>(scratch);
    auto* slab_weights =
        reinterpret_cast<std::int64_t*>(scratch + aligned_bytes<const T*>(most_pixels_));
    const auto& axes = plan.phase.axes;
    const std::int64_t column_step = plan.width.class_step();

    DepthwiseBlocks<T> b{};
    b.pixels = pixels;
    b.slab_weights = slab_weights;
    b.stride = static_cast<int>(plan.width.stride());
    b.kernel_width = plan.width.taps();
    b.rows = static_cast<int>(rows.count);
    b.weight = call.packed + plan.packed_begin;
    b.weight_stride = weight_stride_;
    b.bias = call.bias;
    b.output_row_stride = plan.height.class_step() * axes[1].step *
                          (adjoint_ ? problem_.windows[2].input : problem_.windows[2].output) *
                          call.output.pixel_stride;
    b.output_column_stride = column_step * axes[2].step * call.output.pixel_stride;
    b.channel_begin = channels.begin;
    b.channel_end = channels.end;
    b.multiplier = multiplier_;
    b.store = store_;
    // A pixel of zeros does not move on from block to block.
    const bool movable = plan.kernel == 0 || plan.height.inside(rows.first, rows.count);
    for (const Blocks& all : tiles.blocks) {
      b.columns = all.columns;
      b.blocks = movable ? all.blocks : 1;
      b.source_step = all.columns * column_step * axes[2].source_step * call.source.pixel_stride;
      for (std::int64_t n = 0; n < all.blocks; n += b.blocks) {
        const std::int64_t first = all.first + n * all.columns * column_step;
        list_pixels(call, plan, sample, d, rows, first, pixels, slab_weights, b);
        b.output = call.output.sample(sample, 0) +
                   this->destination_pixel(plan, d, rows.first, first) * call.output.pixel_stride;
        kernels_.blocks(b, plan.kernel);
      }
    }
    if (!second_pass_) return;
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const std::int64_t pixel =
          this->destination_pixel(plan, d, rows.first + r * plan.height.class_step(), 0);
      TileEpilogue<T> rest = call.epilogue.tile(sample, channels.begin, pixel, axes[2].step);
      rest.bias_axis = BiasAxis::none;
      table_.epilogue(rest, static_cast<int>(axes[2].count),
                      static_cast<int>(channels.end - channels.begin),
                      call.output.sample(sample, channels.begin) + pixel * call.output.pixel_stride,
                      axes[2].step * call.output.pixel_stride, 1);
    }
  }

  /// The pixels under a block that begins at column `first`, slab by slab. Those in zero padding are a pixel of
  /// zeros; kernels of any extent leave out rows that are.
  void list_pixels(const Call& call, const PhasePlan<T>& plan, std::int64_t sample, std::int64_t d,
                   const Strip& rows, std::int64_t first, const T** pixels,
                   std::int64_t* slab_weights, DepthwiseBlocks<T>& b) const noexcept {
    const std::int64_t columns = plan.width.steps(b.columns);
    const std::int64_t lines = plan.height.steps(rows.count);
    const T* zeros = call.packed + zeros_begin_;
    const T* base = call.source.sample(sample, 0);
    const auto list_row = [&](const T* line) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const std::int64_t w = plan.width.source(first, j);
        *pixels++ = line == nullptr || w < 0 ? zeros : line + w * call.source.pixel_stride;
      }
    };
    b.slabs = 0;
    b.slab_pixels = plan.kernel != 0 ? lines * columns : columns;
    for (std::int64_t z = 0; z < plan.depth.taps(); ++z) {
      const std::int64_t plane = plan.depth.coordinate(d, z);
      const std::int64_t source_plane =
          padded_source(plane, source_pixels_[0], problem_.padding_mode);
      if (source_plane < 0) continue;
      for (std::int64_t i = 0; i < lines; ++i) {
        const std::int64_t h = plan.height.source(rows.first, i);
        const T* line = h < 0 ? nullptr
                              : base + (source_plane * source_pixels_[1] + h) * source_pixels_[2] *
                                           call.source.pixel_stride;
        if (plan.kernel == 0) {
          if (line == nullptr) continue;
          slab_weights[b.slabs++] =
              (z * plan.plane_taps() + i * plan.width.taps()) * weight_stride_;
        }
        list_row(line);
      }
      if (plan.kernel != 0) slab_weights[b.slabs++] = z * plan.plane_taps() * weight_stride_;
    }
  }

  std::int64_t weight_stride_;
  std::vector<Tiles> tiles_;  ///< of each phase
  std::int64_t most_pixels_ = 0, most_slabs_ = 0;
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
      tiles.flat = plan_flat(plan, tiles);
      if (!tiles.flat) plan_rows(plan, packed_most, tiles);
      packed_elements_ = std::max(packed_elements_, tiles.packed_elements);
      packed_rows_ = std::max(packed_rows_, tiles.packed_rows);
      zeros_ = std::max(zeros_, tiles.packed_stride + 2 * table_.lanes);
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
        if (tiles_[n].flat) {
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
  struct ColumnBlock {
    std::int64_t begin, count;
    std::size_t runs, run_count;
  };
  struct Tiles {
    bool flat = false;
    std::vector<RowBlock> rows;
    std::vector<ColumnBlock> columns;
    std::vector<std::int64_t> row_sources, plane_weights;
    std::vector<PackedRun> runs;
    std::vector<std::int64_t> tap_columns;
    std::int64_t packed_stride = 0, packed_elements = 0, packed_rows = 0;
    // of a flat plane
    std::vector<std::int64_t> row_places;
    std::vector<std::int32_t> lanes, places;

    std::int64_t pieces() const noexcept {
      return flat ? 1 : static_cast<std::int64_t>(rows.size() * columns.size());
    }
  };
  struct Call {
    Maps<T> source, output;
    const T* bias;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  /// Columns of one residue of the stride: source columns first + n * stride for n < count stand
  /// at packed[place + n].
  struct Residue {
    std::int64_t number, place, count;
  };

  /// The residues that the taps of a row of `columns` outputs read, and the places of the taps.
  std::vector<Residue> residues(const PhasePlan<T>& plan, std::int64_t columns,
                                std::int64_t slack, std::vector<std::int64_t>& tap_columns,
                                std::int64_t& stride) const {
    const AxisPhase& width = plan.phase.axes[2];
    std::vector<Residue> result;
    const auto relative = [&](const AxisPhase::Tap& tap) {
      return tap.offset - width.taps[0].offset;
    };
    for (const AxisPhase::Tap& tap : width.taps) {
      const std::int64_t number = relative(tap) % width.source_step;
      const std::int64_t count = columns + relative(tap) / width.source_step;
      auto found = std::find_if(result.begin(), result.end(),
                                [&](const Residue& r) { return r.number == number; });
      if (found == result.end()) found = result.insert(found, {number, 0, 0});
      found->count = std::max(found->count, count);
    }
    stride = 0;
    for (Residue& residue : result) {
      residue.place = stride;
      stride += residue.count + slack;
    }
    tap_columns.clear();
    for (const AxisPhase::Tap& tap : width.taps) {
      const auto found = std::find_if(result.begin(), result.end(), [&](const Residue& r) {
        return r.number == relative(tap) % width.source_step;
      });
      tap_columns.push_back(found->place + relative(tap) / width.source_step);
    }
    return result;
  }

  /// Inner columns first: they may be written beyond their end.
  void list_runs(const PhasePlan<T>& plan, const Residue& residue, std::int64_t first_output,
                 std::int64_t count, std::vector<PackedRun>& runs) const {
    const AxisPhase& width = plan.phase.axes[2];
    const std::int64_t extent = source_pixels_[2];
    const std::int64_t step = width.source_step;
    const std::int64_t first = first_output * step + width.taps[0].offset + residue.number;
    const std::int64_t begin = std::clamp<std::int64_t>(divide_up(-first, step), 0, count);
    const std::int64_t end = std::clamp<std::int64_t>(divide_up(extent - first, step), begin, count);
    if (begin < end) runs.push_back({residue.place + begin, first + begin * step, step, end - begin});
    const auto border = [&](std::int64_t from, std::int64_t to) {
      if (problem_.padding_mode == PaddingMode::zeros) {
        if (from < to) runs.push_back({residue.place + from, -1, 1, to - from});
        return;
      }
      for (std::int64_t n = from; n < to; ++n) {
        const std::int64_t column =
            padded_source(first + n * step, extent, problem_.padding_mode);
        runs.push_back({residue.place + n, column, 1, 1});
      }
    };
    border(end, count);
    border(0, begin);
  }

  void plan_rows(const PhasePlan<T>& plan, std::int64_t packed_most, Tiles& tiles) const {
    const DenseAxis& height = plan.height;
    const std::int64_t lanes = table_.lanes;
    const std::int64_t all_columns = plan.phase.axes[2].count;
    constexpr std::int64_t kMostColumns = 4096;
    const auto column_blocks = static_cast<int>(divide_up(all_columns, kMostColumns));
    const std::int64_t most_columns = divide_up(all_columns, column_blocks);
    if (plan.phase.taps() > 0) {
      const std::vector<Residue> found =
          residues(plan, most_columns, lanes, tiles.tap_columns, tiles.packed_stride);
      for (int n = 0; n < column_blocks; ++n) {
        const Range range = Range::share(all_columns, n, column_blocks);
        const std::size_t runs = tiles.runs.size();
        for (const Residue& residue : found) {
          list_runs(plan, residue, range.begin,
                    residue.count - (most_columns - (range.end - range.begin)), tiles.runs);
        }
        tiles.columns.push_back(
            {range.begin, range.end - range.begin, runs, tiles.runs.size() - runs});
      }
    } else {
      tiles.columns.push_back({0, all_columns, 0, 0});
    }
    tiles.packed_stride = round_up(tiles.packed_stride, lanes);

    // As many output rows as fit with what they read, halved until the threads have enough.
    const std::int64_t planes = std::max<std::int64_t>(1, plan.depth.taps());
    const std::int64_t fitting =
        packed_most / std::max<std::int64_t>(1, planes * tiles.packed_stride);
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
    tiles.packed_elements = tiles.packed_rows * tiles.packed_stride + 2 * lanes;
  }

  /// Whether the plane is so narrow that its rows do better one behind the other.
  bool plan_flat(const PhasePlan<T>& plan, Tiles& tiles) const {
    constexpr std::int64_t kMostTaps = 64;
    const auto& axes = plan.phase.axes;
    const std::int64_t lanes = table_.lanes;
    if (plan.phase.taps() == 0 || plan.phase.taps() > kMostTaps) return false;
    if (axes[0].count != 1 || plan.depth.taps() != 1 || !plan.phase.dense()) return false;
    if (plan.height.class_step() != 1 || plan.depth.source(0, 0) < 0) return false;
    const std::int64_t columns = axes[2].count;
    const std::int64_t rows = axes[1].count;
    if (columns > 2 * lanes || rows > 2 * lanes) return false;
    std::vector<Residue> found =
        residues(plan, columns, 0, tiles.tap_columns, tiles.packed_stride);
    std::int64_t pitch = 0;
    for (const Residue& residue : found) pitch = std::max(pitch, residue.count);
    const std::int64_t vectors = divide_up((rows - 1) * pitch + columns, lanes);
    if (3 * vectors >= 2 * rows * divide_up(columns, lanes)) return false;

    // [residue of the row's step][residue of the column][row][pitch]
    const std::int64_t stride = plan.height.stride();
    const std::int64_t steps = plan.height.steps(rows);
    const std::int64_t plane = divide_up(steps, stride) * pitch + 2 * lanes;
    const auto found_count = static_cast<std::int64_t>(found.size());
    const auto row_place = [&](std::int64_t step) {
      return step % stride * found_count * plane + step / stride * pitch;
    };
    tiles.tap_columns.clear();
    for (std::int64_t i = 0; i < found_count; ++i) found[i].place = i * plane;
    for (const Residue& residue : found) list_runs(plan, residue, 0, residue.count, tiles.runs);
    for (std::int64_t i = 0; i < steps; ++i) {
      const std::int64_t h = plan.height.source(0, i);
      tiles.row_sources.push_back(
          h < 0 ? -1 : (plan.depth.source(0, 0) * source_pixels_[1] + h) * source_pixels_[2]);
      tiles.row_places.push_back(row_place(i));
    }
    for (std::int64_t h = 0; h < plan.height.taps(); ++h) {
      for (const AxisPhase::Tap& tap : axes[2].taps) {
        const std::int64_t relative = tap.offset - axes[2].taps[0].offset;
        const auto residue =
            std::find_if(found.begin(), found.end(), [&](const Residue& r) {
              return r.number == relative % axes[2].source_step;
            });
        tiles.tap_columns.push_back(row_place(h) + residue->place +
                                    relative / axes[2].source_step);
      }
    }
    std::int32_t outputs = 0;
    for (std::int64_t v = 0; v < vectors; ++v) {
      tiles.places.push_back(outputs);
      std::int32_t kept = 0;
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const std::int64_t at = v * lanes + lane;
        if (at / pitch >= rows || at % pitch >= columns) continue;
        tiles.lanes.push_back(static_cast<std::int32_t>(lane));
        ++kept;
      }
      outputs += kept;
      tiles.lanes.resize(tiles.lanes.size() + static_cast<std::size_t>(lanes - kept), 0);
    }
    tiles.packed_elements = stride * found_count * plane + vectors * lanes;
    return true;
  }

  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<T>(packed_elements_) + aligned_bytes<const T*>(packed_rows_);
  }

  void run_rows(const Call& call, const PhasePlan<T>& plan, const Tiles& tiles, const Range& units,
                std::byte* scratch) const noexcept {
    const auto& axes = plan.phase.axes;
    DepthwiseRows<T> p{};
    p.packed = reinterpret_cast<T*>(scratch);
    p.packed_stride = tiles.packed_stride;
    p.packed_rows = reinterpret_cast<const T**>(scratch + aligned_bytes<T>(packed_elements_));
    p.zeros = call.packed + zeros_begin_;
    p.kernel_height = plan.height.taps();
    p.kernel_width = plan.width.taps();
    p.tap_columns = tiles.tap_columns.data();
    p.stride = static_cast<int>(plan.height.stride());
    p.output_row_stride = plan.height.class_step() * axes[1].step * destination_[2];
    p.output_column_stride = axes[2].step;
    p.store = store_;
    const std::int64_t pieces = tiles.pieces();
    const auto column_blocks = static_cast<std::int64_t>(tiles.columns.size());
    for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
      const std::int64_t piece = unit % pieces;
      const std::int64_t channel = unit / pieces % channels_;
      const std::int64_t sample = unit / pieces / channels_;
      const RowBlock& rows = tiles.rows[piece / column_blocks];
      const ColumnBlock& columns = tiles.columns[piece % column_blocks];
      const std::int64_t pixel =
          this->destination_pixel(plan, rows.d, rows.rows.first, columns.begin);
      p.source = call.source.sample(sample, channel / multiplier_);
      p.row_sources = tiles.row_sources.data() + rows.sources;
      p.planes = rows.planes;
      p.plane_rows = rows.plane_rows;
      p.runs = tiles.runs.data() + columns.runs;
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
    p.row_sources = tiles.row_sources.data();
    p.row_places = tiles.row_places.data();
    p.row_count = static_cast<std::int64_t>(tiles.row_sources.size());
    p.runs = tiles.runs.data();
    p.run_count = static_cast<std::int64_t>(tiles.runs.size());
    p.tap_places = tiles.tap_columns.data();
    p.taps = plan.phase.taps();
    p.vectors = static_cast<std::int64_t>(tiles.places.size());
    p.outputs = plan.phase.pixels();
    p.lanes = tiles.lanes.data();
    p.places = tiles.places.data();
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
    TileEpilogue<T> rest = call.epilogue.tile(sample, channel, pixel, step);
    rest.bias_axis = BiasAxis::none;
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
      return Support::no("does not compute backward_weight");
    }
    if (problem.in_channels_per_group() != 1) {
      return Support::no("groups is " + std::to_string(problem.groups) +
                         "; it must equal in_channels, " + std::to_string(problem.in_channels));
    }
    if (is_adjoint(problem)) {
      if (problem.out_channels_per_group() != 1) {
        return Support::no("backward_input sums over a channel multiplier of " +
                           std::to_string(problem.out_channels_per_group()));
      }
      if (problem.padding_mode != PaddingMode::zeros) {
        return Support::no(std::string("backward_input with padding_mode '") +
                           convolith::name(problem.padding_mode) + "' folds margins back");
      }
      double residues = 1;
      for (const Window& w : problem.windows) {
        residues *= static_cast<double>(std::min(w.stride, w.input));
      }
      if (residues > kMostPhases) {
        return Support::no("backward_input with more than " + std::to_string(kMostPhases) +
                           " residues of the stride");
      }
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
    const bool wide = problem.dtype == DType::float64;
    const int lanes = wide ? machine.kernels->float64.lanes : machine.kernels->float32.lanes;
    const std::int64_t pixels =
        is_adjoint(problem) ? problem.windows[2].input : problem.windows[2].output;
    const std::int64_t extent =
        problem.layout == Layout::channels_last ? problem.out_channels : pixels;
    const double filled =
        static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size());
    constexpr double kForkJoin = 1e-6;
    constexpr double kShareOfPeak = 0.5;
    return std::max(
               problem.flops() / (machine.flops_per_second[wide] * kShareOfPeak * filled),
               bytes / (2 * machine.bytes_per_second)) +
           kForkJoin;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.dtype == DType::float32) return prepare_typed<float>(problem, machine, threads);
    return prepare_typed<double>(problem, machine, threads);
  }

 private:
  template <class T>
  static std::unique_ptr<const Execution> prepare_typed(const ConvProblem& problem,
                                                        const Machine& machine, int threads) {
    if (problem.layout == Layout::channels_last) {
      return std::make_unique<DepthwiseChannelsLast<T>>(problem, machine, threads);
    }
    return std::make_unique<DepthwiseChannelsFirst<T>>(problem, machine, threads);
  }
};

}  // namespace

const Algorithm& depthwise_algorithm() {
  static const DepthwiseAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
