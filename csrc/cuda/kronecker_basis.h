// Orthonormalising inside an iteration that may stop.
#pragma once

#include "csrc/cuda/power_iteration.h"

namespace kronext::cuda {

// `done` becomes 1 once no batch entry turned by more than `tolerance`; where it is 1 nothing is
// done. It may be null.
cudaError_t orthonormalise(const BasesPlan& plan, const void* table, void* workspace,
                           double* turned, double tolerance, int* done, cudaStream_t stream);

}  // namespace kronext::cuda
