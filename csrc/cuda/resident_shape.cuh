// Sizes of matrices that stay in shared memory while they are solved, and the threads of each.
#pragma once

#include "csrc/cuda/jacobi_rotation.cuh"
#include "csrc/cuda/launch.cuh"

namespace kronext::cuda {

// Every `lanes` threads are a team that rotates columns, of which a lane holds `rows` rows.
template <int lanes, int rows, int threads, int largest>
struct ResidentShape {
  static constexpr int kLanes = lanes, kRows = rows, kThreads = threads, kLargest = largest;
  static constexpr int kTeams = threads / lanes;
  static constexpr bool kOneWarp = threads <= 32;
  static constexpr int kMatrices = threads < 32 ? 8 : threads == 32 ? 4 : 1;  // of a thread block
  static constexpr int kBlockThreads = threads * kMatrices;
  // Blocks that a multiprocessor holds with 128 registers a thread.
  static constexpr int kBlocks = kBlockThreads < 512 ? 512 / kBlockThreads : 1;
  static_assert(largest <= lanes * rows);
};

using Resident16 = ResidentShape<4, 4, 8, 16>;
using Resident32 = ResidentShape<8, 4, 32, 32>;
using Resident64 = ResidentShape<16, 4, 128, 64>;
using Resident128 = ResidentShape<32, 4, 512, 128>;
using Resident160 = ResidentShape<32, 8, 512, 160>;

// The threads of one matrix, and what they do together.
template <class Shape>
struct MatrixThreads {
  int thread;
  unsigned mask;  // lanes of this warp that share the matrix

  __device__ __forceinline__ MatrixThreads()
      : thread(forgotten(int(threadIdx.x) % Shape::kThreads)), mask(0xffffffffu) {
    if constexpr (Shape::kThreads < 32) {
      const int first = int(threadIdx.x) % 32 / Shape::kThreads * Shape::kThreads;
      mask = ((1u << Shape::kThreads) - 1u) << first;
    }
  }

  __device__ __forceinline__ void sync() const {
    if constexpr (Shape::kOneWarp) {
      __syncwarp(mask);
    } else {
      __syncthreads();
    }
  }

  // The largest of one number a thread; `scratch` has a word for each warp.
  __device__ __forceinline__ unsigned largest(unsigned value, unsigned* scratch) const {
    value = __reduce_max_sync(mask, value);
    if constexpr (!Shape::kOneWarp) {
      if (thread % 32 == 0) scratch[thread / 32] = value;
      __syncthreads();
      for (int warp = 0; warp < Shape::kThreads / 32; ++warp) {
        value = value > scratch[warp] ? value : scratch[warp];
      }
      __syncthreads();
    }
    return value;
  }

  __device__ __forceinline__ float largest(float at_least_zero, unsigned* scratch) const {
    return __uint_as_float(largest(__float_as_uint(at_least_zero), scratch));
  }

  __device__ __forceinline__ bool any(bool here, unsigned* scratch) const {
    return largest(unsigned(here), scratch) != 0;
  }

  // The sum of one number a thread, always in the same order.
  __device__ __forceinline__ float sum(float value, unsigned* scratch) const {
    constexpr int kTogether = Shape::kOneWarp ? Shape::kThreads : 32;
#pragma unroll
    for (int bit = 1; bit < kTogether; bit *= 2) value += __shfl_xor_sync(mask, value, bit);
    if constexpr (!Shape::kOneWarp) {
      if (thread % 32 == 0) scratch[thread / 32] = __float_as_uint(value);
      __syncthreads();
      value = 0.f;
      for (int warp = 0; warp < Shape::kThreads / 32; ++warp) {
        value += __uint_as_float(scratch[warp]);
      }
      __syncthreads();
    }
    return value;
  }
};

constexpr int kProjectionRows = 8;  // of the matrix that a step of the projection takes

// Shared memory of one matrix: what factorisation and spectrum hold of each row, then the columns,
// and for a warm start a second area of their size.
struct ResidentLayout {
  int n, padded;

  __host__ __device__ explicit ResidentLayout(int n) : n(n), padded((n + 7) & ~7) {}
  __host__ __device__ int pitch() const { return column_pitch(n); }
  __host__ __device__ int scratch_at() const { return padded * 20; }
  __host__ __device__ int columns_at() const { return scratch_at() + 16 * 4; }
  __host__ __device__ int second_at() const { return columns_at() + n * pitch() * 4; }
  __host__ __device__ int bytes(bool warm) const {
    const int projection = 2 * kProjectionRows * padded * 8, columns = n * pitch() * 4;
    return second_at() + (!warm ? 0 : projection > columns ? projection : columns);
  }
};

}  // namespace kronext::cuda
