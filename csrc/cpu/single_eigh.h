// Eigendecomposition and inverse root of one symmetric matrix, which several threads can share.
//
// Mixed: reduction, divide and conquer and eigenvalues in float64, eigenvectors and root in
// float32. Float: the reduction too is in float32. Double: everything is in that type.
#pragma once

#include "csrc/core/single_eigh.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const SingleEighKernel<float> kSingleEighMixed;
extern const SingleEighKernel<float> kSingleEighFloat;
extern const SingleEighKernel<double> kSingleEighDouble;

}  // namespace kronext::cpu::KRONEXT_CPU
