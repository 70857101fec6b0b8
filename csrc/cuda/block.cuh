// What the threads of a block do together: find their task, and add.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

namespace kronext::cuda {

// The task of this block in a grid that serves a list of them: each task knows its first block.
template <class Task>
__device__ __forceinline__ const Task& task_of_block(const Task* tasks, int count,
                                                     int64_t Task::*first_block) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (tasks[middle].*first_block <= int64_t(blockIdx.x) ? low : high) = middle;
  }
  return tasks[low];
}

// Sum over `lanes` (a power of two) neighbouring threads of a warp, in all of them.
template <class T>
__device__ __forceinline__ T sum_lanes(T value, int lanes) {
  for (int apart = lanes / 2; apart > 0; apart /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, apart);
  }
  return value;
}

// A block of so many threads that combines numbers in a fixed order; `shared` holds one a warp.
template <int threads>
struct BlockReduction {
  static constexpr int kThreads = threads, kWarps = threads / 32;
  double* shared;

  template <class Combine>
  __device__ __forceinline__ double combine(double value, const Combine& of) const {
    for (int apart = 16; apart > 0; apart /= 2) {
      value = of(value, __shfl_xor_sync(0xffffffffu, value, apart));
    }
    __syncthreads();  // the numbers of the last combination have been read
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    double all = shared[0];
    for (int warp = 1; warp < kWarps; ++warp) all = of(all, shared[warp]);
    return all;
  }
  __device__ __forceinline__ double sum(double value) const {
    return combine(value, [](double a, double b) { return a + b; });
  }
  // NaN where any number is.
  __device__ __forceinline__ double largest(double value) const {
    return combine(value, [](double a, double b) { return a >= b || a != a ? a : b; });
  }
};

}  // namespace kronext::cuda
