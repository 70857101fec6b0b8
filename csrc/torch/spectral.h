// Eigenvalues, eigenvectors and inverse roots of many symmetric matrices at once: which solver
// takes which matrix, and how they share the threads.
#pragma once

#include <vector>

#include "csrc/torch/inverse_root.h"

namespace kronext {

// `damping` is null when no roots are wanted. With `keep_failed` a root whose matrix fails is left
// as it was; else every wanted result of such a matrix is the identity's.
template <class T>
void solve_spectral(std::vector<SpectralProblem>& problems, const Damping* damping,
                    bool keep_failed, int32_t* info);

}  // namespace kronext
