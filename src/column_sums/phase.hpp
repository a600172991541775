#pragma once

#include "convolith/problem.hpp"
#include "packed_rows.hpp"

namespace convolith {

/// The extent of the kernel whose column sums make a problem, or 0: a square of odd extent, of
/// stride 1, with rows of outputs that are as long as those of the source.
int column_sums_kernel(const ConvProblem& problem);

/// The only phase of such a problem.
DensePhase column_sums_phase(const ConvProblem& problem);

}  // namespace convolith
