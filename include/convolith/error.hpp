#pragma once

#include <stdexcept>
#include <string>

namespace convolith {

/// An argument has an illegal value. what() names the argument, the value and what would be right.
using InvalidArgument = std::invalid_argument;

/// A product of extents does not fit 64 bits.
using Overflow = std::overflow_error;

/// The problem is legal, but no algorithm (or not the one named) can serve it.
class Unsupported : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

}  // namespace convolith
