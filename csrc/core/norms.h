// |x|^2 of the entries of a tensor, whatever its shape.
#pragma once

#include "csrc/core/matrix.h"

namespace kronext {

struct Run {
  const void* data;  // `count` entries next to each other
  Dtype dtype;
  int64_t count;
};

// Summed in float64, in an order that depends on the count alone.
using SquaredNorm = double (*)(const Run&);

}  // namespace kronext
