// What is special about the matrices that samples or H are multiplied with, found on the device.
//
// The host never sees it: kernels that come later read it and take the shorter way. A product with
// a symmetric matrix is made in its lower triangle and mirrored, one with a multiple of the identity
// is no product at all. A matrix is read once.
#pragma once

#include "csrc/core/matrix.h"
#include "csrc/cuda/block.cuh"
#include "csrc/cuda/launch.cuh"
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
  Inspected* result;  // zero before
  int64_t first_block;
  int32_t dim;
  Dtype dtype;
};

// One float32 or float64 entry.
__device__ __forceinline__ double load_factor(const void* data, Dtype dtype, int64_t index) {
  return dtype == Dtype::kFloat64 ? static_cast<const double*>(data)[index]
                                  : double(static_cast<const float*>(data)[index]);
}

struct Inspection {
  static constexpr int kThreads = 256, kStrip = 32;  // rows of a block
};

// A block compares the rows of its strip, up to the diagonal, with the columns that mirror them:
// 32 neighbouring rows share the cache lines of those.
__global__ void __launch_bounds__(Inspection::kThreads)
    inspect_kernel(const InspectTask* tasks, int count, const int* done) {
  if (done && *done) return;
  const InspectTask& task = task_of_block(tasks, count, &InspectTask::first_block);
  const int strip = int(int64_t(blockIdx.x) - task.first_block) * Inspection::kStrip;
  const auto at = [&](int i, int j) {
    return load_factor(task.data, task.dtype, i * task.row_stride + j * task.column_stride);
  };
  const double first = at(0, 0);
  const int rows = task.dim - strip < Inspection::kStrip ? task.dim - strip : Inspection::kStrip;
  bool asymmetric = false, unlike = false;
  for (int row = int(threadIdx.x) / 32; row < rows; row += Inspection::kThreads / 32) {
    const int i = strip + row;
    for (int j = int(threadIdx.x) % 32; j <= i; j += 32) {
      const double lower = at(i, j), upper = at(j, i), wanted = i == j ? first : 0.0;
      asymmetric |= !(lower == upper);
      unlike |= !(lower == wanted && upper == wanted);
    }
  }
  const unsigned asymmetric_lanes = __ballot_sync(0xffffffffu, asymmetric);
  const unsigned unlike_lanes = __ballot_sync(0xffffffffu, unlike);
  if (threadIdx.x % 32 == 0) {
    if (asymmetric_lanes) atomicAdd(&task.result->asymmetric, 1);
    if (unlike_lanes) atomicAdd(&task.result->unlike_identity, 1);
  }
  if (strip == 0 && threadIdx.x == 0) {
    task.result->scale = 1;
    task.result->identity_scale = first;
  }
}

}  // namespace kronext::cuda
