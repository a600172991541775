#pragma once

// Which sources a destination of an axis reads: index arithmetic for the host and the device alike.

#include <cstdint>

#include "convolith/window.hpp"
#include "padding.hpp"

namespace convolith::cuda {

/// One kernel tap of one axis and the source under it, -1 where there is none.
struct AxisEntry {
  std::int64_t tap, source;
};

/// How many padded coordinates stand for input i, itself included.
constexpr std::int64_t image_count(const Window& w, PaddingMode mode, std::int64_t i) {
  const std::int64_t last = w.input - 1;
  switch (mode) {
    case PaddingMode::zeros: return 1;
    case PaddingMode::reflect:
      return 1 + (i > 0 && i <= w.before) + (i < last && last - i <= w.after);
    case PaddingMode::replicate:
      return 1 + (i == 0 ? w.before : 0) + (i == last ? w.after : 0);
    case PaddingMode::circular: return 1 + (i >= w.input - w.before) + (i < w.after);
  }
  return 1;
}

/// The j-th of them.
constexpr std::int64_t image(const Window& w, PaddingMode mode, std::int64_t i, std::int64_t j) {
  if (j == 0) return i;
  const std::int64_t last = w.input - 1;
  switch (mode) {
    case PaddingMode::zeros: return i;
    case PaddingMode::reflect: return j == 1 && i > 0 && i <= w.before ? -i : 2 * last - i;
    case PaddingMode::replicate: {
      const std::int64_t leading = i == 0 ? w.before : 0;
      return j <= leading ? -j : last + j - leading;
    }
    case PaddingMode::circular:
      return j == 1 && i >= w.input - w.before ? i - w.input : i + w.input;
  }
  return i;
}

/// The entries of a destination are numbered; not all of them have a source. Forward, destinations
/// are outputs and sources inputs; adjoint, the other way round.
constexpr std::int64_t entry_count(const Window& w, PaddingMode mode, bool adjoint,
                                   std::int64_t destination) {
  return adjoint ? w.kernel * image_count(w, mode, destination) : w.kernel;
}

constexpr AxisEntry axis_entry(const Window& w, PaddingMode mode, bool adjoint,
                               std::int64_t destination, std::int64_t entry) {
  if (!adjoint) {
    const std::int64_t at = destination * w.stride + entry * w.dilation - w.before;
    return {entry, padded_source(at, w.input, mode)};
  }
  // Output o reads the padded coordinate o * stride + tap * dilation - before.
  const std::int64_t tap = entry % w.kernel;
  const std::int64_t distance =
      image(w, mode, destination, entry / w.kernel) + w.before - tap * w.dilation;
  if (distance < 0 || distance % w.stride != 0) return {tap, -1};
  const std::int64_t source = distance / w.stride;
  return {tap, source < w.output ? source : -1};
}

}  // namespace convolith::cuda
