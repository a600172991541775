// Implicit GEMM: the product of im2col without its matrix. Each thread packs the patches of a
// few tiles of pixels, as many as stay in L2, and multiplies them with every panel of weights;
// padding, stride and dilation are resolved by the packing. Lanes are output channels in
// channels_last and pixels in channels_first, so that both load and store whole vectors.
// The indirect convolution of Dukhan (arXiv:1907.02129) is the nearest relative.
//
// Backward-input, and with it transposed convolution, is one such product for each residue of the
// stride.

#include <algorithm>
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

/// A tile of destinations: `count` neighbours of a phase's grid, flattened, from `first` on.
struct Tile {
  std::int64_t sample, first, count;
};

/// How one phase is cut: its tiles, and the blocks of its reduction.
struct PhasePlan {
  Phase phase;
  std::int64_t reduction;    ///< taps * reduced channels
  std::int64_t k_blocks;
  std::int64_t packed_begin; ///< of its weights, in elements
  std::int64_t runs, run_pixels, tiles_per_run;
  std::int64_t pixel_step;   ///< of the destinations of a tile
  std::vector<std::int64_t> places;  ///< of each kernel tap among those of the phase, or -1

  std::int64_t tiles() const noexcept { return runs * tiles_per_run; }
};

/// The work of a call as a grid of parts, each for one thread.
struct Parts {
  int groups = 1, tiles = 1, panels = 1;
  int count() const noexcept { return groups * tiles * panels; }
};

template <class T>
class ImplicitGemm final : public Execution {
 public:
  ImplicitGemm(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        kernels_(kernels_for<T>(machine)),
        threads_(threads),
        adjoint_(is_adjoint(problem)),
        channels_last_(problem.layout == Layout::channels_last) {
    reduced_ = adjoint_ ? problem.out_channels_per_group() : problem.in_channels_per_group();
    produced_ = adjoint_ ? problem.in_channels_per_group() : problem.out_channels_per_group();
    panel_width_ = channels_last_ ? kernels_.tile_columns : kernels_.tile_rows;
    tile_pixels_ = channels_last_ ? kernels_.tile_rows : kernels_.tile_columns;
    panels_ = divide_up(produced_, panel_width_);

    // A panel of columns takes at most half of L1, a block of patches a quarter of L2.
    const auto column_bytes = static_cast<std::int64_t>(kernels_.tile_columns * sizeof(T));
    const std::int64_t k_most = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(machine.l1_bytes * 2 / 3) / column_bytes, 64, kMaxChain);
    std::int64_t begin = 0, most_reduction = 0;
    for (Phase& phase : phases(problem, adjoint_)) {
      PhasePlan plan = plan_phase(std::move(phase), k_most);
      plan.packed_begin = begin;
      begin += problem.groups * panels_ * plan.reduction * panel_width_;
      k_block_ = std::max(k_block_, divide_up(plan.reduction, plan.k_blocks));
      most_reduction = std::max(most_reduction, plan.reduction);
      phases_.push_back(std::move(plan));
    }
    packed_elements_ = begin;
    // Rows of patches one vector apart from a power of two, against conflicts in L1.
    patch_stride_ = channels_last_ ? round_up(k_block_, kernels_.lanes) + kernels_.lanes
                                   : kernels_.tile_columns * k_block_;
    const std::int64_t tile_elements = channels_last_ ? tile_pixels_ * patch_stride_ : patch_stride_;
    block_tiles_ = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T)) / tile_elements, 1, kMostTiles);
    patches_bytes_ = aligned_bytes<T>(block_tiles_ * tile_elements);
    offsets_bytes_ = channels_last_ ? 0 : aligned_bytes<std::int64_t>(most_reduction);
    const bool scattered = !channels_last_ && !phases_.empty() && phases_[0].pixel_step != 1;
    scatter_bytes_ =
        scattered ? aligned_bytes<T>(produced_ * block_tiles_ * kernels_.tile_columns) : 0;
    parts_ = choose_parts();
  }

  std::size_t workspace_bytes() const noexcept override {
    return thread_bytes() * static_cast<std::size_t>(std::min(threads_, parts_.count()));
  }

  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(packed_elements_) * sizeof(T);
  }

  /// Panels [phase][group][panel][tap][reduced channel][lane].
  void pack(const void* weight, void* packed) const noexcept override {
    const std::int64_t taps = problem_.taps();
    const std::int64_t in_stride = taps;
    const std::int64_t out_stride = taps * problem_.in_channels_per_group();
    const std::int64_t lane_stride = adjoint_ ? in_stride : out_stride;
    const std::int64_t reduced_stride = adjoint_ ? out_stride : in_stride;
    parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
      const Range channels = panel_channels(index % panels_);
      const T* from = static_cast<const T*>(weight) +
                      index / panels_ * problem_.out_channels_per_group() * out_stride +
                      channels.begin * lane_stride;
      const auto width = static_cast<int>(panel_width_);
      const auto valid = static_cast<int>(channels.end - channels.begin);
      for (const PhasePlan& plan : phases_) {
        T* panel = static_cast<T*>(packed) + plan.packed_begin + index * plan.reduction * panel_width_;
        if (!adjoint_ && taps > 1) {
          kernels_.pack_taps(width, valid, from, lane_stride, reduced_, taps, plan.places.data(),
                             panel);
          continue;
        }
        for (std::int64_t t = 0; t < taps; ++t) {
          if (plan.places[t] < 0) continue;
          kernels_.pack_panel(width, valid, reduced_, from + t, lane_stride, reduced_stride,
                              panel + plan.places[t] * reduced_ * panel_width_);
        }
      }
    });
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const Call call{typed<T>(adjoint_ ? arguments.y : arguments.x),
                    typed<T>(adjoint_ ? arguments.x : arguments.y),
                    BoundEpilogue<T>(problem_, arguments), static_cast<const T*>(packed)};
    parallel(std::min(threads_, parts_.count()), [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (int part = thread; part < parts_.count(); part += team) run_part(call, part, scratch);
    });
  }

 private:
  static constexpr std::int64_t kMostTiles = 32;

  struct Call {
    Maps<T> source, output;
    BoundEpilogue<T> epilogue;
    const T* packed;
  };

  /// A block of tiles that a thread packs and multiplies.
  struct Block {
    const PhasePlan& plan;
    std::int64_t group;
    int tiles = 0;
    std::array<Tile, kMostTiles> tile{};
    std::array<const T*, kMostTiles> patches{};
    std::int64_t patch_stride = 0;  ///< between rows of patches
  };

  PhasePlan plan_phase(Phase&& phase, std::int64_t k_most) const {
    PhasePlan plan{};
    plan.phase = std::move(phase);
    const auto& axes = plan.phase.axes;
    plan.reduction = plan.phase.taps() * reduced_;
    plan.k_blocks = std::max<std::int64_t>(1, divide_up(plan.reduction, k_most));
    const bool dense = plan.phase.dense();
    plan.runs = dense ? 1 : axes[0].count * axes[1].count;
    plan.run_pixels = dense ? plan.phase.pixels() : axes[2].count;
    plan.tiles_per_run = divide_up(plan.run_pixels, tile_pixels_);
    plan.pixel_step = axes[2].step;
    plan.places.assign(static_cast<std::size_t>(problem_.taps()), -1);
    std::int64_t place = 0;
    for (const AxisPhase::Tap& d : axes[0].taps) {
      for (const AxisPhase::Tap& h : axes[1].taps) {
        for (const AxisPhase::Tap& w : axes[2].taps) {
          plan.places[(d.tap * problem_.windows[1].kernel + h.tap) * problem_.windows[2].kernel +
                      w.tap] = place++;
        }
      }
    }
    return plan;
  }

  /// The cut whose largest part is smallest; packing patches counts as one panel.
  Parts choose_parts() const noexcept {
    std::int64_t tiles = 0;
    for (const PhasePlan& plan : phases_) tiles += problem_.batch * plan.tiles();
    Parts best;
    std::int64_t best_cost = -1;
    for (int g = 1; g <= std::min<std::int64_t>(threads_, problem_.groups); ++g) {
      for (int t = 1; t * g <= threads_; ++t) {
        const auto p = static_cast<int>(std::min<std::int64_t>(threads_ / (g * t), panels_));
        const std::int64_t cost =
            divide_up(problem_.groups, g) * divide_up(tiles, t) * (divide_up(panels_, p) + 1);
        if (best_cost < 0 || cost < best_cost) {
          best_cost = cost;
          best = {g, t, p};
        }
      }
    }
    return best;
  }

  std::size_t thread_bytes() const noexcept {
    return patches_bytes_ + offsets_bytes_ + scatter_bytes_;
  }

  /// Output channels of a panel, from the group's first: whole vectors, or equal rows.
  Range panel_channels(std::int64_t panel) const noexcept {
    if (!channels_last_) {
      return Range::share(produced_, static_cast<int>(panel), static_cast<int>(panels_));
    }
    return {panel * panel_width_, std::min(produced_, (panel + 1) * panel_width_)};
  }

  Tile tile_at(const PhasePlan& plan, std::int64_t index) const noexcept {
    const std::int64_t in_run = index % plan.tiles_per_run;
    index /= plan.tiles_per_run;
    const std::int64_t run = index % plan.runs;
    // Rows are shared out evenly: no short tile waits for its weights. Lanes come in vectors.
    const Range pixels =
        channels_last_ ? Range::share(plan.run_pixels, static_cast<int>(in_run),
                                      static_cast<int>(plan.tiles_per_run))
                       : Range{in_run * tile_pixels_,
                               std::min(plan.run_pixels, (in_run + 1) * tile_pixels_)};
    return {index / plan.runs, run * plan.run_pixels + pixels.begin, pixels.end - pixels.begin};
  }

  /// Pixel of the output array at which destination `index` of a phase stands.
  std::int64_t output_pixel(const Phase& phase, std::int64_t index) const noexcept {
    const auto& [d, h, w] = phase.axes;
    const std::int64_t column = index % w.count;
    const std::int64_t row = index / w.count % h.count;
    const std::int64_t plane = index / w.count / h.count;
    const auto extent = [&](int axis) {
      return adjoint_ ? problem_.windows[axis].input : problem_.windows[axis].output;
    };
    return ((d.begin + plane * d.step) * extent(1) + h.begin + row * h.step) * extent(2) + w.begin +
           column * w.step;
  }

  std::int64_t source_extent(int axis) const noexcept {
    return adjoint_ ? problem_.windows[axis].output : problem_.windows[axis].input;
  }

  /// The source coordinate under a tap, or -1 in padding.
  std::int64_t source_at(const AxisPhase& axis, int number, std::int64_t j,
                         std::int64_t offset) const noexcept {
    return padded_source(j * axis.source_step + offset, source_extent(number),
                         problem_.padding_mode);
  }

  void run_part(const Call& call, int part, std::byte* scratch) const noexcept {
    const int panel_part = part % parts_.panels;
    const int tile_part = part / parts_.panels % parts_.tiles;
    const int group_part = part / parts_.panels / parts_.tiles;
    const Range panels = Range::share(panels_, panel_part, parts_.panels);
    const Range groups = Range::share(problem_.groups, group_part, parts_.groups);
    for (std::int64_t group = groups.begin; group < groups.end; ++group) {
      for (const PhasePlan& plan : phases_) {
        const Range tiles =
            Range::share(problem_.batch * plan.tiles(), tile_part, parts_.tiles);
        const std::int64_t count = tiles.end - tiles.begin;
        const auto blocks = static_cast<int>(divide_up(count, block_tiles_));
        for (int b = 0; b < blocks; ++b) {
          const Range range = Range::share(count, b, blocks);
          Block block{plan, group};
          for (std::int64_t t = range.begin; t < range.end; ++t) {
            block.tile[block.tiles++] = tile_at(plan, tiles.begin + t);
          }
          run_block(call, block, panels, scratch);
        }
      }
    }
  }

  void run_block(const Call& call, Block& block, const Range& panels,
                 std::byte* scratch) const noexcept {
    const PhasePlan& plan = block.plan;
    for (int k_block = 0; k_block < plan.k_blocks; ++k_block) {
      const Range k = Range::share(plan.reduction, k_block, static_cast<int>(plan.k_blocks));
      const bool last = k_block + 1 == plan.k_blocks;
      if (channels_last_) {
        pack_rows(call, block, k, reinterpret_cast<T*>(scratch));
      } else {
        pack_columns(call, block, k, scratch);
      }
      for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
        const T* weight = call.packed + plan.packed_begin +
                          ((block.group * panels_ + panel) * plan.reduction + k.begin) *
                              panel_width_;
        const Range channels = panel_channels(panel);
        for (int t = 0; t < block.tiles; ++t) {
          multiply(call, block, t, weight, channels, k, scratch);
          if (last) finish(call, block, t, channels, scratch);
        }
      }
    }
  }

  /// One register tile: patches times weights, into the output or the scatter buffer.
  void multiply(const Call& call, const Block& block, int t, const T* weight, const Range& channels,
                const Range& k, std::byte* scratch) const noexcept {
    const Tile& tile = block.tile[t];
    const auto pixels = static_cast<int>(tile.count);
    const auto produced = static_cast<int>(channels.end - channels.begin);
    const bool accumulate = k.begin > 0;
    if (!channels_last_) {
      const bool scattered = scatter_bytes_ > 0;
      T* to = scattered ? scatter_tile(scratch, t, channels.begin) : output_at(call, block, t, channels);
      kernels_.gemm_tile(produced, pixels, k.end - k.begin, weight, block.patches[t], to,
                         scattered ? scatter_stride() : call.output.channel_stride, accumulate);
      return;
    }
    kernels_.gemm_rows_tile(pixels, produced, k.end - k.begin, block.patches[t], block.patch_stride,
                            weight, output_at(call, block, t, channels),
                            block.plan.pixel_step * call.output.pixel_stride, accumulate);
  }

  T* output_at(const Call& call, const Block& block, int t, const Range& channels) const noexcept {
    const Tile& tile = block.tile[t];
    return call.output.sample(tile.sample, block.group * produced_ + channels.begin) +
           output_pixel(block.plan.phase, tile.first) * call.output.pixel_stride;
  }

  std::int64_t scatter_stride() const noexcept { return block_tiles_ * kernels_.tile_columns; }

  T* scatter_tile(std::byte* scratch, int t, std::int64_t channel) const noexcept {
    return reinterpret_cast<T*>(scratch + patches_bytes_ + offsets_bytes_) +
           channel * scatter_stride() + t * kernels_.tile_columns;
  }

  /// Scatters, and applies the epilogue to the finished tile.
  void finish(const Call& call, const Block& block, int t, const Range& channels,
              std::byte* scratch) const noexcept {
    const Tile& tile = block.tile[t];
    const auto pixels = static_cast<int>(tile.count);
    const auto produced = static_cast<int>(channels.end - channels.begin);
    const std::int64_t step = block.plan.pixel_step * call.output.pixel_stride;
    T* to = output_at(call, block, t, channels);
    if (scatter_bytes_ > 0) {
      for (int c = 0; c < produced; ++c) {
        const T* from = scatter_tile(scratch, t, channels.begin + c);
        for (int i = 0; i < pixels; ++i) to[c * call.output.channel_stride + i * step] = from[i];
      }
    }
    if (call.epilogue.empty()) return;
    const auto epilogue = call.epilogue.tile(
        tile.sample, block.group * produced_ + channels.begin,
        output_pixel(block.plan.phase, tile.first), block.plan.pixel_step);
    if (channels_last_) {
      kernels_.epilogue(epilogue, pixels, produced, to, step, call.output.channel_stride);
    } else {
      kernels_.epilogue(epilogue, produced, pixels, to, call.output.channel_stride, step);
    }
  }

  /// A kernel of one tap that reads every source in order: the patches are the source itself.
  bool reads_in_place(const PhasePlan& plan) const noexcept {
    if (plan.phase.taps() != 1 || !plan.phase.dense()) return false;
    for (int axis = 0; axis < kSpatialAxes; ++axis) {
      const AxisPhase& a = plan.phase.axes[axis];
      if (a.source_step != 1 || a.taps[0].offset != 0 || a.count != source_extent(axis)) {
        return false;
      }
    }
    return true;
  }

  /// Each pixel's patch as a row: for channels_last.
  void pack_rows(const Call& call, Block& block, const Range& k, T* patches) const noexcept {
    const PhasePlan& plan = block.plan;
    const Maps<T>& source = call.source;
    const std::int64_t channel = block.group * reduced_;
    // Rows a page apart share one set of L1: they are copied.
    constexpr std::int64_t kPage = 4096;
    const bool conflicts =
        source.pixel_stride * static_cast<std::int64_t>(sizeof(T)) % kPage == 0;
    if (reads_in_place(plan) && !conflicts) {
      block.patch_stride = source.pixel_stride;
      for (int t = 0; t < block.tiles; ++t) {
        const Tile& tile = block.tile[t];
        block.patches[t] =
            source.sample(tile.sample, channel) + tile.first * source.pixel_stride + k.begin;
      }
      return;
    }
    block.patch_stride = patch_stride_;
    for (int t = 0; t < block.tiles; ++t) {
      const Tile& tile = block.tile[t];
      T* rows = patches + t * tile_pixels_ * patch_stride_;
      block.patches[t] = rows;
      pack_tile_rows(plan, tile, source, source.sample(tile.sample, channel), k, rows);
    }
  }

  void pack_tile_rows(const PhasePlan& plan, const Tile& tile, const Maps<T>& source, const T* base,
                      const Range& k, T* rows) const noexcept {
    const auto& [depth, height, width] = plan.phase.axes;
    const auto width_taps = static_cast<std::int64_t>(width.taps.size());
    const auto height_taps = static_cast<std::int64_t>(height.taps.size());
    const std::int64_t kernel_row = width_taps * reduced_;
    if (kernel_row == 0) return;
    // Taps of a kernel row that touch are one segment.
    const bool merged = source.pixel_stride == reduced_ && width.contiguous_taps();
    constexpr int kSegments = 64;
    CopySegment<T> segments[kSegments];
    int count = 0;
    const auto add = [&](const T* from, T* to, std::int64_t elements) {
      segments[count++] = {from, to, elements};
      if (count == kSegments) {
        kernels_.copy_segments(segments, count);
        count = 0;
      }
    };
    const std::int64_t first_row = k.begin / kernel_row;
    const std::int64_t end_row = divide_up(k.end, kernel_row);
    std::int64_t w = tile.first % width.count;
    std::int64_t h = tile.first / width.count % height.count;
    std::int64_t d = tile.first / width.count / height.count;
    for (std::int64_t p = 0; p < tile.count; ++p, rows += patch_stride_) {
      const std::int64_t first_column = w * width.source_step + width.taps.front().offset;
      const std::int64_t last_column = w * width.source_step + width.taps.back().offset;
      const bool whole = merged && first_column >= 0 && last_column < source_extent(2);
      for (std::int64_t row = first_row; row < end_row; ++row) {
        const std::int64_t row_begin = std::max(k.begin, row * kernel_row);
        const std::int64_t row_end = std::min(k.end, (row + 1) * kernel_row);
        T* to = rows + row_begin - k.begin;
        const std::int64_t plane = source_at(depth, 0, d, depth.taps[row / height_taps].offset);
        const std::int64_t line = source_at(height, 1, h, height.taps[row % height_taps].offset);
        if (plane < 0 || line < 0) {
          add(nullptr, to, row_end - row_begin);
          continue;
        }
        const T* from = base + (plane * source_extent(1) + line) * source_extent(2) *
                                   source.pixel_stride;
        if (whole) {
          add(from + first_column * source.pixel_stride + row_begin - row * kernel_row, to,
              row_end - row_begin);
          continue;
        }
        std::int64_t begin = row_begin - row * kernel_row;
        for (std::int64_t t = begin / reduced_; t < width_taps; ++t) {
          const std::int64_t end = std::min(row_end - row * kernel_row, (t + 1) * reduced_);
          if (begin >= end) break;
          const std::int64_t column = source_at(width, 2, w, width.taps[t].offset);
          add(column < 0 ? nullptr : from + column * source.pixel_stride + begin - t * reduced_,
              rows + row * kernel_row + begin - k.begin, end - begin);
          begin = end;
        }
      }
      if (++w == width.count) {
        w = 0;
        if (++h == height.count) {
          h = 0;
          ++d;
        }
      }
    }
    kernels_.copy_segments(segments, count);
  }

  /// Patches as columns, a panel for each tile: for channels_first.
  void pack_columns(const Call& call, Block& block, const Range& k,
                    std::byte* scratch) const noexcept {
    const PhasePlan& plan = block.plan;
    const Maps<T>& source = call.source;
    auto* offsets = reinterpret_cast<std::int64_t*>(scratch + patches_bytes_);
    list_offsets(plan, source, k, offsets);
    for (int t = 0; t < block.tiles; ++t) {
      const Tile& tile = block.tile[t];
      T* panel = reinterpret_cast<T*>(scratch) + t * patch_stride_;
      block.patches[t] = panel;
      const T* base = source.sample(tile.sample, block.group * reduced_);
      const std::int64_t start = interior_start(plan, tile, source);
      if (start >= 0) {
        kernels_.pack_offsets(k.end - k.begin, offsets, base + start,
                              plan.phase.axes[2].source_step * source.pixel_stride,
                              static_cast<int>(tile.count), panel);
      } else {
        pack_tile_columns(plan, tile, source, base, k, panel);
      }
    }
  }

  /// Offsets of the elements [k.begin, k.end) of a patch from its first one.
  void list_offsets(const PhasePlan& plan, const Maps<T>& source, const Range& k,
                    std::int64_t* offsets) const noexcept {
    const auto& [depth, height, width] = plan.phase.axes;
    const auto width_taps = static_cast<std::int64_t>(width.taps.size());
    const auto height_taps = static_cast<std::int64_t>(height.taps.size());
    for (std::int64_t e = k.begin; e < k.end;) {
      const std::int64_t tap = e / reduced_;
      const std::int64_t end = std::min(k.end, (tap + 1) * reduced_);
      const auto from_first = [](const AxisPhase& axis, std::int64_t t) {
        return axis.taps[t].offset - axis.taps[0].offset;
      };
      const std::int64_t pixel =
          (from_first(depth, tap / width_taps / height_taps) * source_extent(1) +
           from_first(height, tap / width_taps % height_taps)) *
              source_extent(2) +
          from_first(width, tap % width_taps);
      for (; e < end; ++e) {
        *offsets++ =
            pixel * source.pixel_stride + (e - tap * reduced_) * source.channel_stride;
      }
    }
  }

  /// Offset of the first element of the tile's first patch where all of the tile lies in one row
  /// and no tap in padding, else -1.
  std::int64_t interior_start(const PhasePlan& plan, const Tile& tile,
                              const Maps<T>& source) const noexcept {
    if (plan.reduction == 0) return -1;
    const auto& [depth, height, width] = plan.phase.axes;
    const std::int64_t w = tile.first % width.count;
    if (reads_in_place(plan)) return tile.first * source.pixel_stride;
    if (w + tile.count > width.count) return -1;
    const auto inside = [&](const AxisPhase& axis, int number, std::int64_t first,
                            std::int64_t last) {
      return first * axis.source_step + axis.taps.front().offset >= 0 &&
             last * axis.source_step + axis.taps.back().offset < source_extent(number);
    };
    const std::int64_t h = tile.first / width.count % height.count;
    const std::int64_t d = tile.first / width.count / height.count;
    if (!inside(width, 2, w, w + tile.count - 1) || !inside(height, 1, h, h) ||
        !inside(depth, 0, d, d)) {
      return -1;
    }
    const auto first_source = [](const AxisPhase& axis, std::int64_t j) {
      return j * axis.source_step + axis.taps[0].offset;
    };
    return ((first_source(depth, d) * source_extent(1) + first_source(height, h)) *
                source_extent(2) +
            first_source(width, w)) *
           source.pixel_stride;
  }

  void pack_tile_columns(const PhasePlan& plan, const Tile& tile, const Maps<T>& source,
                         const T* base, const Range& k, T* panel) const noexcept {
    const auto& [depth, height, width] = plan.phase.axes;
    const auto width_taps = static_cast<std::int64_t>(width.taps.size());
    const auto height_taps = static_cast<std::int64_t>(height.taps.size());
    const std::int64_t step = width.source_step * source.pixel_stride;
    constexpr int kMostPieces = 64;  // a lane is in one piece at most
    for (std::int64_t e = k.begin; e < k.end;) {
      const std::int64_t tap = e / reduced_;
      const std::int64_t end = std::min(k.end, (tap + 1) * reduced_);
      const std::int64_t depth_offset = depth.taps[tap / width_taps / height_taps].offset;
      const std::int64_t height_offset = height.taps[tap / width_taps % height_taps].offset;
      const std::int64_t width_offset = width.taps[tap % width_taps].offset;
      for (int first = 0; first < tile.count; first += kernels_.lanes) {
        const auto lanes = static_cast<int>(std::min<std::int64_t>(kernels_.lanes, tile.count - first));
        LanePiece<T> pieces[kMostPieces];
        int count = 0;
        for (int lane = 0; lane < lanes;) {
          const std::int64_t p = tile.first + first + lane;
          const std::int64_t w = p % width.count;
          const auto row_lanes =
              static_cast<int>(std::min<std::int64_t>(lanes - lane, width.count - w));
          const std::int64_t plane =
              source_at(depth, 0, p / width.count / height.count, depth_offset);
          const std::int64_t line =
              source_at(height, 1, p / width.count % height.count, height_offset);
          if (plane >= 0 && line >= 0) {
            const T* row = base + (plane * source_extent(1) + line) * source_extent(2) *
                                      source.pixel_stride +
                           (e - tap * reduced_) * source.channel_stride;
            count += list_pieces(width, row, source.pixel_stride, w, width_offset, lane, row_lanes,
                                 pieces + count);
          }
          lane += row_lanes;
        }
        kernels_.pack_lanes(pieces, count, step, end - e, source.channel_stride,
                            panel + (e - k.begin) * kernels_.tile_columns + first);
      }
      e = end;
    }
  }

  /// Pieces for lanes [lane, lane + lanes), which hold destinations w, w + 1, ... of one row.
  std::int64_t list_pieces(const AxisPhase& width, const T* row, std::int64_t pixel_stride,
                           std::int64_t w, std::int64_t offset, int lane, int lanes,
                           LanePiece<T>* pieces) const noexcept {
    const std::int64_t step = width.source_step;
    const std::int64_t extent = source_extent(2);
    const std::int64_t column = w * step + offset;  // of the first lane
    // 0 <= column + i * step < extent
    const std::int64_t inside_begin =
        std::clamp<std::int64_t>(divide_up(-column, step), 0, lanes);
    const std::int64_t inside_end =
        std::clamp<std::int64_t>(divide_up(extent - column, step), inside_begin, lanes);
    LanePiece<T>* piece = pieces;
    const auto single = [&](std::int64_t i) {
      const std::int64_t at = padded_source(column + i * step, extent, problem_.padding_mode);
      const auto l = static_cast<int>(lane + i);
      if (at >= 0) *piece++ = {row + (at - l * step) * pixel_stride, l, l + 1};
    };
    if (problem_.padding_mode != PaddingMode::zeros) {
      for (std::int64_t i = 0; i < inside_begin; ++i) single(i);
      for (std::int64_t i = inside_end; i < lanes; ++i) single(i);
    }
    if (inside_begin < inside_end) {
      *piece++ = {row + (column - lane * step) * pixel_stride,
                  static_cast<int>(lane + inside_begin), static_cast<int>(lane + inside_end)};
    }
    return piece - pieces;
  }

  ConvProblem problem_;
  const Kernels<T>& kernels_;
  int threads_;
  bool adjoint_, channels_last_;
  std::int64_t reduced_, produced_;  ///< channels per group that are read and written
  std::int64_t panel_width_, tile_pixels_, panels_;
  std::vector<PhasePlan> phases_;
  std::int64_t packed_elements_ = 0;
  std::int64_t k_block_ = 0, patch_stride_ = 0, block_tiles_ = 0;
  std::size_t patches_bytes_ = 0, offsets_bytes_ = 0, scatter_bytes_ = 0;
  Parts parts_;
};

class ImplicitGemmAlgorithm final : public Algorithm {
 public:
  const char* name() const noexcept override { return "implicit_gemm"; }
  const char* summary() const noexcept override {
    return "packs the patches of a few tiles at a time and multiplies";
  }

  Support supports(const ConvProblem& problem) const override {
    if (problem.direction == Direction::backward_weight) {
      return Support::no("does not compute backward_weight");
    }
    if (is_adjoint(problem)) {
      if (problem.padding_mode != PaddingMode::zeros) {
        return Support::no(std::string("backward_input with padding_mode '") +
                           name_of(problem.padding_mode) + "' folds margins back");
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
    constexpr std::int64_t kFewestInBlock = 64;
    const std::int64_t terms = reduction_terms(problem);
    if (terms > kMaxChain * kFewestInBlock) {
      return Support::no("sums of " + std::to_string(terms) +
                         " products would be folded in a chain above " +
                         std::to_string(kMaxChain));
    }
    return {};
  }

  double cost(const ConvProblem& problem, const Machine& machine) const override {
    const bool wide = problem.dtype == DType::float64;
    const int lanes = wide ? machine.kernels->float64.lanes : machine.kernels->float32.lanes;
    const bool channels_last = problem.layout == Layout::channels_last;
    const std::int64_t channels = is_adjoint(problem) ? problem.in_channels_per_group()
                                                      : problem.out_channels_per_group();
    const std::int64_t pixels =
        is_adjoint(problem) ? problem.input_pixels() : problem.output_pixels();
    const std::int64_t extent = channels_last ? channels : pixels;
    const double filled =
        static_cast<double>(extent) / static_cast<double>(round_up(extent, lanes));
    // Packing an element costs as much as its product with about two channels.
    const double packing = 1 + 3 / static_cast<double>(channels);
    const double bytes = static_cast<double>(size_of(problem.dtype)) *
                         static_cast<double>(problem.x_size() + problem.y_size() +
                                             problem.weight_size());
    constexpr double kForkJoin = 2e-6;
    return problem.flops() * packing / (machine.flops_per_second[wide] * 0.92 * filled) +
           bytes / (4 * machine.bytes_per_second) + kForkJoin;
  }

  Tolerance tolerance(const ConvProblem& problem) const override {
    return {summation_bound(problem.dtype, reduction_terms(problem))};
  }

  std::unique_ptr<const Execution> prepare(const ConvProblem& problem, const Machine& machine,
                                           int threads) const override {
    if (problem.dtype == DType::float32) {
      return std::make_unique<ImplicitGemm<float>>(problem, machine, threads);
    }
    return std::make_unique<ImplicitGemm<double>>(problem, machine, threads);
  }

 private:
  static const char* name_of(PaddingMode mode) noexcept { return convolith::name(mode); }
};

}  // namespace

const Algorithm& implicit_gemm_algorithm() {
  static const ImplicitGemmAlgorithm algorithm;
  return algorithm;
}

}  // namespace convolith
