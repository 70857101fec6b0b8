// One matrix for the CUDA eigensolvers, as the host lists it and as kernels read it from the table.
#pragma once

#include <stdint.h>

#include "csrc/core/inverse_root.h"

namespace kronext::cuda {

// Device pointers. Only the lower triangle of the matrix is read; the basis and all outputs are
// dense, row-major, and null where there is none or it is not wanted.
struct SpectralTask {
  const float* matrix;
  int64_t row_stride;  // of the matrix, in elements
  const float* basis;  // eigenvectors of a nearby matrix, in columns
  float* values;       // n, ascending
  float* vectors;      // column k belongs to value k
  float* root;         // symmetric bit for bit
  int32_t* info;       // always there
  int32_t n;
};

// What all matrices of a call share.
struct SpectralOptions {
  Damping damping;   // of the roots
  bool keep_failed;  // a root whose matrix fails stays as it was
};

}  // namespace kronext::cuda
