// One side of an outer-product update: C <- decay C + weight X XT.
//
// L <- decay L + weight G GT is the side with X = G, R <- decay R + weight GT G the side with X =
// GT, so a transposed view is all that tells them apart.
#pragma once

#include "csrc/core/matrix.h"

namespace kronext {

struct OuterSide {
  Matrix x;       // dim x depth
  Matrix factor;  // dim x dim, rows contiguous; only its lower triangle is read
  double decay;   // 0: the old content of the factor is not read
  double weight;
  int parts = 0;  // bfloat16 parts that may stand for a float32 number of x; 0: none may
};

}  // namespace kronext
