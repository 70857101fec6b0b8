// C <- decay C + weight X XT on packed panels (csrc/core/outer.h says what a side is).
//
// The depth is read once per side by the packing; the product visits tiles on or below the diagonal
// only, dim^2 * depth operations instead of 2 dim^2 depth, and the epilogue blends and mirrors each
// finished tile while it is in the first-level cache. Bytes: the matrix, its panels twice, one read
// and one write of the factor.
#pragma once

#include "csrc/cpu/kernels.h"

namespace kronext::cpu::KRONEXT_CPU {

// One pack step a panel of X, one step a strip of output tiles.
extern const ProductKernel<OuterSide> kOuter;

}  // namespace kronext::cpu::KRONEXT_CPU
