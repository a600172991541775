#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "convolith/algorithm.hpp"
#include "kernels/kernel_table.hpp"

namespace convolith {

/// The ISAs compiled into the library, least first.
std::span<const char* const> compiled_isas() noexcept;

/// Those of them that this CPU and operating system can run, least first.
std::span<const KernelTable* const> available_isas() noexcept;

/// The ISA of that name, or InvalidArgument listing the available ones.
const KernelTable& find_isa(std::string_view name);

/// The same of the compiled ones: its kernels may not run here.
const KernelTable& compiled_isa(std::string_view name);

/// The ISA in use: CONVOLITH_ISA if set (InvalidArgument if it cannot be used), else the best.
const KernelTable& isa_in_use();

/// Rates of a machine whose datapaths are as wide as the ISA's vectors; no caches.
Machine nominal_machine(const KernelTable& isa);

/// Cache sizes and nominal rates of this machine, for kernels of the given ISA. InvalidArgument if
/// CONVOLITH_HALVES_VECTORS, which tells whether its datapaths do so, is not 0 or 1.
Machine describe_machine(const KernelTable& isa);

/// Whether a pass over so many bytes, its results among them, leaves little of them in the caches:
/// results then do better to go past those, for no line is read before it is written.
bool outgrows_caches(double bytes) noexcept;

/// The same of a convolution, or of its gradient by x, over its maps.
bool maps_outgrow_caches(const ConvProblem& problem) noexcept;

/// Of a vector of its kernels.
inline int lanes_of(DType dtype, const Machine& machine) noexcept {
  return dtype == DType::float64 ? machine.kernels->float64.lanes : machine.kernels->float32.lanes;
}

template <class T>
const Kernels<T>& kernels_for(const Machine& machine) noexcept;
template <>
inline const Kernels<float>& kernels_for(const Machine& machine) noexcept {
  return machine.kernels->float32;
}
template <>
inline const Kernels<double>& kernels_for(const Machine& machine) noexcept {
  return machine.kernels->float64;
}

/// Whether register tiles over two panels pay: they load fewer of the sources for as many products,
/// for which datapaths of half a vector leave time.
template <class T>
bool pairs_panels(const Machine& machine) noexcept {
  return kernels_for<T>(machine).paired_rows > 0 && !machine.halves_vectors;
}

/// Whether L3 spans a chip of many cores: one of them reads it little faster than memory (25 GB/s,
/// beside 15 to 20, measured with 480 MiB on an Intel Xeon).
inline bool l3_is_far(const Machine& machine) noexcept {
  return machine.l3_bytes > std::size_t{64} << 20;
}

/// Seconds on one core of writing packed weights; those that outgrow L2 wait for memory. Fitted.
inline double packing_seconds(double bytes, const Machine& machine) noexcept {
  const bool cached = bytes < static_cast<double>(machine.l2_bytes) * 4;
  return bytes / ((cached ? 2.5 : 0.7) * machine.bytes_per_second);
}

/// Seconds on one core of taking channels out of pixels element by element, and putting them
/// together again. Fitted.
inline double gathering_seconds(double elements, const Machine& machine) noexcept {
  constexpr double kElementCycles = 3;
  return elements * kElementCycles / machine.cycles_per_second;
}

}  // namespace convolith
