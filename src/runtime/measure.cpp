#include "runtime/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "runtime/cpu.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace convolith {
namespace {

template <class Body>
double seconds_of(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

template <class T>
double measure_peak_typed(const Kernels<T>& kernels, int threads) {
  constexpr double kBurst = 5e-3;
  constexpr int kBursts = 21;
  std::int64_t rounds = 1000;
  while (seconds_of([&] { kernels.fma_rounds(rounds); }) < kBurst) rounds *= 2;
  const double flops = static_cast<double>(kernels.fma_rounds(0)) * static_cast<double>(rounds);
  std::vector<double> rates;
  for (int burst = 0; burst < kBursts; ++burst) {
    const double seconds = seconds_of(
        [&] { parallel(threads, [&](int, int) { kernels.fma_rounds(rounds); }); });
    rates.push_back(flops * threads / seconds);
  }
  return median(rates);
}

}  // namespace

double measure_peak(DType dtype, int threads) {
  const KernelTable& isa = isa_in_use();
  return dtype == DType::float32 ? measure_peak_typed(isa.float32, threads)
                                 : measure_peak_typed(isa.float64, threads);
}

double measure_copy(std::size_t bytes, int threads) {
  const std::shared_ptr<void> source = allocate_aligned(bytes);
  const std::shared_ptr<void> target = allocate_aligned(bytes);
  const auto copy = [&] {
    parallel(threads, [&](int thread, int team) {
      const Range part = Range::share(static_cast<std::int64_t>(bytes), thread, team);
      std::memcpy(static_cast<char*>(target.get()) + part.begin,
                  static_cast<const char*>(source.get()) + part.begin,
                  static_cast<std::size_t>(part.end - part.begin));
    });
  };
  std::memset(source.get(), 1, bytes);
  copy();
  constexpr double kSample = 5e-3;
  constexpr int kSamples = 15;
  const int repeats = static_cast<int>(std::clamp(kSample / seconds_of(copy), 1.0, 1e5));
  std::vector<double> rates;
  for (int sample = 0; sample < kSamples; ++sample) {
    const double seconds = seconds_of([&] {
      for (int i = 0; i < repeats; ++i) copy();
    });
    rates.push_back(2.0 * static_cast<double>(bytes) * repeats / seconds);
  }
  return median(rates);
}

}  // namespace convolith
