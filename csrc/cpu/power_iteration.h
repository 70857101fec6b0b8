// Products with the rearranged matrix of H, and the small algebra of power iteration on it.
//
// congruence.h holds the products from samples, rearranged.h those from a dense H, and
// kronecker_basis.h how iterates are normalised and made into singular triples.
#pragma once

#include "csrc/core/power_iteration.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const PowerIterationKernel kPowerIteration;

}  // namespace kronext::cpu::KRONEXT_CPU
