// What kernels do with a SpectralTask: read its lower triangle, report that it failed.
#pragma once

#include "csrc/cuda/ptx.cuh"
#include "csrc/cuda/spectral_task.h"

namespace kronext::cuda {

// Entry (i, j) of the symmetric matrix.
__device__ __forceinline__ float entry(const SpectralTask& task, int i, int j) {
  const int row = i > j ? i : j, column = i > j ? j : i;
  return assume_global(task.matrix)[row * task.row_stride + column];
}

// Calls f(i, j) for the share of one thread in the lower triangle, neighbours on neighbouring
// columns.
template <class F>
__device__ __forceinline__ void for_lower_triangle(int n, int thread, int threads, const F& f) {
  for (int k = thread; k < n * n; k += threads) {
    const int i = k / n, j = k - i * n;
    if (j <= i) f(i, j);
  }
}

__device__ __forceinline__ void write_identity(float* out, int n, int thread, int threads) {
  for (int k = thread; k < n * n; k += threads) out[k] = k % (n + 1) == 0 ? 1.f : 0.f;
}

// The results of a matrix that failed. Without a barrier: no thread may still write results.
__device__ __forceinline__ void write_failure(const SpectralTask& task,
                                              const SpectralOptions& options, int32_t info,
                                              int thread, int threads) {
  for (int k = thread; task.values && k < task.n; k += threads) task.values[k] = 1.f;
  if (task.vectors) write_identity(task.vectors, task.n, thread, threads);
  if (task.root && !options.keep_failed) write_identity(task.root, task.n, thread, threads);
  if (thread == 0) *task.info = info;
}

}  // namespace kronext::cuda
