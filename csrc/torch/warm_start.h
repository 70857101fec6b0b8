// Inverse roots of single matrices from a basis that nearly diagonalises them.
#pragma once

#include "csrc/core/inverse_root.h"

namespace kronext {

// Writes the inverse root of `matrix` (n x n, lower triangle read) to `root` and returns true, or
// returns false and writes nothing: `basis` is too far from the eigenvectors, or not orthogonal, or
// something is not finite. All threads share the work.
bool warm_inverse_root(int64_t n, const float* matrix, const float* basis, const Damping& damping,
                       float* root);

}  // namespace kronext
