#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <cuda_runtime.h>

#include "convolith/plan.hpp"
#include "selection.hpp"

namespace convolith::cuda {

/// What convolith::Plan is for the processor: problem, algorithm and sizes, chosen once. Memory is
/// the caller's, so that it comes from the pool of the library that made the arrays. Immutable.
/// Where the channels of a channels_last array fill whole blocks of 16 bytes, each pixel of an array
/// that is read begins at a multiple of 16 bytes.
class Plan {
 public:
  /// Chooses among the algorithms of CUDA devices. Throws Unsupported with every one's reason.
  Plan(const ConvProblem& problem, const PlanOptions& options, int device);

  /// Writes packed_bytes() that serve every later run.
  void pack(const void* weight, void* packed, cudaStream_t stream) const;

  /// Enqueues a run. `workspace` has workspace_bytes(), and packed_bytes() more where `packed` is
  /// null: then the weights are packed anew. Both are aligned to kMemoryAlignment.
  void run(const ConvArguments& arguments, const void* packed, void* workspace,
           cudaStream_t stream) const;

  const ConvProblem& problem() const noexcept { return problem_; }
  const Algorithm& algorithm() const noexcept { return *choice_.algorithm; }
  std::size_t packed_bytes() const noexcept { return choice_.execution->packed_bytes(); }
  std::size_t workspace_bytes() const noexcept;  ///< a multiple of kMemoryAlignment
  std::string explain() const;

  static constexpr std::size_t kMemoryAlignment = 256;

 private:
  void check(const char* what) const;

  ConvProblem problem_;
  PlanOptions options_;
  Field field_;
  Choice choice_;
};

/// Every algorithm of CUDA devices on `problem`, with reasons where one cannot serve.
std::vector<Candidate> candidates(const ConvProblem& problem, const PlanOptions& options,
                                  int device);

}  // namespace convolith::cuda
