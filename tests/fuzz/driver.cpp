// A small coverage-guided fuzzer, for compilers without libFuzzer: inputs that reach a new edge, or
// an edge a new order of magnitude of times, are kept and mutated further.
//   fuzz SECONDS [CORPUS_FOLDER [SEED]]     fuzz --once FILE

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Input = std::vector<std::uint8_t>;

constexpr std::size_t kEdges = 1 << 16;
std::array<std::uint8_t, kEdges> counts;
std::array<std::uint8_t, kEdges> reached;  ///< a bit for each order of magnitude of each edge
std::uintptr_t last_place = 0;

}  // namespace

/// Called by what -fsanitize-coverage=trace-pc puts into every basic block.
extern "C" void __sanitizer_cov_trace_pc() {
  const auto place = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const std::size_t edge = (place ^ (last_place << 1)) % kEdges;
  if (counts[edge] < 255) ++counts[edge];
  last_place = place;
}

namespace {

const Input* running = nullptr;

/// Whatever ends the process leaves the input behind.
void save_input(int signal) {
  std::signal(signal, SIG_DFL);
  constexpr char kFile[] = "fuzz-failure.bin";
  if (running != nullptr) {
    if (FILE* file = std::fopen(kFile, "wb")) {
      std::fwrite(running->data(), 1, running->size(), file);
      std::fclose(file);
    }
    std::fprintf(stderr, "FUZZ: %s; the input is in %s\n",
                 signal == SIGALRM ? "no end after 60 s" : "failed", kFile);
  }
  if (signal == SIGALRM) _exit(1);
  std::raise(signal);
}

/// Runs one input; whether it reached something new.
bool run(const Input& input) {
  counts.fill(0);
  last_place = 0;
  running = &input;
  alarm(60);
  LLVMFuzzerTestOneInput(input.data(), input.size());
  running = nullptr;
  bool fresh = false;
  for (std::size_t i = 0; i < kEdges; ++i) {
    if (counts[i] == 0) continue;
    const auto magnitude = static_cast<std::uint8_t>(1u << (std::bit_width(counts[i]) - 1));
    fresh = fresh || (reached[i] & magnitude) == 0;
    reached[i] |= magnitude;
  }
  return fresh;
}

constexpr std::string_view kWords[] = {
    // clang-format off
    "conv1d", "conv2d", "conv3d", " n", " c", " i", " k", " f", " s", " p", " d", " o", " g",
    "x", ":", " psame", " psame_lower", " pvalid", " float64", " channels_last", " backward_input",
    " backward_weight", " reflect", " replicate", " circular", " bias", " residual", " relu",
    " leaky_relu", " slope=", "-1", "1e400", "0.1", "9223372036854775807", "4294967296", "0",
    // clang-format on
};

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t count) { return random_() % count; }

  Input mutate(const std::vector<Input>& corpus) {
    Input input = corpus[below(corpus.size())];
    for (std::size_t left = 1 + below(5); left > 0; --left) change(input, corpus);
    constexpr std::size_t kLongest = 400;
    if (input.size() > kLongest) input.resize(kLongest);
    return input;
  }

 private:
  void change(Input& input, const std::vector<Input>& corpus) {
    if (input.empty()) input.push_back(static_cast<std::uint8_t>(random_()));
    const std::size_t at = below(input.size());
    const auto place = input.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(8)) {
      case 0: *place ^= static_cast<std::uint8_t>(1u << below(8)); break;
      case 1: *place = static_cast<std::uint8_t>(random_()); break;
      case 2: *place = static_cast<std::uint8_t>(*place + (below(2) == 0 ? 1 : 255)); break;
      case 3: input.insert(place, static_cast<std::uint8_t>(random_())); break;
      case 4:
        input.erase(place, place + static_cast<std::ptrdiff_t>(
                                       1 + below(std::min<std::size_t>(8, input.size() - at))));
        break;
      case 5: {
        const std::string_view word = kWords[below(std::size(kWords))];
        input.insert(place + 1, word.begin(), word.end());
        break;
      }
      case 6: *place = static_cast<std::uint8_t>('0' + below(10)); break;
      default: {  // the rest of another
        const Input& other = corpus[below(corpus.size())];
        const std::size_t from = std::min(at, other.size());
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
      }
    }
  }

  std::mt19937_64 random_;
};

Input read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Input(std::istreambuf_iterator<char>(file), {});
}

std::vector<Input> seeds(const char* folder) {
  std::vector<Input> inputs;
  for (std::uint8_t target = 0; target < 4; ++target) inputs.push_back({target});
  for (const char* line :
       {"conv2d n2 c16 i9x8 k8 f3x3 s2 p1:2 d2 g2 float64 channels_last bias relu",
        "conv3d c1 i3x4x5 k1 f1x2x3 psame backward_weight circular",
        "conv1d c2 i9 k2 f3 o4 leaky_relu slope=0.25 residual backward_input"}) {
    Input input{0};
    input.insert(input.end(), line, line + std::strlen(line));
    inputs.push_back(input);
  }
  if (folder != nullptr) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      inputs.push_back(read(entry.path()));
    }
  }
  return inputs;
}

}  // namespace

int main(int count, char** arguments) {
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) {
    std::signal(signal, save_input);
  }
  if (count == 3 && std::string_view(arguments[1]) == "--once") {
    const Input input = read(arguments[2]);
    run(input);
    return 0;
  }
  const double seconds = count > 1 ? std::atof(arguments[1]) : 60;
  const char* folder = count > 2 ? arguments[2] : nullptr;
  Mutator mutator(count > 3 ? std::strtoull(arguments[3], nullptr, 10) : std::random_device{}());
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };

  std::vector<Input> corpus = seeds(folder);
  for (const Input& input : corpus) run(input);
  long runs = 0;
  for (; passed() < seconds; ++runs) {
    Input input = mutator.mutate(corpus);
    if (!run(input)) continue;
    if (folder != nullptr) {
      const std::string name = std::to_string(corpus.size()) + "-" + std::to_string(getpid());
      std::ofstream(std::filesystem::path(folder) / name, std::ios::binary)
          .write(reinterpret_cast<const char*>(input.data()),
                 static_cast<std::streamsize>(input.size()));
    }
    corpus.push_back(std::move(input));
  }
  const auto edges =
      std::count_if(reached.begin(), reached.end(), [](auto bits) { return bits != 0; });
  std::printf("%ld runs in %.0f s, %zu inputs kept, %ld edges\n", runs, passed(), corpus.size(),
              static_cast<long>(edges));
}
