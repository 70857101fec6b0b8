// What the threads of a block do together: find their task, and add.
#pragma once

#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

namespace kronext::cuda {

// The task of this block in a grid that serves a list of them: each task knows its first block.
template <class Task>
__device__ __forceinline__ const Task& task_of_block(const Task* tasks, int count,
                                                     int64_t Task::* first_block) {
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

constexpr double kLargest = 1.7976931348623157e308;

// A block of so many threads that combines numbers in a fixed order; `shared` holds one a warp.
template <int threads>
struct BlockReduction {
  static constexpr int kThreads = threads, kWarps = threads / 32;
  static constexpr int kSharedBytes = kWarps * int(sizeof(double));
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

// Calls f(e) for every e of [0, size) that falls to this thread: always the same ones.
template <int threads, class F>
__device__ __forceinline__ void for_mine(const BlockReduction<threads>&, int64_t size, const F& f) {
  for (int64_t e = threadIdx.x; e < size; e += threads) f(e);
}

// sum of term(e) over [0, size), in every thread.
template <int threads, class Term>
__device__ __forceinline__ double sum_of(const BlockReduction<threads>& block, int64_t size,
                                         const Term& term) {
  double sum = 0;
  for_mine(block, size, [&](int64_t e) { sum += term(e); });
  return block.sum(sum);
}

// The Frobenius norm; not finite where an entry is not.
template <int threads, class T>
__device__ __forceinline__ double norm(const BlockReduction<threads>& block, const T* x,
                                       int64_t size) {
  const double squares =
      sum_of(block, size, [=](int64_t e) { return double(x[e]) * double(x[e]); });
  // Squares of float32 always fit float64, those of float64 may not.
  if (sizeof(T) < sizeof(double) || (squares > 1e-280 && squares < 1e280)) return sqrt(squares);
  double largest = 0;
  for_mine(block, size, [&](int64_t e) {
    const double a = fabs(double(x[e]));
    if (!(a <= largest)) largest = a;
  });
  largest = block.largest(largest);
  if (!(largest > 0 && largest <= kLargest)) return largest;
  const double scale = largest < 1e-300 ? 1e-300 : largest;
  return scale * sqrt(sum_of(block, size, [=](int64_t e) {
           const double a = double(x[e]) / scale;
           return a * a;
         }));
}

}  // namespace kronext::cuda
