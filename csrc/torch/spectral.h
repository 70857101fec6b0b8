// Eigenvalues, eigenvectors and inverse roots of many symmetric matrices at once: which solver
// takes which matrix, and how they share the threads.
#pragma once

#include <vector>

#include "csrc/torch/inverse_root.h"

namespace kronext {

template <class T>
void solve_spectral(std::vector<SpectralProblem>& problems, const Request& request, int32_t* info);

}  // namespace kronext
