#include "cuda/plan.hpp"

#include "cuda/device.hpp"
#include "cuda/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/registry.hpp"

namespace convolith::cuda {
namespace {

Field field_of(int device) {
  return {algorithms(), describe_device(device), 1, "on the device"};
}

}  // namespace

Plan::Plan(const ConvProblem& problem, const PlanOptions& options, int device)
    : problem_(problem),
      options_(options),
      field_(field_of(device)),
      choice_(choose_prepared(problem, options, field_)) {}

std::size_t Plan::workspace_bytes() const noexcept {
  return (choice_.execution->workspace_bytes() + kMemoryAlignment - 1) / kMemoryAlignment *
         kMemoryAlignment;
}

void Plan::pack(const void* weight, void* packed, cudaStream_t stream) const {
  const StreamScope scope(stream);
  choice_.execution->pack(weight, packed);
  check("packing weights for ");
}

void Plan::run(const ConvArguments& arguments, const void* packed, void* workspace,
               cudaStream_t stream) const {
  // An empty batch has an empty result; the gradient of its weights is zero all the same.
  if (problem_.batch == 0 && problem_.direction != Direction::backward_weight) return;
  const StreamScope scope(stream);
  if (packed == nullptr && packed_bytes() > 0) {
    void* panels = static_cast<std::byte*>(workspace) + workspace_bytes();
    choice_.execution->pack(arguments.weight, panels);
    packed = panels;
  }
  choice_.execution->run(arguments, packed, workspace);
  check("");
}

void Plan::check(const char* what) const {
  const cudaError_t error = take_error();
  if (error == cudaSuccess) return;
  throw DeviceError(std::string(what) + algorithm().name() + " on " + problem_.str() +
                    " failed: " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

std::string Plan::explain() const {
  const Device& device = *field_.machine.device;
  return problem_.str() + "\n" + device.name + ", numerics " + name(options_.numerics) +
         ", algorithm '" + options_.algorithm + "'" +
         explain_choice(problem_, options_, field_, algorithm());
}

std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options,
                                  int device) {
  return convolith::candidates(problem, options, field_of(device));
}

}  // namespace convolith::cuda
