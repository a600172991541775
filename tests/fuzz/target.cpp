// What is fuzzed, with libFuzzer's interface: the text form of problems, random convolutions
// against the definition, and random poolings. Integers are exact: results must be equal.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "convolith/error.hpp"
#include "convolith/plan.hpp"
#include "convolith/pooling.hpp"
#include "runtime/cpu.hpp"

namespace {

using namespace convolith;

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "FUZZ: %s\n", message.c_str());
  std::abort();
}

/// Numbers drawn from the input, zeros behind its end.
class Draw {
 public:
  Draw(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}

  std::uint8_t byte() { return at_ == end_ ? 0 : *at_++; }
  std::int64_t below(int count) { return byte() % count; }
  bool flag() { return (byte() & 1) != 0; }
  std::string_view rest() const {
    return {reinterpret_cast<const char*>(at_), static_cast<std::size_t>(end_ - at_)};
  }

  /// Mostly small, now and then at a border of 64 bits.
  std::int64_t extent(int usual) {
    const std::uint8_t kind = byte();
    if (kind < 248) return kind % usual;
    constexpr std::int64_t kOdd[] = {-1,
                                     0,
                                     INT64_MAX,
                                     INT64_MIN,
                                     std::int64_t{1} << 31,
                                     std::int64_t{1} << 32,
                                     std::int64_t{1} << 62,
                                     4096};
    return kOdd[kind - 248];
  }

  std::int64_t positive(int usual) {
    const std::int64_t value = extent(usual);
    return value >= 0 && value < usual ? value + 1 : value;
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

/// Calls `body`; false where it throws one of the library's errors, which must carry a message.
template <class Body>
bool accepts(const Body& body) {
  try {
    body();
    return true;
  } catch (const std::invalid_argument& error) {
    if (*error.what() == '\0') fail("an error without a message");
  } catch (const std::overflow_error& error) {
    if (*error.what() == '\0') fail("an error without a message");
  }
  return false;
}

// ---- text ------------------------------------------------------------------------------------

void text(std::string_view line) {
  accepts([&] {
    const ConvProblem problem = ConvProblem::parse(line);
    const std::string printed = problem.str();
    const ConvProblem again = ConvProblem::parse(printed);
    if (!(again == problem)) fail("'" + printed + "' is another problem than it was printed from");
    if (again.str() != printed) fail("'" + printed + "' prints as '" + again.str() + "'");
    // Asking is not running: numbers may be of any size.
    for (const Algorithm* algorithm : algorithms()) {
      if (algorithm->supports(problem).yes) {
        const double cost = algorithm->cost(problem, describe_machine(isa_in_use()));
        if (!(cost >= 0)) fail(std::string(algorithm->name()) + " costs " + std::to_string(cost));
        algorithm->tolerance(problem);
      }
    }
  });
}

// ---- convolutions ----------------------------------------------------------------------------

WindowSpec window(Draw& draw) {
  WindowSpec spec;
  spec.input = draw.positive(24);
  spec.kernel = draw.positive(7);
  spec.stride = draw.flag() ? 1 : draw.extent(5);
  spec.dilation = draw.flag() ? 1 : draw.extent(4);
  spec.rule = static_cast<PaddingRule>(draw.below(4));
  spec.before = draw.extent(6);
  spec.after = draw.flag() ? spec.before : draw.extent(6);
  if (draw.below(8) == 0) spec.output = draw.extent(12);
  return spec;
}

ConvSpec convolution_spec(Draw& draw) {
  ConvSpec spec;
  spec.direction = static_cast<Direction>(draw.below(3));
  spec.layout = static_cast<Layout>(draw.below(2));
  spec.padding_mode = static_cast<PaddingMode>(draw.flag() ? 0 : draw.below(4));
  spec.rank = static_cast<int>(1 + draw.below(3));
  spec.batch = draw.extent(4);
  spec.groups = draw.flag() ? 1 : draw.extent(6);
  spec.in_channels = draw.extent(40);
  spec.out_channels = draw.extent(40);
  if (draw.flag() && spec.groups > 0 && spec.groups < 8) {
    spec.in_channels = spec.groups * (spec.in_channels % 5 + 1);
    spec.out_channels = spec.groups * (spec.out_channels % 5 + 1);
  }
  for (WindowSpec& axis : spec.windows) axis = window(draw);
  return spec;
}

/// Where the padding of that mode reads, or -1 for a zero.
std::int64_t source(std::int64_t at, std::int64_t extent, PaddingMode mode) {
  if (at >= 0 && at < extent) return at;
  switch (mode) {
    case PaddingMode::reflect: return at < 0 ? -at : 2 * (extent - 1) - at;
    case PaddingMode::replicate: return at < 0 ? 0 : extent - 1;
    case PaddingMode::circular: return at < 0 ? at + extent : at - extent;
    default: return -1;
  }
}

/// Contiguous feature maps in a block of their own, whose borders a sanitizer guards.
template <class T>
struct Array {
  std::unique_ptr<T[]> data;
  TensorView view;
  std::int64_t size;

  Array(std::int64_t batch, std::int64_t channels, std::int64_t pixels, Layout layout)
      : data(new T[static_cast<std::size_t>(batch * channels * pixels)]),
        size(batch * channels * pixels) {
    const bool last = layout == Layout::channels_last;
    view = {data.get(), channels * pixels, last ? 1 : pixels, last ? channels : 1};
  }

  T& at(std::int64_t n, std::int64_t channel, std::int64_t pixel) {
    return data[static_cast<std::size_t>(n * view.sample_stride + channel * view.channel_stride +
                                         pixel * view.pixel_stride)];
  }

  void fill(std::uint32_t seed) {
    for (std::int64_t i = 0; i < size; ++i) {
      seed = seed * 1664525u + 1013904223u;
      data[static_cast<std::size_t>(i)] = static_cast<T>(static_cast<int>(seed >> 29) - 3);
    }
  }

  void poison() {
    for (std::int64_t i = 0; i < size; ++i) data[static_cast<std::size_t>(i)] = std::nan("");
  }
};

/// Calls visit(n, channel_in, channel_out, pixel_in, pixel_out, tap, channel_in_of_weight) for
/// every product of the forward convolution.
template <class Visit>
void each_product(const ConvProblem& p, const Visit& visit) {
  const auto& w = p.windows;
  const std::int64_t in_group = p.in_channels_per_group();
  const std::int64_t out_group = p.out_channels / p.groups;
  // clang-format off
  for (std::int64_t o0 = 0; o0 < w[0].output; ++o0)
  for (std::int64_t o1 = 0; o1 < w[1].output; ++o1)
  for (std::int64_t o2 = 0; o2 < w[2].output; ++o2)
  for (std::int64_t t0 = 0; t0 < w[0].kernel; ++t0)
  for (std::int64_t t1 = 0; t1 < w[1].kernel; ++t1)
  for (std::int64_t t2 = 0; t2 < w[2].kernel; ++t2) {
    const auto read = [&](int axis, std::int64_t o, std::int64_t t) {
      return source(o * w[axis].stride + t * w[axis].dilation - w[axis].before, w[axis].input,
                    p.padding_mode);
    };
    const std::int64_t i0 = read(0, o0, t0), i1 = read(1, o1, t1), i2 = read(2, o2, t2);
    if (i0 < 0 || i1 < 0 || i2 < 0) continue;
    const std::int64_t in = (i0 * w[1].input + i1) * w[2].input + i2;
    const std::int64_t out = (o0 * w[1].output + o1) * w[2].output + o2;
    const std::int64_t tap = (t0 * w[1].kernel + t1) * w[2].kernel + t2;
    for (std::int64_t n = 0; n < p.batch; ++n)
    for (std::int64_t k = 0; k < p.out_channels; ++k)
    for (std::int64_t c = 0; c < in_group; ++c)
      visit(n, k / out_group * in_group + c, k, in, out, tap, c);
  }
  // clang-format on
}

template <class T>
void run_convolution(const ConvProblem& p, const Algorithm& algorithm, const PlanOptions& options,
                     bool prepacked) {
  Array<T> x(p.batch, p.in_channels, p.input_pixels(), p.layout);
  Array<T> y(p.batch, p.out_channels, p.output_pixels(), p.layout);
  Array<T> weight(p.out_channels, p.in_channels_per_group(), p.taps(), Layout::channels_first);
  x.fill(1);
  y.fill(2);
  weight.fill(3);
  Array<T>& result = p.direction == Direction::forward          ? y
                     : p.direction == Direction::backward_input ? x
                                                                : weight;
  std::vector<double> exact(static_cast<std::size_t>(result.size), 0.0);
  const auto index = [&](const T& element) {
    return static_cast<std::size_t>(&element - result.data.get());
  };
  double products = 0;
  each_product(p, [&](std::int64_t n, std::int64_t channel_in, std::int64_t k, std::int64_t in,
                      std::int64_t out, std::int64_t tap, std::int64_t c) {
    T& from = x.at(n, channel_in, in);
    T& to = y.at(n, k, out);
    T& w = weight.at(k, c, tap);
    if (p.direction == Direction::forward) exact[index(to)] += double(from) * double(w);
    if (p.direction == Direction::backward_input) exact[index(from)] += double(to) * double(w);
    if (p.direction == Direction::backward_weight) exact[index(w)] += double(from) * double(to);
    ++products;
  });
  result.poison();
  Plan plan(p, options);
  ConvArguments arguments;
  arguments.x = x.view;
  arguments.y = y.view;
  arguments.weight = weight.data.get();
  if (prepacked && p.direction != Direction::backward_weight) {
    plan = plan.with_weights(weight.data.get());
    arguments.weight = nullptr;
  }
  constexpr std::size_t kMostWorkspace = std::size_t{1} << 26;  // padding may be endless
  if (plan.workspace_bytes() + plan.packed_bytes() > kMostWorkspace) return;
  plan.run(arguments);
  if (p.batch == 0 && p.direction != Direction::backward_weight) return;
  // Of transforms it is enough here that they are near: the tests hold them to their bounds.
  const double slack = algorithm.strict() ? 0 : sizeof(T) == 4 ? 1e-2 : 1e-8;
  double most = 0;
  for (const double value : exact) most = std::max(most, std::abs(value));
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double got = result.data[i];
    if (!(std::abs(got - exact[i]) <= slack * (most + 10))) {
      fail(p.str() + ": " + algorithm.name() + ", isa " + plan.isa() + ", threads " +
           std::to_string(plan.threads()) + ": element " + std::to_string(i) + " is " +
           std::to_string(got) + ", not " + std::to_string(exact[i]));
    }
  }
}

void convolution(Draw draw) {
  accepts([&] {
    const bool wide = draw.flag();
    const auto number = static_cast<std::size_t>(draw.byte()) % algorithms().size();
    const auto isa = static_cast<std::size_t>(draw.byte()) % available_isas().size();
    const bool prepacked = draw.flag();
    PlanOptions options;
    options.threads = static_cast<int>(1 + draw.below(3));
    ConvSpec spec = convolution_spec(draw);
    spec.dtype = wide ? DType::float64 : DType::float32;
    const ConvProblem problem = ConvProblem::make(spec);
    constexpr double kMostWork = 3e5;
    const double elements = static_cast<double>(problem.x_size()) +
                            static_cast<double>(problem.y_size()) +
                            static_cast<double>(problem.weight_size());
    const double steps = static_cast<double>(problem.output_pixels()) *
                         static_cast<double>(problem.taps());  // also of an empty batch
    if (problem.flops() + elements + steps > kMostWork) return;
    const Algorithm& algorithm = *algorithms()[number];
    if (!algorithm.supports(problem).yes) return;
    options.algorithm = algorithm.name();
    options.isa = available_isas()[isa]->isa;
    wide ? run_convolution<double>(problem, algorithm, options, prepacked)
         : run_convolution<float>(problem, algorithm, options, prepacked);
  });
}

// ---- poolings --------------------------------------------------------------------------------

/// For messages: poolings have no text form.
std::string describe(const PoolProblem& p) {
  std::string told = "pooling " + std::to_string(static_cast<int>(p.op)) +
                     (p.adaptive ? " adaptive" : "") + " n" + std::to_string(p.batch) + " c" +
                     std::to_string(p.channels);
  for (const Window& w : p.windows) {
    told += ", i" + std::to_string(w.input) + " f" + std::to_string(w.kernel) + " s" +
            std::to_string(w.stride) + " p" + std::to_string(w.before) + ":" +
            std::to_string(w.after) + " d" + std::to_string(w.dilation) + " o" +
            std::to_string(w.output);
  }
  return told + ": ";
}

template <class T>
void run_pooling(const PoolProblem& p, const PoolOptions& options) {
  Array<T> x(p.batch, p.channels, p.input_pixels(), p.layout);
  Array<T> y(p.batch, p.channels, p.output_pixels(), p.layout);
  Array<T> dx(p.batch, p.channels, p.input_pixels(), p.layout);
  Array<std::int64_t> indices(p.batch, p.channels, p.output_pixels(), p.layout);
  x.fill(1);
  y.poison();
  dx.poison();
  PoolArguments arguments;
  arguments.x = x.view;
  arguments.y = y.view;
  if (p.op == PoolOp::max) {
    std::memset(indices.data.get(), 0xFF,
                sizeof(std::int64_t) * static_cast<std::size_t>(indices.size));
    arguments.indices = indices.view;
  }
  pool(p, arguments, options);
  for (std::int64_t i = 0; p.op == PoolOp::max && i < indices.size; ++i) {
    const std::int64_t chosen = indices.data[static_cast<std::size_t>(i)];
    if (chosen < 0 || chosen >= p.input_pixels())
      fail("pooling chose index " + std::to_string(chosen));
  }
  bool empty = false;  // windows that hold padding alone have no gradient to give
  for (std::int64_t i = 0; i < y.size; ++i) {
    const T value = y.data[static_cast<std::size_t>(i)];
    if (std::isnan(value) && (p.op == PoolOp::max || p.op == PoolOp::sum)) {
      fail(describe(p) + "a NaN in the result");
    }
    empty = empty || std::isinf(value);
  }
  y.fill(2);
  pool_backward(p, y.view, x.view, dx.view, options);
  if (p.op == PoolOp::max) {
    dx.poison();
    pool_backward_indices(p, y.view, indices.view, dx.view, options.threads);
    double given = 0, received = 0;
    for (std::int64_t i = 0; i < y.size; ++i) given += y.data[static_cast<std::size_t>(i)];
    for (std::int64_t i = 0; i < dx.size; ++i) received += dx.data[static_cast<std::size_t>(i)];
    if (given != received && !empty) {
      fail(describe(p) + "the gradient of max pooling sums to " + std::to_string(received) +
           ", not " + std::to_string(given));
    }
  }
}

void pooling(Draw draw) {
  accepts([&] {
    PoolSpec spec;
    PoolOptions options;
    spec.op = static_cast<PoolOp>(draw.below(5));
    spec.dtype = draw.flag() ? DType::float64 : DType::float32;
    spec.layout = static_cast<Layout>(draw.below(2));
    options.threads = static_cast<int>(1 + draw.below(3));
    options.isa =
        available_isas()[static_cast<std::size_t>(draw.byte()) % available_isas().size()]->isa;
    spec.rank = static_cast<int>(1 + draw.below(3));
    spec.batch = draw.extent(4);
    spec.channels = draw.extent(40);
    spec.adaptive = draw.below(4) == 0;
    spec.rounding = static_cast<Rounding>(draw.below(2));
    spec.count_include_pad = draw.flag();
    if (draw.below(4) == 0) spec.divisor_override = draw.extent(9);
    spec.norm_type = static_cast<double>(draw.below(12)) / 2;
    for (WindowSpec& axis : spec.windows) {
      axis = window(draw);
      if (spec.adaptive) axis.output = draw.extent(9);
    }
    const PoolProblem problem = PoolProblem::make(spec);
    constexpr double kMostPixels = 5e4;
    const double maps = std::max(1.0, static_cast<double>(problem.batch)) *
                        static_cast<double>(problem.channels);
    double taps = 1;
    for (const Window& axis : problem.windows) taps *= static_cast<double>(axis.kernel);
    const double work =
        maps * (static_cast<double>(problem.input_pixels()) +
                static_cast<double>(problem.output_pixels()) * (problem.adaptive ? 9 : taps));
    if (work > kMostPixels) return;
    spec.dtype == DType::float64 ? run_pooling<double>(problem, options)
                                 : run_pooling<float>(problem, options);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  set_brief_operations(0);
  Draw draw(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0: text(draw.rest()); break;
    case 1: pooling(draw); break;
    default: convolution(draw); break;
  }
  return 0;
}
