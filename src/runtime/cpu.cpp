#include "runtime/cpu.hpp"

#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "convolith/error.hpp"

namespace convolith {

namespace baseline {
extern const KernelTable kernel_table;
}
namespace avx2 {
extern const KernelTable kernel_table;
}
namespace avx512 {
extern const KernelTable kernel_table;
}

namespace {

struct IsaEntry {
  const char* name;
  const KernelTable* table;
  bool (*runs_here)();
};

constexpr IsaEntry kIsas[] = {
#if defined(CONVOLITH_HAS_baseline) && defined(__x86_64__)
    {"baseline", &baseline::kernel_table,
     [] { return __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("popcnt") != 0; }},
#elif defined(CONVOLITH_HAS_baseline)
    {"baseline", &baseline::kernel_table, [] { return true; }},
#endif
#if defined(CONVOLITH_HAS_avx2)
    {"avx2", &avx2::kernel_table,
     [] { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }},
#endif
#if defined(CONVOLITH_HAS_avx512)
    {"avx512", &avx512::kernel_table,
     [] {
       return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
              __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
     }},
#endif
};

struct CacheSizes {
  std::size_t l1, l2, l3;
};

/// Asked for once: under a hypervisor each question costs microseconds.
const CacheSizes& cache_sizes() {
  static const CacheSizes sizes = [] {
    CacheSizes result{32 << 10, 512 << 10, 8 << 20};
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    const auto ask = [](int name, std::size_t& bytes) {
      const long size = sysconf(name);
      if (size > 0) bytes = static_cast<std::size_t>(size);
    };
    ask(_SC_LEVEL1_DCACHE_SIZE, result.l1);
    ask(_SC_LEVEL2_CACHE_SIZE, result.l2);
    ask(_SC_LEVEL3_CACHE_SIZE, result.l3);
#endif
    // Of an L3 that comes in several slices, sysconf may name the sum.
    if (std::FILE* file = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
      std::size_t kibibytes = 0;
      if (std::fscanf(file, "%zuK", &kibibytes) == 1 && kibibytes > 0) result.l3 = kibibytes << 10;
      std::fclose(file);
    }
    return result;
  }();
  return sizes;
}

/// Vectors of 64 bytes go in two halves through the datapaths of AMD's family 19h, which is Zen 4
/// where it has AVX-512 (Software Optimization Guide for the AMD Zen4 Microarchitecture, 57647).
bool halves_wide_vectors() {
  static const bool halves = [] {
    if (const char* told = std::getenv("CONVOLITH_HALVES_VECTORS")) {
      const std::string_view answer = told;
      if (answer == "0" || answer == "1") return answer == "1";
      throw InvalidArgument("environment variable CONVOLITH_HALVES_VECTORS: '" +
                            std::string(answer) + "' is neither 0 nor 1");
    }
#if defined(__x86_64__)
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__builtin_cpu_is("amd") == 0 || __get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
    const unsigned family = ((eax >> 8) & 0xF) + ((eax >> 20) & 0xFF);
    return family == 0x19;
#else
    return false;
#endif
  }();
  return halves;
}

}  // namespace

std::span<const char* const> compiled_isas() noexcept {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> result;
    for (const IsaEntry& isa : kIsas) result.push_back(isa.name);
    return result;
  }();
  return names;
}

std::span<const KernelTable* const> available_isas() noexcept {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> result;
    for (const IsaEntry& isa : kIsas) {
      if (isa.runs_here()) result.push_back(isa.table);
    }
    return result;
  }();
  return tables;
}

const KernelTable& find_isa(std::string_view name) {
  std::string choices;
  for (const KernelTable* table : available_isas()) {
    if (name == table->isa) return *table;
    choices += std::string(choices.empty() ? "" : ", ") + table->isa;
  }
  bool compiled = false;
  for (const char* isa : compiled_isas()) compiled = compiled || name == isa;
  throw InvalidArgument("ISA '" + std::string(name) + "' is " +
                        (compiled ? "not one that this CPU has" : "unknown") +
                        "; available here: " + choices);
}

const KernelTable& compiled_isa(std::string_view name) {
  std::string choices;
  for (const IsaEntry& isa : kIsas) {
    if (name == isa.name) return *isa.table;
    choices += std::string(choices.empty() ? "" : ", ") + isa.name;
  }
  throw InvalidArgument("ISA '" + std::string(name) + "' is unknown; compiled in: " + choices);
}

const KernelTable& isa_in_use() {
  static const KernelTable& chosen = []() -> const KernelTable& {
    if (const char* forced = std::getenv("CONVOLITH_ISA")) {
      try {
        return find_isa(forced);
      } catch (const InvalidArgument& error) {
        throw InvalidArgument("environment variable CONVOLITH_ISA: " + std::string(error.what()));
      }
    }
    if (available_isas().empty()) {
      throw InvalidArgument("this CPU has none of the ISAs that were compiled in");
    }
    return *available_isas().back();
  }();
  return chosen;
}

Machine nominal_machine(const KernelTable& isa) {
  // Two vector FMAs a cycle at 3 GHz, and one core's share of memory. Costs are compared with one
  // another only, and must not vary from run to run.
  constexpr double kCyclesPerSecond = 3e9;
  Machine machine{};
  machine.kernels = &isa;
  machine.flops_per_second[0] = kCyclesPerSecond * 2 * 2 * isa.float32.lanes;
  machine.flops_per_second[1] = kCyclesPerSecond * 2 * 2 * isa.float64.lanes;
  machine.cycles_per_second = kCyclesPerSecond;
  machine.bytes_per_second = 12e9;
  return machine;
}

Machine describe_machine(const KernelTable& isa) {
  Machine machine = nominal_machine(isa);
  machine.halves_vectors = halves_wide_vectors() && isa.vector_bytes == 64;
  if (machine.halves_vectors) {
    for (double& rate : machine.flops_per_second) rate /= 2;
  }
  machine.l1_bytes = cache_sizes().l1;
  machine.l2_bytes = cache_sizes().l2;
  machine.l3_bytes = cache_sizes().l3;
  return machine;
}

bool outgrows_caches(double bytes) noexcept {
  return bytes > static_cast<double>(cache_sizes().l3);
}

bool maps_outgrow_caches(const ConvProblem& problem) noexcept {
  const std::int64_t result = problem.direction == Direction::backward_input ? problem.x_size()
                                                                             : problem.y_size();
  const std::int64_t residual = problem.epilogue.residual ? result : 0;
  return outgrows_caches(static_cast<double>(problem.x_size() + problem.y_size() + residual) *
                         static_cast<double>(size_of(problem.dtype)));
}

}  // namespace convolith
