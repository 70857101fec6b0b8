// |x|^2 of the entries of a tensor, whatever its shape.
#pragma once

#include "csrc/core/matrix.h"

namespace kronext {

// `count` entries next to each other.
struct Stretch {
  const void* data;
  Dtype dtype;
  int64_t count;
};

// Summed in float64, in an order that depends on the count alone.
using SquaredNorm = double (*)(const Stretch&);

}  // namespace kronext
