// out <- weight X C XT for a symmetric C.
#pragma once

#include "csrc/core/matrix.h"

namespace kronext {

struct SimilarityProblem {
  Matrix x;    // n x n
  Matrix c;    // n x n, symmetric
  Matrix out;  // n x n, float32 or float64, rows contiguous
  double weight;
  bool wide;  // compute in float64 whatever the operands are
};

}  // namespace kronext
