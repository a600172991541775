#pragma once

#include "convolith/algorithm.hpp"
#include "epilogue.hpp"
#include "phases.hpp"

namespace convolith {

/// The arrays of a call, forward or backward-input: what is read, and what is written.
template <class T>
struct DirectedCall {
  Maps<T> source, output;
  const T* bias;  ///< null: none
  BoundEpilogue<T> epilogue;
  const T* packed;

  DirectedCall(const ConvProblem& problem, const ConvArguments& arguments,
               const void* packed_weights) noexcept
      : source(typed<T>(is_adjoint(problem) ? arguments.y : arguments.x)),
        output(typed<T>(is_adjoint(problem) ? arguments.x : arguments.y)),
        bias(static_cast<const T*>(arguments.bias)),
        epilogue(problem, arguments),
        packed(static_cast<const T*>(packed_weights)) {}
};

}  // namespace convolith
