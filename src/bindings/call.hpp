#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bindings/arrays.hpp"
#include "convolith/plan.hpp"

namespace convolith {

/// Extents of the spatial axes of a problem's own rank.
Shape extents(const ConvProblem& problem, std::int64_t Window::*extent);

/// The shapes of a problem's arrays, with a batch axis.
struct ProblemShapes {
  Shape x, y, weight;

  explicit ProblemShapes(const ConvProblem& problem);
};

/// A plan and what every call of it looks up.
struct ArrayPlan {
  Plan plan;
  ProblemShapes shapes;

  explicit ArrayPlan(Plan made) : plan(std::move(made)), shapes(plan.problem()) {}
};

/// What a caller passes: `first` and `second` are (x, weight), (dy, weight) or (dy, x).
struct CallArrays {
  pybind11::handle first, second, bias, residual, out;
};

/// What messages call the first two arrays.
using Names = std::pair<std::string, std::string>;

/// The arrays of one call, checked against the problem, with the output in place. Made before a
/// plan is: what cannot be allocated is refused before anything is computed.
class Call {
 public:
  /// With `packed` weights, `second` is None. Without `names`, messages use those of CallArrays.
  Call(const ConvProblem& problem, const ProblemShapes& shapes, bool packed,
       const CallArrays& arrays, const Names* names = nullptr);

  pybind11::array run(const Plan& plan);

  /// Whether the plan computes with subnormal numbers, on the calling thread.
  bool meets_subnormals(const Plan& plan);

 private:
  pybind11::array checked(pybind11::handle object, const char* argument);
  TensorView maps(const pybind11::array& array, ShapeView shape, const char* argument);
  const void* whole(const pybind11::array& array, ShapeView shape, const char* argument);
  static void require_presence(pybind11::handle object, bool wanted, const char* argument);

  const ConvProblem& problem_;
  ConvArguments arguments_{};
  static constexpr int kMostInputs = 4;
  struct Inputs {
    std::array<pybind11::object, kMostInputs> arrays;
    int count = 0;
    void add(const pybind11::array& array) { arrays[count++] = array; }
  };
  Inputs inputs_;  ///< as given: the output must not overlap them
  Inputs kept_;    ///< what the arguments point into
  std::optional<Output> output_;
};

}  // namespace convolith
