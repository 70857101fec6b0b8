// Eigendecompositions and inverse roots of a ragged list of symmetric float32 matrices of up to
// 2048 rows, on a stream: too large for the shared memory of a block, so many blocks share each.
//
//   A + s I = L LT    wide arithmetic, pivoted; s = 0 where A is positive definite, else the
//                     smallest of a ladder of shifts that makes it so
//   M = L             rotations from the right make the columns of M orthogonal, panel against
//                     panel: float32 Gram matrix, accumulated rotations, product
//   M = U Sigma       eigenvectors U, eigenvalues Sigma^2 - s
//   root = U f UT
//
// From a basis Q: B = QT A Q in wide arithmetic, B + s I = L LT, M = Q L. M is nearly orthogonal
// already and takes fewer sweeps. A basis that is far from orthogonal is dropped.
//
// A stage is a launch for all matrices of the list. Which launches follow each other is decided by
// the sizes alone: kernels find on the device whether their matrix still needs them, and return at
// once if not. With p = ceil(n / 64) for the largest n, at most
//   2 p (7 + log4(2 n))     factorisation: one for 32 columns and attempted shift
//   40 (2 p - 1)            sweeps: two for each round of 20 sweeps; about 6 to 14 have work
//   20 (2 r - 1)            sweeps of matrices whose r pairs of panels are kept in shared memory:
//                           one for each round; a list of these alone has none of the line before
//   10                      all the rest
// so 800 launches (or 500) for n = 512, and 3400 for n = 2048. Nothing here allocates, synchronises
// or looks at device data, so all of it may be captured into a CUDA graph. Results repeat bit for
// bit, and do not depend on what else is in the list.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "csrc/cuda/device_shape.h"
#include "csrc/cuda/panel_layout.h"

namespace kronext::cuda {

struct PanelEighPlan {
  std::vector<int64_t> members;   // of the list, the largest first
  std::vector<int64_t> left_out;  // empty, or too large
  SizeClasses classes;
  bool two_floats = false;                                            // instead of float64
  bool warm = false, values = false, vectors = false, roots = false;  // any member
  int largest = 0;                                                    // rows
  int resident_pairs = 0;  // matrices of up to so many have theirs in shared memory
  int64_t table_bytes = 0;
  int64_t state_bytes = 0;
  int64_t workspace_bytes = 0;
};

// Reads sizes, and which pointers are null.
PanelEighPlan plan_panel_eigh(const SpectralTask* tasks, int64_t count, const DeviceShape& device);

// Writes plan.table_bytes to `table`, host memory aligned to 16 bytes.
void fill_panel_eigh_table(const PanelEighPlan& plan, const SpectralTask* tasks, void* table);

// `table` and `workspace` are device memory, aligned to 256 bytes. What the plan leaves out is not
// touched.
cudaError_t panel_eigh(const PanelEighPlan& plan, const void* table, void* workspace,
                       const SpectralOptions& options, cudaStream_t stream);

}  // namespace kronext::cuda
