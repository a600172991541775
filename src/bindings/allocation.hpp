#pragma once

#include <pybind11/pybind11.h>

namespace convolith {

/// While it lives, the calling thread's new NumPy arrays begin on a cache line (NEP 49). NumPy's
/// own begin 16 bytes behind one, so that every vector that is stored straddles two.
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
