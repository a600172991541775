#include "stride_two/stride_two.hpp"

#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "directed_call.hpp"
#include "epilogue.hpp"
#include "kernels/grouped_table.hpp"
#include "row_share.hpp"
#include "runtime/cpu.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// An axis of the output in pairs; pair p reads the sources p + first, p + first + 1, ...
struct PairAxis {
  std::int64_t outputs, sources, pairs, first;
  int taken;  ///< sources of a pair

  explicit PairAxis(const Window& window)
      : outputs(window.input), sources(window.output), pairs(divide_up(window.input, 2)) {
    const bool odd = window.before % 2 != 0;
    taken = stride_two_taps(static_cast<int>(window.kernel), odd).sources;
    first = window.before / 2 + (odd ? 1 : 0) - (taken - 1);
  }

  bool exists(std::int64_t source) const noexcept { return source >= 0 && source < sources; }
};

template <class T>
class StrideTwo : public Execution {
 public:
  StrideTwo(const ConvProblem& problem, const Machine& machine, int threads)
      : problem_(problem),
        table_(kernels_for<T>(machine)),
        kernels_(table_.grouped->stride_two),
        threads_(threads),
        kernel_(static_cast<int>(problem.windows[2].kernel)),
        odd_(problem.windows[2].before % 2 != 0),
        channels_(problem.in_channels),
        group_(problem.in_channels_per_group()),
        rows_(problem.windows[1]),
        columns_(problem.windows[2]) {
    // What the kernels do not do themselves follows while the outputs are in cache.
    const FusedClamp<T> fused(problem.epilogue);
    second_pass_ = fused.rest;
    store_ = fused.store();
  }

 protected:
  std::int64_t taps() const noexcept { return problem_.taps(); }

  ConvProblem problem_;
  const Kernels<T>& table_;
  const StrideTwoKernels<T>& kernels_;
  int threads_, kernel_;
  bool odd_;
  std::int64_t channels_, group_;
  PairAxis rows_, columns_;
  bool second_pass_;
  SumStore<T> store_{};
};

template <class T>
class StrideTwoChannelsLast final : public StrideTwo<T> {
  using Base = StrideTwo<T>;
  using Base::channels_, Base::columns_, Base::group_, Base::kernel_, Base::kernels_, Base::odd_,
      Base::problem_, Base::rows_, Base::second_pass_, Base::store_, Base::table_, Base::threads_;

 public:
  StrideTwoChannelsLast(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads), vectors_(divide_up(channels_, table_.lanes)) {
    const auto cut = [&](std::int64_t begin, std::int64_t end, bool inside) {
      const auto parts = static_cast<int>(divide_up(end - begin, kernels_.block_pairs));
      for (int n = 0; n < parts; ++n) {
        const Range range = Range::share(end - begin, n, parts);
        const auto pairs = static_cast<int>(range.end - range.begin);
        if (inside && n > 0 && blocks_.back().pairs == pairs) {
          ++blocks_.back().blocks;
        } else {
          blocks_.push_back({begin + range.begin, pairs, 1});
        }
      }
    };
    const std::int64_t begin = std::clamp<std::int64_t>(-columns_.first, 0, columns_.pairs);
    const std::int64_t end =
        std::clamp(columns_.sources - columns_.taken + 1 - columns_.first, begin, columns_.pairs);
    cut(0, begin, false);
    cut(begin, end, true);
    cut(end, columns_.pairs, false);
    share_ = RowShare(problem.batch * rows_.pairs, vectors_, channels_ / table_.lanes, threads);
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }
  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(packed_weights() + channels_) * sizeof(T);
  }

  /// [vector][channel of the group][tap][lane], then a pixel of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = this->taps(), lanes = table_.lanes;
    const std::int64_t vector_weights = group_ * taps * lanes;
    parallel_for(packing_threads(), vectors_, [&](std::int64_t vector, int) {
      T* to = target + vector * vector_weights;
      const std::int64_t first = first_channel(vector);
      for (std::int64_t group = first; group < first + lanes; group += group_) {
        // [out][in][tap] -> [out][tap][in], a group's lanes
        const T* from = static_cast<const T*>(weight) + group * group_ * taps;
        for (std::int64_t c = 0; c < group_; ++c) {
          for (std::int64_t i = 0; i < group_; ++i) {
            for (std::int64_t t = 0; t < taps; ++t) {
              to[(c * taps + t) * lanes + group - first + i] = from[(c * group_ + i) * taps + t];
            }
          }
        }
      }
    });
    std::fill(target + packed_weights(), target + packed_weights() + channels_, T(0));
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    const int parts = share_.row_parts * share_.vector_parts;
    parallel(parts, [&](int thread, int team) {
      auto* scratch = static_cast<std::byte*>(workspace) + thread_bytes() * thread;
      for (int part = thread; part < parts; part += team) {
        // Whoever has the last vector, has the one that it overlaps.
        const int vector_part = part % share_.vector_parts;
        Range vectors = Range::share(channels_ / table_.lanes, vector_part, share_.vector_parts);
        if (vector_part + 1 == share_.vector_parts) vectors.end = vectors_;
        const Range units = Range::share(problem_.batch * rows_.pairs, part / share_.vector_parts,
                                         share_.row_parts);
        for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
          run_rows(call, unit / rows_.pairs, unit % rows_.pairs, vectors, scratch);
        }
      }
    });
  }

 private:
  /// Pairs of columns from `first` on; more than one block where all of their sources exist.
  struct Blocks {
    std::int64_t first;
    int pairs;
    std::int64_t blocks;
  };

  std::int64_t packed_weights() const noexcept {
    return vectors_ * group_ * this->taps() * table_.lanes;
  }
  /// A few thousand weights are packed sooner than another thread wakes up.
  int packing_threads() const noexcept { return packed_weights() > 16384 ? threads_ : 1; }

  /// The last vector overlaps the one before.
  std::int64_t first_channel(std::int64_t vector) const noexcept {
    return std::min(vector * table_.lanes, channels_ - table_.lanes);
  }

  std::int64_t pixels_of_block() const noexcept {
    return rows_.taken * (kernels_.block_pairs + columns_.taken - 1);
  }
  std::size_t thread_bytes() const noexcept {
    return aligned_bytes<const T*>(pixels_of_block()) + aligned_bytes<std::int64_t>(rows_.taken);
  }

  void run_rows(const DirectedCall<T>& call, std::int64_t sample, std::int64_t pair,
                const Range& vectors, std::byte* scratch) const noexcept {
    auto* pixels = reinterpret_cast<const T**>(scratch);
    auto* row_steps =
        reinterpret_cast<std::int64_t*>(scratch + aligned_bytes<const T*>(pixels_of_block()));
    const std::int64_t pixel_stride = call.output.pixel_stride;
    const T* zeros = call.packed + packed_weights();
    StrideTwoBlocks<T> b{};
    b.pixels = pixels;
    b.row_steps = row_steps;
    b.group_channels = group_;
    b.channels = channels_;
    b.weight = call.packed;
    b.bias = call.bias;
    b.output_row_stride = columns_.outputs * pixel_stride;
    b.output_column_stride = pixel_stride;
    b.rows = static_cast<int>(std::min<std::int64_t>(2, rows_.outputs - 2 * pair));
    b.vector_begin = vectors.begin;
    b.vector_end = vectors.end;
    b.store = store_;
    T* output = call.output.sample(sample, 0) + 2 * pair * columns_.outputs * pixel_stride;
    for (const Blocks& blocks : blocks_) {
      b.pairs = blocks.pairs;
      b.blocks = blocks.blocks;
      const std::int64_t end = blocks.first + blocks.blocks * blocks.pairs;
      b.last_columns =
          static_cast<int>(std::min<std::int64_t>(2, columns_.outputs - 2 * (end - 1)));
      const T** pixel = pixels;
      for (int i = 0; i < rows_.taken; ++i) {
        const std::int64_t row = pair + rows_.first + i;
        const T* line = call.source.sample(sample, 0) +
                        row * columns_.sources * call.source.pixel_stride;
        row_steps[i] = rows_.exists(row) ? blocks.pairs * call.source.pixel_stride : 0;
        for (std::int64_t j = 0; j < blocks.pairs + columns_.taken - 1; ++j) {
          const std::int64_t column = blocks.first + columns_.first + j;
          *pixel++ = rows_.exists(row) && columns_.exists(column)
                         ? line + column * call.source.pixel_stride
                         : zeros;
        }
      }
      b.output = output + 2 * blocks.first * pixel_stride;
      kernels_.blocks(b, kernel_, odd_);
    }
    if (second_pass_) finish(call, sample, 2 * pair, b.rows, vectors);
  }

  /// What of the epilogue the kernels leave.
  void finish(const DirectedCall<T>& call, std::int64_t sample, std::int64_t row, int rows,
              const Range& vectors) const noexcept {
    const std::int64_t begin = vectors.begin * table_.lanes;
    const std::int64_t end = std::min(channels_, vectors.end * table_.lanes);
    const std::int64_t pixel = row * columns_.outputs;
    TileEpilogue<T> rest = call.epilogue.tile(sample, begin, pixel);
    rest.bias_axis = BiasAxis::none;
    table_.epilogue(rest, static_cast<int>(rows * columns_.outputs), static_cast<int>(end - begin),
                    call.output.sample(sample, begin) + pixel * call.output.pixel_stride,
                    call.output.pixel_stride, 1);
  }

  std::int64_t vectors_;
  std::vector<Blocks> blocks_;
  RowShare share_;
};

template <class T>
class StrideTwoChannelsFirst final : public StrideTwo<T> {
  using Base = StrideTwo<T>;
  using Base::channels_, Base::columns_, Base::group_, Base::kernel_, Base::kernels_, Base::odd_,
      Base::problem_, Base::rows_, Base::second_pass_, Base::store_, Base::table_, Base::threads_;

 public:
  StrideTwoChannelsFirst(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads),
        group_blocks_(divide_up(group_, kernels_.plane_channels)),
        pieces_(static_cast<int>(divide_up(rows_.pairs, kMostPairs))) {}

  std::size_t workspace_bytes() const noexcept override { return 0; }
  std::size_t packed_bytes() const noexcept override {
    return static_cast<std::size_t>(channels_ * group_ * this->taps()) * sizeof(T);
  }

  /// [group][block of channels][channel of the sum][tap][channel of the block]
  void pack(const void* weight, void* packed) const noexcept override {
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = this->taps();
    for (std::int64_t group = 0; group < problem_.groups; ++group) {
      const T* from = static_cast<const T*>(weight) + group * group_ * group_ * taps;
      for (std::int64_t block = 0; block < group_blocks_; ++block) {
        const Range channels = block_channels(block);
        for (std::int64_t c = 0; c < group_; ++c) {
          for (std::int64_t t = 0; t < taps; ++t) {
            for (std::int64_t m = channels.begin; m < channels.end; ++m) {
              *target++ = from[(c * group_ + m) * taps + t];
            }
          }
        }
      }
    }
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* /*workspace*/) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    const std::int64_t units = problem_.batch * problem_.groups * group_blocks_ * pieces_;
    parallel_for(threads_, units, [&](std::int64_t unit, int) {
      const Range pairs = Range::share(rows_.pairs, static_cast<int>(unit % pieces_), pieces_);
      unit /= pieces_;
      run_plane(call, unit / group_blocks_ / problem_.groups,
                unit / group_blocks_ % problem_.groups, unit % group_blocks_, pairs);
    });
  }

 private:
  static constexpr std::int64_t kMostPairs = 32;  ///< of rows, in a unit of work

  /// Channels of a group that are summed together.
  Range block_channels(std::int64_t block) const noexcept {
    return {block * kernels_.plane_channels,
            std::min(group_, (block + 1) * kernels_.plane_channels)};
  }

  void run_plane(const DirectedCall<T>& call, std::int64_t sample, std::int64_t group,
                 std::int64_t block, const Range& pairs) const noexcept {
    const Range channels = block_channels(block);
    const std::int64_t channel = group * group_ + channels.begin;
    StrideTwoPlane<T> p{};
    p.source = call.source.sample(sample, group * group_);
    p.source_channel_stride = call.source.channel_stride;
    p.source_rows = rows_.sources;
    p.source_columns = columns_.sources;
    p.first_row = rows_.first;
    p.first_column = columns_.first;
    p.pair_begin = pairs.begin;
    p.pair_end = pairs.end;
    p.group_channels = group_;
    p.channels = static_cast<int>(channels.end - channels.begin);
    p.weight = call.packed + channel * group_ * this->taps();
    p.bias = call.bias != nullptr ? call.bias + channel : nullptr;
    p.output = call.output.sample(sample, channel);
    p.output_channel_stride = call.output.channel_stride;
    p.output_rows = rows_.outputs;
    p.output_columns = columns_.outputs;
    p.store = store_;
    kernels_.plane(p, kernel_, odd_);
    if (!second_pass_) return;
    const std::int64_t first = 2 * pairs.begin * columns_.outputs;
    const std::int64_t end = std::min(rows_.outputs, 2 * pairs.end) * columns_.outputs;
    TileEpilogue<T> rest = call.epilogue.tile(sample, channel, first);
    rest.bias_axis = BiasAxis::none;
    table_.epilogue(rest, p.channels, static_cast<int>(end - first), p.output + first,
                    p.output_channel_stride, 1);
  }

  std::int64_t group_blocks_;
  int pieces_;
};

}  // namespace

bool is_stride_two(const ConvProblem& problem, const Machine& machine) noexcept {
  const auto& [depth, height, width] = problem.windows;
  if (problem.direction != Direction::backward_input || problem.rank != 2) return false;
  if (problem.padding_mode != PaddingMode::zeros) return false;
  for (const Window& w : {height, width}) {
    if (w.stride != 2 || w.dilation != 1) return false;
  }
  if (height.kernel != width.kernel || height.before % 2 != width.before % 2) return false;
  const std::int64_t group = problem.in_channels_per_group();
  if (problem.out_channels_per_group() != group) return false;
  const std::int64_t kernel = width.kernel;
  if (kernel != 3 && (group > 1 || (kernel != 5 && kernel != 7))) return false;
  if (problem.layout == Layout::channels_first) return true;
  const int lanes = lanes_of(problem.dtype, machine);
  return lanes % group == 0 && problem.in_channels >= lanes;
}

std::unique_ptr<const Execution> make_stride_two(const ConvProblem& problem, const Machine& machine,
                                                 int threads) {
  if (problem.layout == Layout::channels_last) {
    return make_typed<StrideTwoChannelsLast>(problem, machine, threads);
  }
  return make_typed<StrideTwoChannelsFirst>(problem, machine, threads);
}

}  // namespace convolith
