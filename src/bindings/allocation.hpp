#pragma once

#include <pybind11/pybind11.h>

namespace convolith {

/// While it lives, the memory of the calling thread's new NumPy arrays comes from array_blocks()
/// (NEP 49). NumPy's own begins 16 bytes behind a cache line, so that every vector that is stored
/// straddles two. The handler is set in a copy of the thread's context, which is left without
/// asking for memory; setting the one before anew could fail.
class AlignedArrays {
 public:
  AlignedArrays();
  ~AlignedArrays();
  AlignedArrays(const AlignedArrays&) = delete;
  AlignedArrays& operator=(const AlignedArrays&) = delete;

 private:
  pybind11::object context_;
};

}  // namespace convolith
