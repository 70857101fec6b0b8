// out <- left G right on packed panels, the intermediate left G never leaving the cache.
//
// The columns of G and of right are packed once (shared). A step makes a row panel of the output:
// it multiplies its panel of left with every panel of G, operands exchanged, so that each finished
// tile of left G is, as it lies, a piece of the packed row panel that the product with right needs
// next; for bfloat16 units it is rounded or split into one while it is in the first-level cache.
// Steps on a large right factor make several row panels at once: what comes from memory then
// serves all of them. m n (m + n) multiply-adds; bytes: both factors and G once, their panels, out
// once.
#pragma once

#include "csrc/cpu/kernels.h"

namespace kronext::cpu::KRONEXT_CPU {

// One pack step a panel of G or right, one step up to four row panels of the output.
extern const ProductKernel<PreconditionProblem> kPrecondition;

}  // namespace kronext::cpu::KRONEXT_CPU
