#pragma once

#include <stdexcept>
#include <string>

namespace convolith::cuda {

/// A call of the CUDA runtime failed. what() names it and what it was for.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace convolith::cuda
