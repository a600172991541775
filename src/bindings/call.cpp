#include "bindings/call.hpp"

#include "bindings/unlocked.hpp"

namespace py = pybind11;

namespace convolith {
namespace {

Shape weight_shape(const ConvProblem& problem) {
  Shape shape = extents(problem, &Window::kernel);
  shape.insert(shape.begin(), {problem.out_channels, problem.in_channels_per_group()});
  return shape;
}

}  // namespace

Shape extents(const ConvProblem& problem, std::int64_t Window::*extent) {
  Shape result;
  for (int i = kSpatialAxes - problem.rank; i < kSpatialAxes; ++i) {
    result.push_back(problem.windows[i].*extent);
  }
  return result;
}

ProblemShapes::ProblemShapes(const ConvProblem& problem)
    : x(maps_shape(problem.layout, false, problem.batch, problem.in_channels,
                   extents(problem, &Window::input))),
      y(maps_shape(problem.layout, false, problem.batch, problem.out_channels,
                   extents(problem, &Window::output))),
      weight(weight_shape(problem)) {}

Call::Call(const ConvProblem& problem, const ProblemShapes& shapes, bool packed,
           const CallArrays& arrays, const Names* names)
    : problem_(problem) {
  const bool forward = problem.direction == Direction::forward;
  const bool for_weight = problem.direction == Direction::backward_weight;
  const char* first_name = names ? names->first.c_str() : forward ? "x" : "dy";
  const char* second_name = names ? names->second.c_str() : for_weight ? "x" : "weight";

  const py::array first = checked(arrays.first, first_name);
  const bool unbatched = problem.batch == 1 && first.ndim() == problem.rank + 1;
  const auto maps_shape = [&](const Shape& shape) {
    return ShapeView(shape).subspan(unbatched ? 1 : 0);
  };
  (forward ? arguments_.x : arguments_.y) =
      maps(first, maps_shape(forward ? shapes.x : shapes.y), first_name);
  if (for_weight) {
    arguments_.x = maps(checked(arrays.second, second_name), maps_shape(shapes.x), second_name);
  } else if (!packed) {
    arguments_.weight = const_cast<void*>(
        whole(checked(arrays.second, second_name), shapes.weight, second_name));
  } else if (!arrays.second.is_none()) {
    throw py::value_error("weight is given, but the plan has its weights packed; pass None");
  }

  const ShapeView output_shape = for_weight ? ShapeView(shapes.weight)
                                            : maps_shape(forward ? shapes.y : shapes.x);
  require_presence(arrays.bias, problem.epilogue.bias, "bias");
  if (problem.epilogue.bias) {
    const std::int64_t channels = forward ? problem.out_channels : problem.in_channels;
    arguments_.bias = whole(checked(arrays.bias, "bias"), {&channels, 1}, "bias");
  }
  require_presence(arrays.residual, problem.epilogue.residual, "residual");
  if (problem.epilogue.residual) {
    arguments_.residual = maps(checked(arrays.residual, "residual"), output_shape, "residual");
  }

  output_.emplace(arrays.out, output_shape, problem.dtype,
                  std::span<const py::object>{inputs_.arrays.data(), static_cast<std::size_t>(inputs_.count)});
  if (for_weight) {
    arguments_.weight = output_->data();
  } else {
    (forward ? arguments_.y : arguments_.x) = output_->maps(problem.layout, problem.rank);
  }
}

py::array Call::run(const Plan& plan) {
  if (plan.brief()) {
    const DefaultFloatingPoint mode;
    plan.run(arguments_);  // ends sooner than another thread could take the interpreter over
  } else {
    const Unlocked unlocked;
    plan.run(arguments_);
  }
  return output_->finish();
}

bool Call::meets_subnormals(const Plan& plan) {
  const DefaultFloatingPoint mode;
  const SubnormalWatch watch;
  plan.run(arguments_);
  return watch.met();
}

py::array Call::checked(py::handle object, const char* argument) {
  py::array array = require_array(object, argument);
  require_dtype(array, problem_.dtype, argument, "the problem");
  inputs_.add(array);
  return array;
}

TensorView Call::maps(const py::array& array, ShapeView shape, const char* argument) {
  require_shape(array, shape, argument);
  const InputMaps input = input_maps(array, problem_.layout, problem_.rank);
  kept_.add(input.array);
  return input.view;
}

const void* Call::whole(const py::array& array, ShapeView shape, const char* argument) {
  require_shape(array, shape, argument);
  const py::array plain = contiguous(array);
  kept_.add(plain);
  return plain.data();
}

void Call::require_presence(py::handle object, bool wanted, const char* argument) {
  if (object.is_none() != wanted) return;
  throw py::value_error(argument + std::string(wanted ? " is None, but the problem has one"
                                                      : " is given, but the problem has none"));
}

}  // namespace convolith
