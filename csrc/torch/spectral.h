// Eigenvalues, eigenvectors and inverse roots of many symmetric matrices at once: which solver
// takes which matrix, and how they share the threads.
#pragma once

#include <vector>

#include "csrc/core/inverse_root.h"

namespace kronext {

// One matrix; pointers to dense row-major memory of the solver's type, null for what is not wanted.
struct SpectralProblem {
  int64_t n;
  const void* matrix;
  const void* basis;
  void* values;
  void* vectors;
  void* root;
  int64_t info;  // index of its entry in the info array
};

// `damping` is null when no roots are wanted. With `keep_failed` a root whose matrix fails is left
// as it was; else every wanted result of such a matrix is the identity's.
template <class T>
void solve_spectral(std::vector<SpectralProblem>& problems, const Damping* damping,
                    bool keep_failed, int32_t* info);

}  // namespace kronext
