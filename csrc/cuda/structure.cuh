// What is special about the matrices that samples or H are multiplied with, found on the device.
//
// The host never sees it: kernels that come later read it and take the shorter way. A product with
// a symmetric matrix is made in its lower triangle and mirrored, one with a multiple of the
// identity is no product at all. Bytes: each matrix once.
#pragma once

#include <vector>

#include "csrc/core/matrix.h"
#include "csrc/cuda/block.cuh"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/placement.h"
#include "csrc/cuda/power_iteration.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

struct alignas(16) Inspected {
  int32_t asymmetric;       // 0: equal to its transpose bit for bit
  int32_t unlike_identity;  // 0: identity_scale times the identity
  double scale;             // what a matrix unlike the identity counts times
  double identity_scale;

  __device__ __forceinline__ bool symmetric() const { return asymmetric == 0; }
  __device__ __forceinline__ bool identity() const { return unlike_identity == 0; }
};

struct InspectTask {
  const void* data;
  int64_t row_stride, column_stride;
  Inspected* result;
  int64_t first_block;
  int32_t dim;
  Dtype dtype;
};

// One float32 or float64 entry.
template <class T>
__device__ __forceinline__ T load_factor(const void* data, Dtype dtype, int64_t index) {
  return dtype == Dtype::kFloat64 ? T(assume_global(static_cast<const double*>(data))[index])
                                  : T(assume_global(static_cast<const float*>(data))[index]);
}

constexpr int kInspectThreads = 256;

// The matrices that one launch inspects.
class Inspections {
 public:
  Inspections(Inspection kind, int64_t count, Placement& workspace);

  // Where the result for a matrix will be.
  const Inspected* add(const Matrix& matrix);
  const std::vector<InspectTask>& tasks() const { return tasks_; }
  int64_t blocks() const { return blocks_; }

 private:
  Inspection kind_;
  Inspected* results_;
  std::vector<InspectTask> tasks_;
  int64_t blocks_ = 0;
};

// Of `count` tasks on the device; `results` is what the inspections took, for `matrices` matrices.
cudaError_t inspect(Inspection kind, const InspectTask* tasks, int64_t count, int64_t blocks,
                    void* results, int64_t matrices, const int* done, cudaStream_t stream);

}  // namespace kronext::cuda
