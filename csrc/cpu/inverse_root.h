// Eigendecomposition and inverse roots of a group of symmetric matrices of one size, on one thread.
//
// Mixed: tridiagonalisation, QL and eigenvalues in float64, eigenvectors and root in float32. Float
// and double: everything in that type.
#pragma once

#include "csrc/core/inverse_root.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const EighKernel<float> kEighMixed;
extern const EighKernel<float> kEighFloat;
extern const EighKernel<double> kEighDouble;

}  // namespace kronext::cpu::KRONEXT_CPU
