// Eigendecomposition and inverse root of one symmetric matrix by a team of threads.
#pragma once

#include "csrc/core/inverse_root.h"
#include "csrc/core/team.h"

namespace kronext {

// One matrix; what holds for a group holds for it.
template <class T>
struct EighProblem {
  int64_t n;
  const T* matrix;
  int64_t row_stride;
  T* values;   // n
  T* vectors;  // n x n
  T* root;     // n x n
  const Damping* damping;
  bool keep_failed;
};

template <class T>
struct SingleEighKernel {
  int64_t (*workspace_bytes)(int64_t n, int64_t workers);
  // Says what became of the matrix. The result does not depend on the team.
  Info (*run)(const EighProblem<T>&, const Team&, void* workspace);
};

}  // namespace kronext
