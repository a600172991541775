#include "implicit_gemm/weight_gradient.hpp"

#include <algorithm>
#include <array>

#include "arithmetic.hpp"
#include "implicit_gemm/gradient_geometry.hpp"
#include "implicit_gemm/gradient_panels.hpp"
#include "implicit_gemm/pixel_gradient.hpp"
#include "kernels/weight_gemm_table.hpp"
#include "pixel_blocks.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "taps.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Under one tap a row is read once for each panel of columns: not worth packing, unless pixels
/// share a set of the cache.
bool may_lie_in_place(const ConvProblem& problem, std::int64_t rows) {
  const std::int64_t pixel_bytes = rows * problem.groups *
                                   static_cast<std::int64_t>(size_of(problem.dtype));
  return problem.layout == Layout::channels_last && problem.taps() == 1 &&
         !share_a_set(pixel_bytes);
}

/// One operand is broadcast, channel by channel, onto the lanes of the other, which are packed;
/// which channels are the lanes, by how full vectors are and by how many of them are to be packed.
/// A register tile needs eight sums, or they wait for one another.
struct Shape {
  bool source_lanes;         ///< lanes are channels of x
  std::int64_t rows, lanes;  ///< channels of a group
  double cycles;             ///< a pixel and tap, in multiply-adds of vectors

  Shape(const ConvProblem& problem, int vector) {
    const std::int64_t in = problem.in_channels_per_group();
    const std::int64_t out = problem.out_channels_per_group();
    const bool neighbours = problem.windows[2].dilation == 1;
    const auto cost = [&](std::int64_t row_channels, std::int64_t lane_channels, bool spans) {
      const std::int64_t vectors = divide_up(lane_channels, vector);
      const double sums = static_cast<double>(row_channels * std::min<std::int64_t>(vectors, 2)) *
                          static_cast<double>(spans ? problem.windows[2].kernel : 1);
      return static_cast<double>(row_channels * vectors) * std::max(1.0, 8 / sums);
    };
    const auto packing = [&](std::int64_t lane_channels) {
      constexpr double kVector = 6;  // multiply-adds, for all taps
      return kVector * static_cast<double>(divide_up(lane_channels, vector)) /
             static_cast<double>(problem.taps());
    };
    const double by_out = cost(in, out, neighbours);
    const double by_in = cost(out, in, false);
    const Window& width = problem.windows[2];
    // Lanes of x are neighbours under every tap.
    const bool dense = width.kernel == 1 || (width.stride == 1 && width.dilation == 1);
    const bool cheaper = by_in + packing(in) < 0.97 * (by_out + packing(out));
    // Rows that are packed are read by all threads.
    const bool spares_rows = by_in <= by_out && may_lie_in_place(problem, out) &&
                             !may_lie_in_place(problem, in);
    source_lanes = dense && (cheaper || spares_rows);
    rows = source_lanes ? out : in;
    lanes = source_lanes ? in : out;
    cycles = std::min(by_out, source_lanes ? by_in : by_out);
  }
};

bool pixels_as_lanes(const ConvProblem& problem, int vector) {
  return takes_pixel_gradient(problem) &&
         pixel_gradient_cycles(problem, vector) < 0.95 * Shape(problem, vector).cycles;
}

template <class T>
class WeightGradient final : public Execution {
 public:
  WeightGradient(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        geometry_(problem),
        kernels_(kernels_for<T>(machine)),
        threads_(threads),
        shape_(problem, kernels_.lanes),
        taps_(problem.taps()),
        channels_last_(problem.layout == Layout::channels_last),
        planes_(problem.batch * window(0).output) {
    rows_in_place_ = may_lie_in_place(problem, shape_.rows) &&
                     (geometry_.clips() || geometry_.pointwise());
    choose_panels();
    cut_blocks(machine);
    cut_work();
  }

  std::size_t workspace_bytes() const noexcept override {
    return shared_bytes() + thread_bytes() * threads_;
  }

  void run(const ConvArguments& arguments, const void* /*packed*/,
           void* workspace) const noexcept override {
    const Call call{typed<const T>(arguments.x), typed<const T>(arguments.y),
                    static_cast<T*>(arguments.weight), static_cast<T*>(workspace)};
    if (blocks_ == 0) {
      std::fill(call.gradient, call.gradient + problem_.weight_size(), T(0));
      return;
    }
    auto* scratch = static_cast<std::byte*>(workspace) + shared_bytes();
    const auto of_thread = [&](int thread) {
      return Scratch(*this, scratch + thread_bytes() * thread);
    };
    for (int thread = 0; thread < threads_; ++thread) of_thread(thread).forget_lists(*this);
    if (parts_ == 0) {
      run_shared(call, of_thread);
    } else {
      run_parts(call, of_thread);
    }
  }

 private:
  struct Call {
    Maps<const T> x, y;
    T* gradient;
    T* shared;  ///< packed rows, or sums of parts
  };

  /// What lists of runs were made for: a block, and where its operands' pixels are.
  struct ListKey {
    std::int64_t block, source_stride, output_stride;

    bool operator==(const ListKey&) const = default;
  };

  struct Scratch {
    T *rows, *columns, *sums, *total;
    PixelRun* runs;
    std::int64_t* run_counts;
    ListKey* keys;

    Scratch(const WeightGradient& execution, std::byte* bytes) {
      const auto take = [&](std::int64_t elements) {
        T* at = reinterpret_cast<T*>(bytes);
        bytes += aligned_bytes<T>(elements);
        return at;
      };
      rows = take(execution.private_rows());
      columns = take(execution.columns_elements_);
      sums = take(execution.private_sums());
      total = take(execution.total_elements_);
      runs = reinterpret_cast<PixelRun*>(bytes);
      const std::int64_t lists = execution.list_slots_ * execution.lists_;
      bytes += aligned_bytes<PixelRun>(lists * execution.most_runs_);
      run_counts = reinterpret_cast<std::int64_t*>(bytes);
      bytes += aligned_bytes<std::int64_t>(lists);
      keys = reinterpret_cast<ListKey*>(bytes);
    }

    /// Before a run makes its first lists.
    void forget_lists(const WeightGradient& execution) const noexcept {
      std::fill(keys, keys + execution.list_slots_, ListKey{-1, 0, 0});
    }
  };

  std::int64_t private_rows() const noexcept {
    return parts_ == 0 || rows_in_place_ ? 0 : row_panels_ * row_panel_;
  }
  std::int64_t shared_rows() const noexcept {
    return rows_in_place_ ? 0 : problem_.groups * blocks_ * row_panels_ * row_panel_;
  }
  std::int64_t private_sums() const noexcept { return parts_ == 0 ? panel_sums_ : 0; }
  std::size_t shared_bytes() const noexcept {
    return aligned_bytes<T>(parts_ == 0 ? shared_rows()
                                        : parts_ * problem_.groups * column_panels_ * panel_sums_);
  }
  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<T>(private_rows()) + aligned_bytes<T>(columns_elements_) +
           aligned_bytes<T>(private_sums()) + aligned_bytes<T>(total_elements_) +
           aligned_bytes<PixelRun>(list_slots_ * lists_ * most_runs_) +
           aligned_bytes<std::int64_t>(list_slots_ * lists_) + aligned_bytes<ListKey>(list_slots_);
  }

  // ---- planning ----------------------------------------------------------------------------

  void choose_panels() {
    const bool one_vector = shape_.lanes <= kernels_.lanes;
    const std::int64_t tile_rows = (one_vector ? 2 : 1) * std::int64_t{kernels_.tile_rows};
    row_panels_ = divide_up(shape_.rows, tile_rows);
    row_width_ = divide_up(shape_.rows, row_panels_);
    columns_width_ = kernels_.tile_columns;
    column_panels_ = divide_up(shape_.lanes, columns_width_);
    panel_sums_ = shape_.rows * taps_ * columns_width_;

    // The taps of a kernel row lie one behind the other: with few channels they are one panel. With
    // fewer still, the rows of a kernel are.
    const std::int64_t height = window(1).kernel;
    span_ = shape_.rows * window(2).kernel;
    chunks_ = divide_up(span_, tile_rows);
    if (!shape_.source_lanes && geometry_.taps_touch() && 2 * shape_.rows <= tile_rows) {
      const bool whole = one_vector && height * span_ <= tile_rows &&
                         geometry_.axes()[1].shared() &&
                         std::ranges::find(kWeightGemmLines, height) != std::end(kWeightGemmLines);
      span_lines_ = whole ? height : 1;
      geometry_.take_spans(span_lines_);
    }
    lists_ = geometry_.lists();

    constexpr std::int64_t kTotalRows = 128;
    total_channels_ = geometry_.spans()
                          ? shape_.rows
                          : std::clamp<std::int64_t>(kTotalRows / taps_, 1, shape_.rows);
    total_elements_ = total_channels_ * taps_ * columns_width_;
  }

  /// A panel of columns takes half of the L1 cache.
  void cut_blocks(const Machine& machine) {
    const std::int64_t wanted = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(machine.l1_bytes / 2 / sizeof(T)) / columns_width_, 64,
        kMaxChain / 2);
    block_list_ = PixelBlocks(planes_, window(1).output, window(2).output, wanted, wanted);
    blocks_ = block_list_.size();
    const PixelBlock most = block_list_.most();
    most_runs_ = most.planes * most.rows;
    // Lists are the same for all groups and panels: those of a few blocks are kept.
    constexpr std::int64_t kListBytes = 128 << 10;
    list_slots_ = std::clamp<std::int64_t>(
        kListBytes / (lists_ * most_runs_ * static_cast<std::int64_t>(sizeof(PixelRun))), 1,
        std::max<std::int64_t>(1, blocks_));

    const std::int64_t source = geometry_.source_pixels(most), pixels = most.pixels();
    row_panel_ =
        odd_lines<T>((shape_.source_lanes ? pixels : source) * row_width_ + kernels_.lanes);
    columns_elements_ = (shape_.source_lanes ? source : pixels) * columns_width_;
  }

  /// Few pixels: all rows are packed first, and then panels of columns are work of their own. Many:
  /// parts of the pixels have sums of their own, which are added in order.
  void cut_work() {
    constexpr std::int64_t kPixelsOfPart = 1568, kMostParts = 8;
    constexpr std::int64_t kSharedBytes = 16 << 20, kSumBytes = 32 << 20;
    const std::int64_t pixels = planes_ * window(1).output * window(2).output;
    const std::int64_t rows_bytes = shared_rows() * static_cast<std::int64_t>(sizeof(T));
    if (pixels <= kPixelsOfPart && rows_bytes <= kSharedBytes) {
      parts_ = 0;
      return;
    }
    const std::int64_t sums = problem_.groups * column_panels_ * panel_sums_ *
                              static_cast<std::int64_t>(sizeof(T));
    parts_ = std::clamp<std::int64_t>(pixels / kPixelsOfPart, 2, kMostParts) & ~1;
    parts_ = std::min({parts_, blocks_, std::max<std::int64_t>(1, kSumBytes / sums)});
    parts_ = std::max({parts_, divide_up(blocks_, kMaxChain), std::int64_t{1}});
  }

  // ---- packing -----------------------------------------------------------------------------

  using Panels = GradientPanels<T>;

  Panels row_panels(T* data) const noexcept {
    return {0, shape_.rows, row_panels_, row_width_, row_panel_, data};
  }
  Panels column_panel(std::int64_t number, T* data) const noexcept {
    const std::int64_t first = number * columns_width_;
    const std::int64_t channels = std::min(columns_width_, shape_.lanes - first);
    const std::int64_t width = channels <= kernels_.lanes ? kernels_.lanes : columns_width_;
    return {first, channels, 1, width, 0, data};
  }

  void pack(const Call& call, std::int64_t group, const PixelBlock& block, const Panels& panels,
            bool rows) const noexcept {
    const GradientPacking<T> packing(geometry_, kernels_);
    if (rows == shape_.source_lanes) {
      packing.pack_output(call.y, group * problem_.out_channels_per_group(), block, panels);
    } else {
      packing.pack_source(call.x, group * problem_.in_channels_per_group(), block, panels);
    }
  }

  // ---- products ----------------------------------------------------------------------------

  struct Operand {
    const T* data;
    OperandStrides strides;
  };

  static Operand in_place(const Maps<const T>& maps, std::int64_t channel) noexcept {
    return {maps.data + channel * maps.channel_stride, {maps.pixel_stride, maps.sample_stride, false}};
  }

  Operand rows_in_place(const Call& call, std::int64_t group) const noexcept {
    return in_place(shape_.source_lanes ? call.y : call.x, group * shape_.rows);
  }

  /// Columns need no packing where they lie as if packed, or where few tiles read them.
  Operand columns_of(const Call& call, std::int64_t group, const PixelBlock& block,
                     const Panels& panel) const noexcept {
    const Maps<const T>& maps = shape_.source_lanes ? call.x : call.y;
    constexpr std::int64_t kFewTiles = 2;
    const bool plain = !shape_.source_lanes || geometry_.pointwise();
    if (channels_last_ && plain && panel.channels == panel.width &&
        (maps.pixel_stride == panel.width || row_panels_ * taps_ <= kFewTiles)) {
      return in_place(maps, group * shape_.lanes + panel.first);
    }
    pack(call, group, block, panel, false);
    return {panel.data, {panel.width, 0, true}};
  }

  std::pair<OperandStrides, OperandStrides> source_and_output(
      const Operand& rows, const Operand& columns) const noexcept {
    if (shape_.source_lanes) return {columns.strides, rows.strides};
    return {rows.strides, columns.strides};
  }

  /// The lists of a block; returns their slot.
  std::int64_t find_lists(const Operand& rows, const Operand& columns, std::int64_t number,
                          const Scratch& scratch) const noexcept {
    const std::int64_t slot = number % list_slots_;
    const auto& [source, output] = source_and_output(rows, columns);
    const ListKey key{number, 2 * source.pixel + source.packed,
                      2 * output.pixel + output.packed};
    if (scratch.keys[slot] == key) return slot;
    scratch.keys[slot] = key;
    const PixelBlock block = block_list_[number];
    for (std::int64_t list = slot * lists_; list < (slot + 1) * lists_; ++list) {
      scratch.run_counts[list] = geometry_.list_runs(source, output, block, list - slot * lists_,
                                                     shape_.source_lanes,
                                                     scratch.runs + list * most_runs_);
    }
    return slot;
  }

  /// What will be read later, one piece after the other, to be fetched a line a pixel.
  class Stream {
   public:
    void add(const T* begin, std::int64_t elements) noexcept {
      constexpr std::int64_t kMost = (256 << 10) / sizeof(T);
      pieces_[count_++] = {begin, begin + std::min(kMost, elements)};
    }
    /// Where the next lines begin, or null; so many of them are fetched.
    const T* take(std::int64_t lines) noexcept {
      while (next_ < count_ && pieces_[next_].at >= pieces_[next_].end) ++next_;
      if (next_ == count_) return nullptr;
      const T* at = pieces_[next_].at;
      pieces_[next_].at += lines * kLine;
      return at;
    }
    static constexpr std::int64_t kLine = kAlignment / sizeof(T);

   private:
    struct Piece {
      const T *at, *end;
    };
    std::array<Piece, 2> pieces_;
    int count_ = 0, next_ = 0;
  };

  /// The first plane of a block of the output, and of the source where its pixels lie alike, if
  /// channels are neighbours.
  Stream stream_of(const Call& call, std::int64_t group, std::int64_t number) const noexcept {
    Stream stream;
    if (!channels_last_) return stream;
    const PixelBlock block = block_list_[number];
    const auto add = [&](const Maps<const T>& maps, std::int64_t channels) {
      const Operand operand = in_place(maps, group * channels);
      stream.add(operand.data + geometry_.output_at(operand.strides, block),
                 block.rows * block.columns * operand.strides.pixel);
    };
    add(call.y, problem_.out_channels_per_group());
    if (geometry_.pointwise()) add(call.x, problem_.in_channels_per_group());
    return stream;
  }

  /// Adds a block's products to the sums of a panel of columns, for some panels of rows.
  void multiply(const Operand& rows, const Operand& columns, std::int64_t width,
                std::int64_t number, const Scratch& scratch, const Range& panels, T* sums,
                bool accumulate, Stream& stream) const noexcept {
    const PixelBlock block = block_list_[number];
    const std::int64_t pixels = block.pixels();
    const std::int64_t first_list = find_lists(rows, columns, number, scratch) * lists_;
    const PixelRun* runs = scratch.runs + first_list * most_runs_;
    const std::int64_t* run_counts = scratch.run_counts + first_list;
    WeightGemmTile<T> tile{};
    const auto& [source, output] = source_and_output(rows, columns);
    tile.rows_pixel_stride = geometry_.source_step(source);
    tile.columns_pixel_stride = output.pixel;
    if (shape_.source_lanes) std::swap(tile.rows_pixel_stride, tile.columns_pixel_stride);
    tile.columns = columns.data;
    tile.vectors = static_cast<int>(width / kernels_.lanes);
    tile.accumulate = accumulate;
    tile.lines = 1;
    const auto run_tile = [&](const Range& range) {
      tile.row_count = static_cast<int>(range.end - range.begin);
      const T* ahead = stream.take(pixels);
      tile.prefetch = ahead != nullptr ? ahead : columns.data;
      tile.prefetch_stride = ahead != nullptr ? Stream::kLine : 0;
      if (tile.run_count > 0 || !accumulate) kernels_.weight_gemm->tile(tile);
    };
    if (geometry_.spans()) {
      tile.sum_row_stride = width;
      tile.lines = static_cast<int>(span_lines_);
      tile.rows_line_stride = geometry_.line_pixels(block) * source.pixel;
      for (std::int64_t list = 0; list < lists_; ++list) {
        tile.runs = runs + list * most_runs_;
        tile.run_count = run_counts[list];
        for (std::int64_t chunk = 0; chunk < chunks_; ++chunk) {
          const Range range = panel_channels(chunk, chunks_, span_);
          tile.rows = rows.data + range.begin;
          tile.sum = sums + (list * span_lines_ * span_ + range.begin) * width;
          run_tile(range);
        }
      }
      return;
    }
    tile.sum_row_stride = taps_ * width;
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const Range channels = panel_channels(panel, row_panels_, shape_.rows);
      tile.rows = rows.data + (rows.strides.packed ? panel * row_panel_ : channels.begin);
      for (std::int64_t tap = 0; tap < taps_; ++tap) {
        tile.runs = runs + tap * most_runs_;
        tile.run_count = run_counts[tap];
        tile.sum = sums + (channels.begin * taps_ + tap) * width;
        run_tile(channels);
      }
    }
  }

  template <class OfThread>
  void run_shared(const Call& call, const OfThread& of_thread) const noexcept {
    const std::int64_t block_rows = row_panels_ * row_panel_;
    const std::int64_t to_pack = rows_in_place_ ? 0 : problem_.groups * blocks_;
    parallel_for(threads_, to_pack, [&](std::int64_t index, int) {
      pack(call, index / blocks_, block_list_[index % blocks_],
           row_panels(call.shared + index * block_rows), true);
    });
    // Shares of equal numbers of tiles, in vectors, end within a panel of columns if need be. No
    // sum depends on it.
    constexpr std::int64_t kSharesOfThread = 8;
    const std::int64_t panels = problem_.groups * column_panels_;
    const std::int64_t shares = std::clamp<std::int64_t>(panels / threads_, 1, kSharesOfThread) *
                                threads_;
    const std::int64_t vectors = group_vectors() * problem_.groups * row_panels_;
    parallel_for(threads_, shares, [&](std::int64_t share, int thread) {
      const Scratch scratch = of_thread(thread);
      const TilePlace begin = place_of(share * vectors / shares);
      const TilePlace end = place_of((share + 1) * vectors / shares);
      for (std::int64_t panel = begin.panel; panel <= std::min(end.panel, panels - 1); ++panel) {
        const Range rows{panel == begin.panel ? begin.row_panel : 0,
                         panel == end.panel ? end.row_panel : row_panels_};
        if (rows.begin < rows.end) run_panel(call, panel, rows, scratch);
      }
    });
  }

  /// Of the lanes of a group.
  std::int64_t group_vectors() const noexcept {
    return divide_up(shape_.lanes, std::int64_t{kernels_.lanes});
  }

  /// A tile among those of all panels of columns, in order.
  struct TilePlace {
    std::int64_t panel, row_panel;
  };

  /// Where so many vectors of tiles end. Spans are not cut.
  TilePlace place_of(std::int64_t vectors) const noexcept {
    const std::int64_t of_group = group_vectors() * row_panels_;
    const std::int64_t of_panel = columns_width_ / kernels_.lanes * row_panels_;
    const std::int64_t group = vectors / of_group, in_group = vectors % of_group;
    const std::int64_t panel = in_group / of_panel;
    const std::int64_t width = std::min(of_panel, of_group - panel * of_panel) / row_panels_;
    const std::int64_t row_panel = geometry_.spans() ? 0 : in_group % of_panel / width;
    return {group * column_panels_ + panel, row_panel};
  }

  /// The gradients of some panels of rows in a panel of columns, where all rows are packed.
  void run_panel(const Call& call, std::int64_t panel, const Range& some,
                 const Scratch& scratch) const noexcept {
    const std::int64_t group = panel / column_panels_;
    const Panels columns = column_panel(panel % column_panels_, scratch.columns);
    const std::int64_t block_rows = row_panels_ * row_panel_;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      Operand rows{call.shared + (group * blocks_ + b) * block_rows, {row_width_, 0, true}};
      if (rows_in_place_) rows = rows_in_place(call, group);
      Stream stream;
      multiply(rows, columns_of(call, group, block_list_[b], columns), columns.width, b, scratch,
               some, scratch.sums, b > 0, stream);
    }
    const std::int64_t begin = panel_channels(some.begin, row_panels_, shape_.rows).begin;
    const std::int64_t end = panel_channels(some.end - 1, row_panels_, shape_.rows).end;
    finish(call, group, columns, geometry_.spans() ? Range{0, shape_.rows} : Range{begin, end},
           scratch.sums);
  }

  template <class OfThread>
  void run_parts(const Call& call, const OfThread& of_thread) const noexcept {
    const std::int64_t part_sums = problem_.groups * column_panels_ * panel_sums_;
    const std::int64_t units = problem_.groups * parts_ * column_panels_;
    // Rows are packed anew for every range.
    const std::int64_t grain = std::min(column_panels_, divide_up(units, 4 * threads_));
    parallel_ranges(threads_, units, grain, [&](const Range& range, int thread) {
      const Scratch scratch = of_thread(thread);
      for (std::int64_t unit = range.begin; unit < range.end;) {
        const std::int64_t part = unit / column_panels_ % parts_;
        const std::int64_t group = unit / column_panels_ / parts_;
        const std::int64_t first = unit % column_panels_;
        const std::int64_t last = std::min(column_panels_, first + range.end - unit);
        const Range blocks =
            Range::share(blocks_, static_cast<int>(part), static_cast<int>(parts_));
        T* sums = call.shared + part * part_sums + group * column_panels_ * panel_sums_;
        for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
          const PixelBlock where = block_list_[b];
          Operand rows{scratch.rows, {row_width_, 0, true}};
          if (rows_in_place_) {
            rows = rows_in_place(call, group);
          } else {
            pack(call, group, where, row_panels(scratch.rows), true);
          }
          Stream stream;
          if (b + 1 < blocks.end) stream = stream_of(call, group, b + 1);
          for (std::int64_t number = first; number < last; ++number) {
            const Panels columns = column_panel(number, scratch.columns);
            multiply(rows, columns_of(call, group, where, columns), columns.width, b, scratch,
                     {0, row_panels_}, sums + number * panel_sums_, b > blocks.begin, stream);
          }
        }
        unit += last - first;
      }
    });
    const std::int64_t chunks = divide_up(shape_.rows, total_channels_);
    parallel_for(
        threads_, problem_.groups * column_panels_ * chunks, [&](std::int64_t unit, int thread) {
          const Scratch scratch = of_thread(thread);
          const std::int64_t panel = unit / chunks;
          const Panels columns = column_panel(panel % column_panels_, nullptr);
          const std::int64_t begin = unit % chunks * total_channels_;
          const Range channels{begin, std::min(shape_.rows, begin + total_channels_)};
          const std::int64_t row = taps_ * columns.width;
          const std::int64_t count = (channels.end - begin) * row;
          const T* part = call.shared + panel * panel_sums_ + begin * row;
          std::copy(part, part + count, scratch.total);
          for (std::int64_t n = 1; n < parts_; ++n) {
            part += part_sums;
            kernels_.add(count, part, scratch.total);
          }
          finish(call, panel / column_panels_, columns, channels, scratch.total - begin * row);
        });
  }

  /// Writes the gradient of some channels of rows. `sums` are [channel][tap][lane], or those of
  /// spans [tap][channel][lane].
  void finish(const Call& call, std::int64_t group, const Panels& columns, const Range& channels,
              const T* sums) const noexcept {
    const std::int64_t in = problem_.in_channels_per_group();
    T* to = call.gradient + group * problem_.out_channels_per_group() * in * taps_;
    const std::int64_t width = columns.width;
    if (shape_.source_lanes) {
      to += columns.first * taps_;
      for (std::int64_t k = channels.begin; k < channels.end; ++k) {
        const T* from = sums + k * taps_ * width;
        if (taps_ == 1) {
          std::copy(from, from + columns.channels, to + k * in);
        } else {
          kernels_.transpose(taps_, columns.channels, from, width, 1, to + k * in * taps_, taps_,
                             1);
        }
      }
      return;
    }
    to += columns.first * in * taps_;
    if (geometry_.spans()) {
      for (std::int64_t c = 0; c < in; ++c) {
        kernels_.transpose(taps_, columns.channels, sums + c * width, in * width, 1, to + c * taps_,
                           in * taps_, 1);
      }
      return;
    }
    kernels_.transpose((channels.end - channels.begin) * taps_, columns.channels,
                       sums + channels.begin * taps_ * width, width, 1, to + channels.begin * taps_,
                       in * taps_, 1);
  }

  const Window& window(int axis) const noexcept { return geometry_.windows()[axis]; }

  ConvProblem problem_;
  GradientGeometry geometry_;
  const Kernels<T>& kernels_;
  int threads_;
  Shape shape_;
  std::int64_t taps_;
  bool channels_last_;
  std::int64_t planes_;
  bool rows_in_place_;

  std::int64_t row_panels_, row_width_, row_panel_;  ///< row_panel_: elements
  std::int64_t column_panels_, columns_width_, columns_elements_;
  std::int64_t panel_sums_;  ///< of a panel of columns
  /// The taps of a kernel row may be rows of one panel, a span; those of several lines together.
  std::int64_t lists_, span_, span_lines_ = 1, chunks_;
  std::int64_t total_channels_, total_elements_;

  PixelBlocks block_list_;
  std::int64_t blocks_, most_runs_, list_slots_;
  std::int64_t parts_;  ///< 0: rows are packed once for all threads
};

}  // namespace

std::unique_ptr<const Execution> make_weight_gradient(const ConvProblem& problem,
                                                      const Machine& machine, int threads) {
  if (pixels_as_lanes(problem, lanes_of(problem.dtype, machine))) {
    return make_pixel_gradient(problem, machine, threads);
  }
  return make_typed<WeightGradient>(problem, machine, threads);
}

std::string weight_gradient_refusal(const ConvProblem& problem) {
  constexpr std::int64_t kFewestInBlock = 32;
  const double terms = static_cast<double>(problem.batch) *
                       static_cast<double>(problem.output_pixels());
  if (terms <= static_cast<double>(kMaxChain) * kMaxChain * kFewestInBlock) return {};
  return "sums of " + std::to_string(static_cast<std::int64_t>(terms)) +
         " products would be folded in a chain above " + std::to_string(kMaxChain);
}

double weight_gradient_cost(const ConvProblem& problem, const Machine& machine) {
  const bool wide = problem.dtype == DType::float64;
  const int lanes = lanes_of(problem.dtype, machine);
  const bool by_pixels = pixels_as_lanes(problem, lanes);
  const double cycles = by_pixels ? pixel_gradient_cycles(problem, lanes)
                                  : Shape(problem, lanes).cycles;
  const auto pixels = static_cast<double>(problem.batch * problem.output_pixels());
  const auto bytes = static_cast<double>(size_of(problem.dtype));
  double products = 2 * pixels * static_cast<double>(problem.groups * problem.taps()) * cycles *
                    lanes;
  // Products with padding are left out.
  if (problem.padding_mode == PaddingMode::zeros && !by_pixels) {
    for (const Window& window : problem.windows) products *= share_inside(window);
  }
  // In channels_last every group reads pieces of pixels, and cache lines that are shared.
  double pieces = 1;
  if (problem.groups > 1 && problem.layout == Layout::channels_last) {
    const double piece = bytes * static_cast<double>(problem.in_channels_per_group());
    pieces = 3 * std::max(1.0, static_cast<double>(kAlignment) / piece);
  }
  const double moved = bytes * (pieces * static_cast<double>(problem.x_size() + problem.y_size()) +
                                3 * static_cast<double>(problem.weight_size()));
  constexpr double kCall = 2e-6, kGroup = 4e-6;
  constexpr double kLine = 1.5e-7;  // of pixels as lanes
  const auto lines = static_cast<double>(problem.batch * problem.groups *
                                         problem.windows[0].output * problem.windows[1].output);
  return products / (machine.flops_per_second[wide] * 0.9) + (by_pixels ? lines * kLine : 0) +
         static_cast<double>(problem.groups) * kGroup + moved / (2 * machine.bytes_per_second) +
         kCall;
}

}  // namespace convolith
