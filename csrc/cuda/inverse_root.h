// Eigendecompositions and inverse roots of a ragged list of symmetric float32 matrices, on a
// stream.
//
// A caller plans once for the sizes of its list, then for each call fills the table, copies it to
// the device and launches. Nothing here allocates, synchronises or looks at device data, so all of
// it may be captured into a CUDA graph. Results repeat bit for bit, and do not depend on what else
// is in the list.
//
// One launch serves the matrices of one kernel and about one size. Matrices that do not fit the
// shared memory of a block are left to the panel solver.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "csrc/cuda/device_shape.h"
#include "csrc/cuda/spectral_task.h"

namespace kronext::cuda {

// By the number of rows up to which they serve.
enum class ResidentSize { k16, k32, k64, k128, k160 };

// The kernels that are built.
struct ResidentKernel {
  ResidentSize size;
  bool warm;        // starts from a basis
  bool two_floats;  // instead of float64
  bool operator==(const ResidentKernel&) const = default;
};

struct InverseRootGroup {
  ResidentKernel kernel;
  std::vector<int64_t> members;  // of the list, the largest first
  int64_t tasks_at;              // bytes into the table
  int matrix_bytes;              // shared memory of each
};

struct InverseRootPlan {
  std::vector<InverseRootGroup> groups;  // one launch each
  std::vector<int64_t> large;            // members that no kernel here takes
  int64_t table_bytes = 0;
  static constexpr int64_t workspace_bytes = 0;
};

// Reads sizes, and which matrices have a basis.
InverseRootPlan plan_inverse_root(const SpectralTask* tasks, int64_t count,
                                  const DeviceShape& device);

// Writes plan.table_bytes to `table`, host memory aligned to 16 bytes.
void fill_inverse_root_table(const InverseRootPlan& plan, const SpectralTask* tasks, void* table);

// `table` is device memory, aligned to 256 bytes. The large members are not touched.
cudaError_t inverse_root(const InverseRootPlan& plan, const void* table,
                         const SpectralOptions& options, cudaStream_t stream);

}  // namespace kronext::cuda
