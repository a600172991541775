#include "winograd/execution.hpp"

#include <algorithm>

#include "arithmetic.hpp"
#include "epilogue.hpp"
#include "phases.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"
#include "winograd/blocks.hpp"
#include "winograd/source_transform.hpp"
#include "winograd/weight_transform.hpp"

namespace convolith {
namespace {

/// V = transformed sources [frequency][tile][tap, channel], U = transformed weights, M = V U for a
/// group of panels of output channels. A unit of work is a block of tiles, or a share of its
/// panels, and goes through all three steps.
template <class T>
class WinogradExecution final : public Execution {
 public:
  WinogradExecution(const ConvProblem& problem, const WinogradGeometry& geometry,
                    const Machine& machine, int threads)
      : problem_(problem),
        geometry_(geometry),
        kernels_(kernels_for<T>(machine)),
        form_(geometry.square() ? kernels_.winograd->square[geometry.size]
                                : kernels_.winograd->line[geometry.size]),
        threads_(threads),
        channels_last_(problem.layout == Layout::channels_last),
        tile_panels_(pairs_panels<T>(machine) ? 2 : 1),
        source_(problem, geometry, form_, machine),
        weight_(problem, geometry, form_, machine, source_.tap_row()) {
    const std::int64_t lanes = kernels_.lanes;
    frequencies_ = geometry.frequencies();
    // An empty batch is planned as one sample.
    const std::int64_t tiles = geometry.tiles() * std::max<std::int64_t>(1, problem.batch);
    terms_ = geometry.reduced_taps == 1 ? geometry.reduced : source_.row();
    panels_ = divide_up(geometry.produced, kernels_.tile_columns);
    const bool few_tiles = geometry.few_tiles(problem.batch, kernels_.tile_rows);
    // Transformed weights of a chunk stay in L2.
    const std::int64_t longest =
        few_tiles ? std::min<std::int64_t>(kMaxChain, kChunkWeights / frequencies_) : kMaxChain;
    term_chunk_ = divide_up(terms_, divide_up(terms_, longest));
    for (Cut* cut : {&packed_cut_, &fresh_cut_}) {
      cut->blocks = WinogradBlocks(
          {problem.groups, frequencies_, tiles, terms_, panels_, round_up(geometry.produced, lanes),
           source_.row(), sizeof(T), kernels_.tile_rows, kernels_.tile_columns, cut == &fresh_cut_},
          machine, threads);
      cut->source_stride = odd_lines<T>(cut->blocks.tiles * source_.row());
      cut->product_row = cut->blocks.panels * kernels_.tile_columns;
      cut->product_stride = odd_lines<T>(cut->blocks.tiles * cut->product_row);
    }
    weight_stride_ = odd_lines<T>(packed_cut_.blocks.panels * terms_ * kernels_.tile_columns);
    chunk_stride_ = odd_lines<T>(term_chunk_ * kernels_.tile_columns);

    past_caches_ = channels_last_ && maps_outgrow_caches(problem);
    if (!channels_last_) {
      const int vertical = source_.runs().vertical_axis();
      const std::int64_t out_rows = vertical < 0 ? 1 : geometry.axes[vertical].tile_outputs;
      output_strip_elements_ = out_rows * source_.longest_run() * geometry.axes[2].tile_outputs *
                               lanes;
    }
  }

  std::size_t workspace_bytes() const noexcept override {
    return thread_bytes(packed_cut_, true) * threads_;
  }

  /// Each unit transforms the weights that it multiplies with, though another may need the same:
  /// that is sooner done than to fetch them from another core's cache.
  std::size_t unpacked_workspace_bytes() const noexcept override {
    if (geometry_.reduced_taps > 1 || fresh_cut_.blocks.count > threads_) return 0;
    return thread_bytes(fresh_cut_, false) * threads_;
  }

  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(problem_.groups * packed_cut_.blocks.panel_groups *
                                    frequencies_ * weight_stride_) *
           sizeof(T);
  }

  /// [group][group of panels][frequency][panel][tap, channel][lane]
  void pack(const void* weight, void* packed) const noexcept override {
    auto* target = static_cast<T*>(packed);
    const std::int64_t columns = kernels_.tile_columns;
    const WinogradBlocks& blocks = packed_cut_.blocks;
    parallel_for(threads_, problem_.groups * panels_, [&](std::int64_t index, int) {
      const std::int64_t panel = index % panels_, group = index / panels_;
      T* to = target +
              (group * blocks.panel_groups + panel / blocks.panels) * frequencies_ *
                  weight_stride_ +
              panel % blocks.panels * terms_ * columns;
      weight_.run(static_cast<const T*>(weight), group, panel, {0, geometry_.reduced}, to,
                  weight_stride_);
      if (terms_ == geometry_.reduced) return;
      for (std::int64_t f = 0; f < frequencies_; ++f) {
        for (std::int64_t tap = 0; tap < geometry_.reduced_taps; ++tap) {
          T* rows = to + f * weight_stride_ + tap * source_.tap_row() * columns;
          std::fill(rows + geometry_.reduced * columns, rows + source_.tap_row() * columns, T(0));
        }
      }
    });
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const Call call(*this, arguments, static_cast<const T*>(packed));
    const WinogradBlocks& blocks = call.cut.blocks;
    const std::size_t thread_bytes = this->thread_bytes(call.cut, packed != nullptr);
    const std::int64_t units = problem_.groups * blocks.count * blocks.shares;
    parallel_for(threads_, units, [&](std::int64_t unit, int thread) {
      Scratch scratch(*this, call.cut, static_cast<std::byte*>(workspace) + thread_bytes * thread,
                      packed != nullptr);
      const std::int64_t block = unit / blocks.shares;
      const std::int64_t group = block / blocks.count;
      const Range tiles = blocks.block(block % blocks.count);
      source_.run(call.source, group, tiles, scratch.sources, call.cut.source_stride,
                  scratch.of_source);
      const Range panel_groups = blocks.groups_of(unit % blocks.shares);
      for (std::int64_t panels = panel_groups.begin; panels < panel_groups.end; ++panels) {
        multiply(call, group, panels, tiles.end - tiles.begin, scratch);
        transform_products(call, group, panels, tiles, scratch);
      }
    });
  }

 private:
  struct Cut {
    WinogradBlocks blocks;
    std::int64_t source_stride;                ///< of V, between frequencies
    std::int64_t product_row, product_stride;  ///< of M, between tiles and between frequencies
  };

  /// The arrays of a run, as the tiles see them.
  struct Call {
    const Cut& cut;
    Maps<const T> source;
    Maps<T> output;
    BoundEpilogue<T> epilogue;
    const T* packed;  ///< null: weights are transformed as they are wanted
    const T* weight;
    const T* bias;        ///< added by the transform of the products, as are the limits
    T least, greatest;
    bool epilogue_apart;  ///< what the transform cannot do
    bool adds_residual;   ///< the transform does
    bool past_caches;     ///< where output pixels are aligned

    Call(const WinogradExecution& execution, const ConvArguments& arguments, const T* packed_weight)
        : cut(packed_weight != nullptr ? execution.packed_cut_ : execution.fresh_cut_),
          source(typed<const T>(is_adjoint(execution.problem_) ? arguments.y : arguments.x)),
          output(typed<T>(is_adjoint(execution.problem_) ? arguments.x : arguments.y)),
          epilogue(execution.problem_, arguments),
          packed(packed_weight),
          weight(static_cast<const T*>(arguments.weight)),
          bias(nullptr),
          epilogue_apart(false) {
      const FusedClamp<T> fused(execution.problem_.epilogue, execution.channels_last_);
      epilogue_apart = fused.rest;
      adds_residual = fused.adds_residual;
      past_caches = execution.past_caches_ && !epilogue_apart;
      least = fused.least;
      greatest = fused.greatest;
      if (!epilogue_apart && execution.problem_.epilogue.bias) {
        bias = static_cast<const T*>(arguments.bias);
      }
    }
  };

  struct Scratch {
    T* sources;   ///< V
    T* products;  ///< M
    T* weights;   ///< U of a chunk of terms, unless it is packed
    T* output_strip;
    typename SourceTransform<T>::Scratch of_source;

    Scratch(const WinogradExecution& execution, const Cut& cut, std::byte* bytes, bool packed) {
      const auto take = [&](std::int64_t elements) {
        T* at = reinterpret_cast<T*>(bytes);
        bytes += aligned_bytes<T>(elements);
        return at;
      };
      sources = take(cut.source_stride * execution.frequencies_);
      products = take(cut.product_stride * execution.frequencies_);
      weights = take(packed ? 0 : execution.chunk_stride_ * execution.frequencies_);
      output_strip = take(execution.output_strip_elements_);
      of_source = execution.source_.scratch(bytes);
    }
  };

  std::size_t thread_bytes(const Cut& cut, bool packed) const noexcept {
    return aligned_bytes<T>(cut.source_stride * frequencies_) +
           aligned_bytes<T>(cut.product_stride * frequencies_) +
           aligned_bytes<T>(packed ? 0 : chunk_stride_ * frequencies_) +
           aligned_bytes<T>(output_strip_elements_) + source_.scratch_bytes();
  }

  // ---- products ----------------------------------------------------------------------------

  void multiply(const Call& call, std::int64_t group, std::int64_t panel_group, std::int64_t count,
                const Scratch& scratch) const noexcept {
    const WinogradBlocks& blocks = call.cut.blocks;
    const std::int64_t columns = kernels_.tile_columns;
    const std::int64_t first_panel = panel_group * blocks.panels;
    const std::int64_t panels = std::min(blocks.panels, panels_ - first_panel);
    if (call.packed == nullptr) {
      for (std::int64_t panel = 0; panel < panels; ++panel) {
        for (std::int64_t term = 0; term < terms_; term += term_chunk_) {
          const Range terms{term, std::min(terms_, term + term_chunk_)};
          weight_.run(call.weight, group, first_panel + panel, terms, scratch.weights,
                      chunk_stride_);
          for (std::int64_t f = 0; f < frequencies_; ++f) {
            const T* weights = scratch.weights + f * chunk_stride_;
            multiply_panels(call.cut, f, terms, first_panel, {panel, panel + 1}, count, weights,
                            weights + chunk_stride_, scratch);
          }
        }
      }
      return;
    }
    // With few tiles, two panels of weights would come in as often as one.
    constexpr int kManyTiles = 4;
    const std::int64_t together = count >= kManyTiles * kernels_.paired_rows ? tile_panels_ : 1;
    // Weights may come from memory: those of a product are fetched during the one before.
    const T* packed = call.packed +
                      (group * blocks.panel_groups + panel_group) * frequencies_ * weight_stride_;
    const auto weights_of = [&](std::int64_t f, std::int64_t term, std::int64_t panel) {
      return packed + f * weight_stride_ + (panel * terms_ + term) * columns;
    };
    for (std::int64_t f = 0; f < frequencies_; ++f) {
      for (std::int64_t term = 0; term < terms_; term += term_chunk_) {
        const Range terms{term, std::min(terms_, term + term_chunk_)};
        for (Range part{0, 0}; part.begin < panels; part.begin = part.end) {
          part.end = std::min(part.begin + together, panels);
          const T* next = part.end < panels    ? weights_of(f, term, part.end)
                          : terms.end < terms_ ? weights_of(f, terms.end, 0)
                                               : weights_of(f + 1, 0, 0);
          multiply_panels(call.cut, f, terms, first_panel, part, count,
                          weights_of(f, term, part.begin), next, scratch);
        }
      }
    }
  }

  /// Adds some terms of one frequency to the products of a register tile's panels, counted from
  /// the first of their group; fetches as many of the weights that are `next`.
  void multiply_panels(const Cut& cut, std::int64_t f, const Range& terms, std::int64_t first_panel,
                       const Range& panels, std::int64_t count, const T* weights, const T* next,
                       const Scratch& scratch) const noexcept {
    const std::int64_t columns = kernels_.tile_columns;
    WinogradProduct<T> product{};
    // Whole vectors: the transform reads them, and what is not a product may be subnormal.
    const std::int64_t produced = round_up(geometry_.produced, std::int64_t{kernels_.lanes});
    product.columns = static_cast<int>(std::min((panels.end - panels.begin) * columns,
                                                produced - (first_panel + panels.begin) * columns));
    product.terms = terms.end - terms.begin;
    product.rows = static_cast<int>(count);
    product.tiles = scratch.sources + f * cut.source_stride + terms.begin;
    product.tile_stride = source_.row();
    product.weight = weights;
    product.panel_stride = terms_ * columns;
    product.products = scratch.products + f * cut.product_stride + panels.begin * columns;
    product.product_stride = cut.product_row;
    product.accumulate = terms.begin > 0;
    product.ahead = next;
    kernels_.winograd->product(product);
  }

  void transform_products(const Call& call, std::int64_t group, std::int64_t panel_group,
                          Range tiles, const Scratch& scratch) const noexcept {
    const std::int64_t product_row = call.cut.product_row;
    const std::int64_t first = panel_group * product_row;
    const std::int64_t channels = std::min(product_row, geometry_.produced - first);
    const std::int64_t channel = group * geometry_.produced + first;
    const WinogradAxis& width = geometry_.axes[2];
    const TileRuns& runs = source_.runs();
    const int vertical_axis = runs.vertical_axis();
    runs.for_each(tiles, source_.longest_run(), [&](const TileRun& run, std::int64_t index) {
      const std::int64_t pixel =
          (run.depth.first * geometry_.axes[1].outputs + run.height.first) * width.outputs +
          run.width.first;
      // Between rows of a tile, and between neighbours in a row.
      std::int64_t row_pixels = 0;
      int rows = 1;
      if (vertical_axis >= 0) {
        const WinogradAxis& vertical = geometry_.axes[vertical_axis];
        row_pixels = vertical.dilation * width.outputs *
                     (vertical_axis == 0 ? geometry_.axes[1].outputs : 1);
        rows = static_cast<int>(runs.tile_of(run, vertical_axis).count);
      }
      const std::int64_t step = width.transformed ? width.dilation : 1;
      const std::int64_t outputs = width.tile_outputs;
      const std::int64_t run_outputs = (run.count - 1) * outputs + run.last_outputs;

      WinogradOutput<T> out{};
      out.products = scratch.products + (index - tiles.begin) * product_row;
      out.frequency_stride = call.cut.product_stride;
      out.tile_stride = product_row;
      out.least = call.least;
      out.greatest = call.greatest;
      out.rows = width.transformed ? rows : 1;
      T* output = call.output.sample(run.sample, channel) + pixel * call.output.pixel_stride;
      // All tiles of the run; the last one may have fewer outputs on the last axis.
      const auto transform = [&](std::int64_t row_stride, std::int64_t pixel_stride) {
        out.row_stride = row_stride;
        out.column_stride = width.transformed ? pixel_stride : row_stride;
        out.output_tile_stride = outputs * pixel_stride;
        out.columns = width.transformed ? static_cast<int>(outputs) : rows;
        out.tiles = run.count;
        if (run.last_outputs == outputs) {
          form_.output(out);
          return;
        }
        --out.tiles;
        form_.output(out);
        WinogradOutput<T> last = out;
        last.products += out.tiles * out.tile_stride;
        last.output += out.tiles * out.output_tile_stride;
        if (out.residual != nullptr) last.residual += out.tiles * out.residual_tile_stride;
        last.tiles = 1;
        last.columns = static_cast<int>(run.last_outputs);
        form_.output(last);
      };
      if (channels_last_) {
        const std::int64_t pixel_stride = call.output.pixel_stride;
        out.channels = channels;
        out.bias = call.bias == nullptr ? nullptr : call.bias + channel;
        out.output = output;
        out.past_caches = call.past_caches;
        if (call.adds_residual) {
          const TileEpilogue<T> rest = call.epilogue.rest(run.sample, channel, pixel);
          out.residual = rest.residual;
          out.residual_row_stride = row_pixels * rest.residual_row_stride;
          out.residual_column_stride = width.transformed ? step * rest.residual_row_stride
                                                         : out.residual_row_stride;
          out.residual_tile_stride = outputs * step * rest.residual_row_stride;
        }
        transform(row_pixels * pixel_stride, step * pixel_stride);
        if (call.epilogue_apart) {
          for (int r = 0; r < rows; ++r) {
            kernels_.epilogue(
                call.epilogue.tile(run.sample, channel, pixel + r * row_pixels, step),
                static_cast<int>(run_outputs), static_cast<int>(channels),
                output + r * row_pixels * pixel_stride, step * pixel_stride, 1);
          }
        }
        return;
      }
      const int lanes = kernels_.lanes;
      const std::int64_t strip_row = run.count * outputs * lanes;
      for (std::int64_t k = 0; k < channels; k += lanes) {
        const auto count = static_cast<int>(std::min<std::int64_t>(lanes, channels - k));
        WinogradOutput<T> whole = out;
        out.channels = count;
        out.bias = call.bias == nullptr ? nullptr : call.bias + channel + k;
        out.output = scratch.output_strip;
        transform(strip_row, lanes);
        for (int r = 0; r < rows; ++r) {
          T* maps = output + k * call.output.channel_stride + r * row_pixels;
          store_row(scratch.output_strip + r * strip_row, run_outputs, count, maps,
                    call.output.channel_stride, step);
          if (call.epilogue_apart) {
            kernels_.epilogue(
                call.epilogue.tile(run.sample, channel + k, pixel + r * row_pixels, step), count,
                static_cast<int>(run_outputs), maps, call.output.channel_stride, step);
          }
        }
        out = whole;
        out.products += lanes;
      }
    });
    if (call.past_caches) kernels_.drain_streams();
  }

  void store_row(const T* strip, std::int64_t pixels, int channels, T* maps,
                 std::int64_t channel_stride, std::int64_t step) const noexcept {
    if (step == 1) {
      kernels_.winograd->store_strip(strip, static_cast<int>(pixels), channels, maps,
                                     channel_stride);
      return;
    }
    for (int c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < pixels; ++p) {
        maps[c * channel_stride + p * step] = strip[p * kernels_.lanes + c];
      }
    }
  }

  static constexpr std::int64_t kChunkWeights = 4608;  ///< of a lane: 576 KiB of AVX-512

  ConvProblem problem_;
  WinogradGeometry geometry_;
  const Kernels<T>& kernels_;
  const WinogradForm<T>& form_;
  int threads_;
  bool channels_last_;
  std::int64_t tile_panels_;  ///< of a register tile, at most
  SourceTransform<T> source_;
  WeightTransform<T> weight_;
  std::int64_t frequencies_;
  std::int64_t terms_, term_chunk_;    ///< summed in all, and in one sweep
  bool past_caches_;
  std::int64_t panels_;
  Cut packed_cut_, fresh_cut_;  ///< of runs with packed weights, and of those that transform them
  std::int64_t weight_stride_, chunk_stride_;
  std::int64_t output_strip_elements_ = 0;
};

}  // namespace

std::unique_ptr<const Execution> make_winograd(const ConvProblem& problem,
                                               const WinogradGeometry& geometry,
                                               const Machine& machine, int threads) {
  return make_typed<WinogradExecution>(problem, geometry, machine, threads);
}

}  // namespace convolith
