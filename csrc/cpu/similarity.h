// out <- weight X C XT on packed panels, symmetric bit for bit.
//
// X and C are packed once (shared). A step makes one row panel of the output: its panel of X times
// C comes out as a packed panel that stays in the cache, and is then multiplied with the panels of
// X on or before it. 1.5 n^3 multiply-adds instead of the 2 n^3 of two products.
#pragma once

#include "csrc/core/job.h"
#include "csrc/core/similarity.h"

namespace kronext::cpu::KRONEXT_CPU {

// One pack step a panel of X or of C, one step a row panel of the output, the longest first.
extern const JobKernel<SimilarityProblem> kSimilarity;

}  // namespace kronext::cpu::KRONEXT_CPU
