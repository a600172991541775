#include <algorithm>
#include <vector>

#include "arithmetic.hpp"
#include "depthwise/depthwise.hpp"
#include "depthwise/execution.hpp"
#include "depthwise/rolling.hpp"
#include "runtime/threads.hpp"
#include "typed_execution.hpp"

namespace convolith {
namespace {

/// Elements of L2 that a band of the source may take, with all lanes.
template <class T>
std::int64_t band_elements(const Machine& machine) {
  return static_cast<std::int64_t>(machine.l2_bytes / 4 / sizeof(T));
}

/// Channels_first with channels as lanes: a band of rows of as many channels as a vector has lanes
/// is transposed into L2, rolled along as in channels_last, and the outputs are transposed back.
/// That takes log2(lanes) shuffles a vector of pixels, less than lanes that rows leave empty, or
/// loads that they share with no neighbour.
template <class T>
class DepthwiseTransposed final : public Depthwise<T> {
  using Base = Depthwise<T>;
  using Base::channels_, Base::destination_, Base::kernels_, Base::plans_, Base::problem_,
      Base::second_pass_, Base::source_pixels_, Base::store_, Base::table_, Base::threads_,
      Base::zeros_, Base::zeros_begin_;

 public:
  DepthwiseTransposed(const ConvProblem& problem, const Machine& machine, int threads)
      : Base(problem, machine, threads), lanes_(table_.lanes) {
    DepthwisePhase<T>& plan = plans_[0];
    plan.choose_kernel(kernels_, true);
    columns_ = RollColumns(plan.width);
    strips_ = strips(plan.height, plan.block_rows);
    zeros_begin_ = plan.phase.taps() * round_up(channels_, lanes_);
    zeros_ = lanes_;
    lengths_ = {plan.height.steps(plan.block_rows), 1,
                static_cast<std::int64_t>(columns_.columns.size())};
    cut_bands(band_elements<T>(machine) / (lanes_ * source_pixels_[2]));
  }

  std::size_t workspace_bytes() const noexcept override { return thread_bytes() * threads_; }

  /// [vector of channels][tap][lane], then a pixel of zeros.
  void pack(const void* weight, void* packed) const noexcept override {
    const auto* source = static_cast<const T*>(weight);
    auto* target = static_cast<T*>(packed);
    const std::int64_t taps = problem_.taps();
    std::fill(target, target + zeros_begin_ + zeros_, T(0));
    for_each_tap(plans_[0].phase, problem_, [&](std::int64_t place, std::int64_t tap) {
      for (std::int64_t c = 0; c < channels_; ++c) {
        target[(c / lanes_ * taps + place) * lanes_ + c % lanes_] = source[c * taps + tap];
      }
    });
  }

  void run(const ConvArguments& arguments, const void* packed,
           void* workspace) const noexcept override {
    const DirectedCall<T> call(problem_, arguments, packed);
    const auto bands = static_cast<std::int64_t>(bands_.size());
    const std::int64_t vectors = divide_up(channels_, lanes_);
    parallel(threads_, [&](int thread, int team) {
      const Scratch scratch(static_cast<std::byte*>(workspace) + thread_bytes() * thread, *this);
      scratch.lists.list_columns(columns_, lanes_);
      const Range units = Range::share(problem_.batch * vectors * bands, thread, team);
      for (std::int64_t unit = units.begin; unit < units.end; ++unit) {
        run_band(call, unit / bands / vectors, unit / bands % vectors, bands_[unit % bands],
                 scratch);
      }
    });
  }

 private:
  /// Neighbouring strips of output rows, and the rows of the source that they read.
  struct Band {
    std::size_t first_strip, end_strip;
    std::int64_t source_begin, source_end;
  };

  /// Of a thread: pixels of one vector of channels, and its bias.
  struct Scratch {
    T *source, *output, *bias;
    SourceLists<T> lists;

    Scratch(std::byte* at, const DepthwiseTransposed& owner) noexcept
        : source(reinterpret_cast<T*>(at)),
          output(reinterpret_cast<T*>(at + owner.source_bytes())),
          bias(reinterpret_cast<T*>(at + owner.source_bytes() + owner.output_bytes())),
          lists(at + owner.source_bytes() + owner.output_bytes() + aligned_bytes<T>(owner.lanes_),
                owner.lengths_) {}
  };

  std::size_t source_bytes() const noexcept {
    return aligned_bytes<T>(most_source_rows_ * source_pixels_[2] * lanes_);
  }
  std::size_t output_bytes() const noexcept {
    return aligned_bytes<T>(plans_[0].block_rows * destination_[2] * lanes_);
  }
  std::size_t thread_bytes() const noexcept {
    return source_bytes() + output_bytes() + aligned_bytes<T>(lanes_) + lengths_.bytes();
  }

  void cut_bands(std::int64_t most_rows) {
    const DenseAxis& height = plans_[0].height;
    for (std::size_t s = 0; s < strips_.size(); ++s) {
      Band strip{s, s + 1, source_pixels_[1], 0};
      for (std::int64_t i = 0; i < height.steps(strips_[s].count); ++i) {
        const std::int64_t h = height.source(strips_[s].first, i);
        if (h < 0) continue;
        strip.source_begin = std::min(strip.source_begin, h);
        strip.source_end = std::max(strip.source_end, h + 1);
      }
      strip.source_begin = std::min(strip.source_begin, strip.source_end);
      if (!bands_.empty()) {
        Band& last = bands_.back();
        const std::int64_t begin = std::min(last.source_begin, strip.source_begin);
        const std::int64_t end = std::max(last.source_end, strip.source_end);
        if (end - begin <= most_rows) {
          last = {last.first_strip, s + 1, begin, end};
          most_source_rows_ = std::max(most_source_rows_, end - begin);
          continue;
        }
      }
      most_source_rows_ = std::max(most_source_rows_, strip.source_end - strip.source_begin);
      bands_.push_back(strip);
    }
  }

  void run_band(const DirectedCall<T>& call, std::int64_t sample, std::int64_t vector,
                const Band& band, const Scratch& scratch) const noexcept {
    const DepthwisePhase<T>& plan = plans_[0];
    const std::int64_t channel = vector * lanes_;
    const std::int64_t channels = std::min(lanes_, channels_ - channel);
    const std::int64_t row = source_pixels_[2];
    const std::int64_t pixels = (band.source_end - band.source_begin) * row;
    // Lanes without a channel hold no numbers that are slow.
    if (channels < lanes_) table_.clear_rows(1, pixels * lanes_, scratch.source, 0);
    table_.transpose(channels, pixels,
                     call.source.sample(sample, channel) + band.source_begin * row,
                     call.source.channel_stride, 1, scratch.source, lanes_, 1);
    DepthwiseRoll<T> p{};
    p.weight = call.packed + channel * plan.phase.taps();
    if (call.bias != nullptr) {
      std::copy(call.bias + channel, call.bias + channel + channels, scratch.bias);
      std::fill(scratch.bias + channels, scratch.bias + lanes_, T(0));
      p.bias = scratch.bias;
    }
    p.output_row_stride = destination_[2] * lanes_;
    p.output_column_stride = plan.width.class_step() * lanes_;
    p.channel_end = lanes_;
    p.store = store_;
    for (std::size_t s = band.first_strip; s < band.end_strip; ++s) {
      const Strip& rows = strips_[s];
      roll_rows(
          kernels_, plan, columns_, scratch.lists, call.packed + zeros_begin_, lanes_, 0, rows, p,
          [&](std::int64_t, std::int64_t i) -> const T* {
            const std::int64_t h = plan.height.source(rows.first, i);
            return h < 0 ? nullptr : scratch.source + (h - band.source_begin) * row * lanes_;
          },
          [&](std::int64_t a) { return scratch.output + a * lanes_; });
      bring_home(call, sample, channel, channels, rows, scratch.output);
    }
  }

  /// Rows that follow one another do so in the output as well.
  void bring_home(const DirectedCall<T>& call, std::int64_t sample, std::int64_t channel,
                  std::int64_t channels, const Strip& rows, const T* sums) const noexcept {
    const std::int64_t step = plans_[0].height.class_step();
    const std::int64_t together = step == 1 ? rows.count : 1;
    const std::int64_t pixels = together * destination_[2];
    for (std::int64_t r = 0; r < rows.count; r += together) {
      const std::int64_t pixel = (rows.first + r * step) * destination_[2];
      T* to = call.output.sample(sample, channel) + pixel;
      table_.transpose(pixels, channels, sums + r * destination_[2] * lanes_, lanes_, 1, to,
                       call.output.channel_stride, 1);
      if (!second_pass_) continue;
      const auto rest = call.epilogue.rest(sample, channel, pixel);
      table_.epilogue(rest, static_cast<int>(channels), static_cast<int>(pixels), to,
                      call.output.channel_stride, 1);
    }
  }

  std::int64_t lanes_;
  RollColumns columns_;
  std::vector<Strip> strips_;
  std::vector<Band> bands_;
  std::int64_t most_source_rows_ = 0;
  typename SourceLists<T>::Lengths lengths_;
};

}  // namespace

bool is_worth_transposing(const ConvProblem& problem, const Machine& machine) noexcept {
  const auto& [depth, height, width] = problem.windows;
  if (problem.rank != 2 || problem.out_channels_per_group() != 1) return false;
  const std::int64_t kernel = height.kernel, stride = height.stride;
  if (kernel != width.kernel || (kernel != 3 && kernel != 5 && kernel != 7)) return false;
  if (stride != width.stride || stride > (is_adjoint(problem) ? 1 : 2)) return false;
  const bool dilated = height.dilation > 1 || width.dilation > 1;
  if (dilated && stride > 1) return false;
  const std::int64_t lanes = lanes_of(problem.dtype, machine);
  if (3 * problem.in_channels < 2 * round_up(problem.in_channels, lanes)) return false;
  // Many taps roll well where registers are many; rows of few do better as they lie if they fill
  // their lanes, the sooner where they need not be packed.
  const bool wide = machine.kernels->vector_bytes == 64;
  const bool packed = !wide || dilated || problem.padding_mode != PaddingMode::zeros;
  if (kernel == 3 ? source_extents(problem)[2] > (packed ? 2 * stride : 1) * lanes : !wide) {
    return false;
  }
  // A band is of the rows of a few strips at least; those of dilated kernels are no neighbours.
  const Extents source = source_extents(problem);
  const std::int64_t band = problem.dtype == DType::float32 ? band_elements<float>(machine)
                                                            : band_elements<double>(machine);
  const bool anywhere = dilated || problem.padding_mode == PaddingMode::circular;
  const std::int64_t rows = anywhere ? source[1] : std::min(source[1], 4 * kernel);
  return rows * source[2] * lanes <= band;
}

std::unique_ptr<const Execution> make_depthwise_transposed(const ConvProblem& problem,
                                                           const Machine& machine, int threads) {
  return make_typed<DepthwiseTransposed>(problem, machine, threads);
}

}  // namespace convolith
