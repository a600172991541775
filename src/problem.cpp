#include "convolith/problem.hpp"

#include <charconv>
#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

#include "convolith/error.hpp"

namespace convolith {
namespace {

template <class Enum>
struct Names;

template <>
struct Names<Direction> {
  static constexpr const char* all[] = {"forward", "backward_input", "backward_weight"};
};
template <>
struct Names<DType> {
  static constexpr const char* all[] = {"float32", "float64", "float16", "bfloat16"};
};
template <>
struct Names<Layout> {
  static constexpr const char* all[] = {"channels_first", "channels_last"};
};
template <>
struct Names<PaddingMode> {
  static constexpr const char* all[] = {"zeros", "reflect", "replicate", "circular"};
};
template <>
struct Names<Activation> {
  static constexpr const char* all[] = {"none", "relu",    "relu6", "leaky_relu",
                                        "tanh", "sigmoid", "silu",  "hardswish"};
};
template <>
struct Names<Numerics> {
  static constexpr const char* all[] = {"fast", "strict"};
};

template <class Enum>
const char* name_of(Enum value) noexcept {
  return Names<Enum>::all[static_cast<int>(value)];
}

/// Assigns the enumerator called `word`; false where there is none.
template <class Enum>
bool assign_name(std::string_view word, Enum& value) noexcept {
  int index = 0;
  for (const char* name : Names<Enum>::all) {
    if (word == name) {
      value = static_cast<Enum>(index);
      return true;
    }
    ++index;
  }
  return false;
}

std::string text(std::int64_t value) { return std::to_string(value); }

void require_at_least(const char* argument, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw InvalidArgument(std::string(argument) + " is " + text(value) +
                          "; it must be at least " + text(least));
  }
}

std::int64_t checked_product(std::initializer_list<std::int64_t> factors, const char* what) {
  std::int64_t product = 1;
  for (std::int64_t factor : factors) product = checked_multiply(product, factor, what);
  return product;
}

void check_padding_mode(const Window& window, PaddingMode mode, int axis) {
  const std::int64_t most = mode == PaddingMode::reflect    ? window.input - 1
                            : mode == PaddingMode::circular ? window.input
                                                            : INT64_MAX;
  for (std::int64_t amount : {window.before, window.after}) {
    if (amount > most) {
      throw InvalidArgument("padding is " + text(amount) + " on axis " + text(axis) +
                            "; padding_mode " + name(mode) + " allows at most " + text(most) +
                            " for an input extent of " + text(window.input));
    }
  }
}

void check_sizes(const ConvProblem& p) {
  const auto& w = p.windows;
  const auto bytes = static_cast<std::int64_t>(size_of(p.dtype));
  checked_product({p.batch, p.in_channels, w[0].input, w[1].input, w[2].input, bytes},
                  "size of x in bytes");
  checked_product({p.batch, p.out_channels, w[0].output, w[1].output, w[2].output, bytes},
                  "size of y in bytes");
  checked_product({p.out_channels, p.in_channels_per_group(), w[0].kernel, w[1].kernel,
                   w[2].kernel, bytes},
                  "size of weight in bytes");
  const auto padded = [](const Window& window) {
    return window.input + window.before + window.after;
  };
  // What is read lies in the padded x.
  checked_product({p.in_channels, padded(w[0]), padded(w[1]), padded(w[2]), bytes},
                  "size of the padded x in bytes");
  // The im2col matrix of one sample is the largest array that any algorithm addresses.
  checked_product({p.in_channels, w[0].kernel, w[1].kernel, w[2].kernel, w[0].output,
                   w[1].output, w[2].output, bytes},
                  "size of the im2col matrix in bytes");
}

}  // namespace

const char* name(Direction value) noexcept { return name_of(value); }
const char* name(DType value) noexcept { return name_of(value); }
const char* name(Layout value) noexcept { return name_of(value); }
const char* name(PaddingMode value) noexcept { return name_of(value); }
const char* name(Activation value) noexcept { return name_of(value); }
const char* name(Numerics value) noexcept { return name_of(value); }

template <class Enum>
Enum parse_name(std::string_view word, const char* argument) {
  Enum value{};
  if (!assign_name(word, value)) {
    std::string message = std::string(argument) + " is '" + std::string(word) + "'; it must be";
    const char* separator = " ";
    for (const char* legal : Names<Enum>::all) {
      if (legal == std::string_view("none")) continue;  // said by saying nothing
      message += std::string(separator) + "'" + legal + "'";
      separator = " or ";
    }
    throw InvalidArgument(message);
  }
  return value;
}

template Direction parse_name(std::string_view, const char*);
template DType parse_name(std::string_view, const char*);
template Layout parse_name(std::string_view, const char*);
template PaddingMode parse_name(std::string_view, const char*);
template Activation parse_name(std::string_view, const char*);
template Numerics parse_name(std::string_view, const char*);

std::size_t size_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::float32: return 4;
    case DType::float64: return 8;
    case DType::float16:
    case DType::bfloat16: return 2;
  }
  return 0;
}

ConvProblem ConvProblem::make(const ConvSpec& spec) {
  if (spec.rank < 1 || spec.rank > kSpatialAxes) {
    throw InvalidArgument("rank is " + text(spec.rank) + "; it must be 1, 2 or 3");
  }
  require_at_least("batch", spec.batch, 0);
  require_at_least("groups", spec.groups, 1);
  require_at_least("in_channels", spec.in_channels, 1);
  require_at_least("out_channels", spec.out_channels, 1);
  if (spec.in_channels % spec.groups != 0 || spec.out_channels % spec.groups != 0) {
    throw InvalidArgument("groups is " + text(spec.groups) + "; it must divide in_channels " +
                          text(spec.in_channels) + " and out_channels " +
                          text(spec.out_channels));
  }
  if (spec.direction == Direction::backward_weight && !spec.epilogue.empty()) {
    throw InvalidArgument("backward_weight takes no bias, residual or activation");
  }
  if (!std::isfinite(spec.epilogue.slope)) {
    throw InvalidArgument("slope of leaky_relu is not finite");
  }

  ConvProblem problem;
  problem.direction = spec.direction;
  problem.dtype = spec.dtype;
  problem.layout = spec.layout;
  problem.padding_mode = spec.padding_mode;
  problem.rank = spec.rank;
  problem.batch = spec.batch;
  problem.in_channels = spec.in_channels;
  problem.out_channels = spec.out_channels;
  problem.groups = spec.groups;
  problem.epilogue = spec.epilogue;
  if (spec.epilogue.activation != Activation::leaky_relu) problem.epilogue.slope = Epilogue{}.slope;
  for (int i = 0; i < spec.rank; ++i) {
    const int axis = array_axis(i, spec.layout, spec.batched);
    Window& window = problem.windows[kSpatialAxes - spec.rank + i];
    window = make_window(spec.windows[i], axis);
    check_padding_mode(window, spec.padding_mode, axis);
  }
  check_sizes(problem);
  return problem;
}

std::int64_t ConvProblem::input_pixels() const noexcept {
  return windows[0].input * windows[1].input * windows[2].input;
}

std::int64_t ConvProblem::output_pixels() const noexcept {
  return windows[0].output * windows[1].output * windows[2].output;
}

std::int64_t ConvProblem::taps() const noexcept {
  return windows[0].kernel * windows[1].kernel * windows[2].kernel;
}

double ConvProblem::flops() const noexcept {
  return 2.0 * static_cast<double>(y_size()) * static_cast<double>(in_channels_per_group()) *
         static_cast<double>(taps());
}

// ---- text form -----------------------------------------------------------------------------

namespace {

[[noreturn]] void bad_word(std::string_view word, const std::string& why) {
  throw InvalidArgument("problem text: '" + std::string(word) + "' " + why);
}

std::int64_t parse_number(std::string_view digits, std::string_view word) {
  std::int64_t value = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (code == std::errc::result_out_of_range) {
    throw Overflow("problem text: '" + std::string(word) + "' does not fit 64 bits");
  }
  if (code != std::errc() || end != digits.data() + digits.size()) {
    bad_word(word, "should be a letter followed by whole numbers");
  }
  return value;
}

std::vector<std::string_view> split(std::string_view list, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = list.find(separator);
    parts.push_back(list.substr(0, at));
    if (at == std::string_view::npos) return parts;
    list.remove_prefix(at + 1);
  }
}

/// Assigns "3x5" or "3" (for every axis) through set(window, "3").
template <class Set>
void assign_axes(ConvSpec& spec, std::string_view list, std::string_view word, Set set) {
  const auto parts = split(list, 'x');
  if (parts.size() != 1 && parts.size() != static_cast<std::size_t>(spec.rank)) {
    bad_word(word, "has " + std::to_string(parts.size()) + " numbers for " +
                       std::to_string(spec.rank) + " axes");
  }
  for (int i = 0; i < spec.rank; ++i) {
    set(spec.windows[i], parts[parts.size() == 1 ? 0 : i]);
  }
}

void assign_padding(ConvSpec& spec, std::string_view list, std::string_view word) {
  static constexpr std::pair<std::string_view, PaddingRule> rules[] = {
      {"valid", PaddingRule::valid},
      {"same", PaddingRule::same},
      {"same_lower", PaddingRule::same_lower}};
  for (const auto& [rule_name, rule] : rules) {
    if (list == rule_name) {
      for (WindowSpec& window : spec.windows) window.rule = rule;
      return;
    }
  }
  assign_axes(spec, list, word, [&](WindowSpec& window, std::string_view amounts) {
    const auto pair = split(amounts, ':');
    if (pair.size() > 2) bad_word(word, "has more than before:after on an axis");
    window.before = parse_number(pair.front(), word);
    window.after = parse_number(pair.back(), word);
  });
}

/// One-letter words. False where `word` is none of them.
bool assign_numbers(ConvSpec& spec, std::string_view word) {
  if (word.size() < 2) return false;
  const std::string_view list = word.substr(1);
  const bool digits = list.front() == '-' || (list.front() >= '0' && list.front() <= '9');
  if (!digits && word.front() != 'p') return false;
  const auto axes = [&](std::int64_t WindowSpec::*member) {
    assign_axes(spec, list, word, [&](WindowSpec& window, std::string_view value) {
      window.*member = parse_number(value, word);
    });
  };
  switch (word.front()) {
    case 'n': spec.batch = parse_number(list, word); return true;
    case 'c': spec.in_channels = parse_number(list, word); return true;
    case 'k': spec.out_channels = parse_number(list, word); return true;
    case 'g': spec.groups = parse_number(list, word); return true;
    case 'i': axes(&WindowSpec::input); return true;
    case 'o': axes(&WindowSpec::output); return true;
    case 'f': axes(&WindowSpec::kernel); return true;
    case 's': axes(&WindowSpec::stride); return true;
    case 'd': axes(&WindowSpec::dilation); return true;
    case 'p': assign_padding(spec, list, word); return true;
    default: return false;
  }
}

std::string join(const std::vector<std::string>& parts) {
  std::string joined = parts.front();
  for (std::size_t i = 1; i < parts.size(); ++i) joined += "x" + parts[i];
  return joined;
}

/// "3x3x3" -> "3"
std::string collapse(const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (part != parts.front()) return join(parts);
  }
  return parts.front();
}

double parse_slope(std::string_view digits, std::string_view word) {
  double value = 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (code != std::errc() || end != digits.data() + digits.size()) {
    bad_word(word, "should be slope= and a number");
  }
  return value;
}

/// The shortest decimal form that parses back to `slope`.
std::string slope_text(double slope) {
  char digits[32];
  return {digits, std::to_chars(digits, digits + sizeof digits, slope).ptr};
}

}  // namespace

ConvProblem ConvProblem::parse(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::string_view word : split(line, ' ')) {
    if (!word.empty()) words.push_back(word);
  }
  if (words.empty()) throw InvalidArgument("problem text is empty");
  ConvSpec spec;
  const std::string_view first = words.front();
  if (first == "conv1d") spec.rank = 1;
  else if (first == "conv2d") spec.rank = 2;
  else if (first == "conv3d") spec.rank = 3;
  else bad_word(first, "should be conv1d, conv2d or conv3d");

  // What no problem can do without; everything else has a default.
  std::string missing = "cikf";
  for (auto word = words.begin() + 1; word != words.end(); ++word) {
    if (assign_numbers(spec, *word)) {
      std::erase(missing, word->front());
      continue;
    }
    if (*word == "bias") {
      spec.epilogue.bias = true;
    } else if (*word == "residual") {
      spec.epilogue.residual = true;
    } else if (word->substr(0, 6) == "slope=") {
      spec.epilogue.slope = parse_slope(word->substr(6), *word);
    } else if (!assign_name(*word, spec.direction) && !assign_name(*word, spec.dtype) &&
               !assign_name(*word, spec.layout) && !assign_name(*word, spec.padding_mode) &&
               !assign_name(*word, spec.epilogue.activation)) {
      bad_word(*word, "is not a word of the problem text form");
    }
  }
  if (!missing.empty()) {
    throw InvalidArgument("problem text: no word begins with '" + missing.substr(0, 1) +
                          "'; c, i, k and f (channels, input, output channels, kernel) are needed");
  }
  return make(spec);
}

std::string ConvProblem::str() const {
  const auto each = [&](auto&& part) {
    std::vector<std::string> parts;
    for (int i = kSpatialAxes - rank; i < kSpatialAxes; ++i) parts.push_back(part(windows[i]));
    return parts;
  };
  std::string result = "conv" + text(rank) + "d";
  const auto add = [&](const std::string& letter, const std::string& value,
                       const std::string& default_value) {
    if (value != default_value) result += " " + letter + value;
  };
  add("n", text(batch), "1");
  add("c", text(in_channels), "");
  add("i", join(each([](const Window& w) { return text(w.input); })), "");
  add("k", text(out_channels), "");
  add("f", join(each([](const Window& w) { return text(w.kernel); })), "");
  add("s", collapse(each([](const Window& w) { return text(w.stride); })), "1");
  add("p", collapse(each([](const Window& w) {
        return w.before == w.after ? text(w.before) : text(w.before) + ":" + text(w.after);
      })), "0");
  add("d", collapse(each([](const Window& w) { return text(w.dilation); })), "1");
  add("o", join(each([](const Window& w) { return text(w.output); })),
      join(each([](const Window& w) { return text(w.fitting_windows()); })));
  add("g", text(groups), "1");
  add("", name(dtype), name(DType::float32));
  add("", name(layout), name(Layout::channels_first));
  add("", name(direction), name(Direction::forward));
  add("", name(padding_mode), name(PaddingMode::zeros));
  if (epilogue.bias) result += " bias";
  if (epilogue.residual) result += " residual";
  add("", name(epilogue.activation), name(Activation::none));
  add("slope=", slope_text(epilogue.slope), slope_text(Epilogue{}.slope));
  return result;
}

}  // namespace convolith
