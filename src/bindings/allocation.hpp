#pragma once

#include <pybind11/pybind11.h>

namespace convolith {

/// While it lives, the memory of the calling thread's new NumPy arrays comes from array_blocks()
/// (NEP 49). NumPy's own begins 16 bytes behind a cache line, so that every vector that is stored
/// straddles two.
class AlignedArrays {
 public:
  AlignedArrays();
  ~AlignedArrays();
  AlignedArrays(const AlignedArrays&) = delete;
  AlignedArrays& operator=(const AlignedArrays&) = delete;

 private:
  PyObject* previous_;
};

}  // namespace convolith
