// One 64 x 64 tile of a product, by one block: sums[i][j] += sum_k left(i, k) right(j, k).
//
// Operands are functions, so a product reads its matrices wherever they lie: transposed, scaled,
// gathered from panels. A thread sums 4 x 4 entries; operands pass through shared memory 16 of
// depth at a time, and the next 16 are on their way meanwhile.
// Operations: 64 x 64 multiply-adds for each of depth; bytes: 128 elements for each of depth.
#pragma once

#include <type_traits>

#include "csrc/cuda/wide_arithmetic.cuh"

namespace kronext::cuda {

constexpr int kTile = 64, kTileThreads = 256, kTileDepth = 16, kTileSide = 4;
constexpr int kTilePitch = kTile + 4;  // keeps groups of four aligned, and spreads rows over banks

__device__ __forceinline__ float multiply_add(float x, float y, float sum) {
  return fmaf(x, y, sum);
}

// f(i, k), zero for rows outside of its matrix. Neighbours in memory are neighbours in k, or in i.
template <bool along_depth, class F>
struct FunctionOperand {
  F f;

  template <class T>
  __device__ __forceinline__ void fetch(T (&next)[kTileSide], int first, int depth) const {
#pragma unroll
    for (int e = 0; e < kTileSide; ++e) {
      const int k = first + place(e).k;
      next[e] = k < depth ? f(place(e).i, k) : T(0.f);
    }
  }

  template <class T>
  __device__ __forceinline__ void put(T* shared, const T (&next)[kTileSide]) const {
#pragma unroll
    for (int e = 0; e < kTileSide; ++e) shared[place(e).k * kTilePitch + place(e).i] = next[e];
  }

 private:
  struct Place {
    int i, k;
  };
  static __device__ __forceinline__ Place place(int e) {
    const int index = int(threadIdx.x) + e * kTileThreads;
    if constexpr (along_depth) return {index / kTileDepth, index % kTileDepth};
    return {index % kTile, index / kTile};
  }
};

template <class F>
__device__ __forceinline__ FunctionOperand<true, F> along_depth(const F& f) {
  return {f};
}
template <class F>
__device__ __forceinline__ FunctionOperand<false, F> across_depth(const F& f) {
  return {f};
}

template <class T>
constexpr int kTileBytes = 2 * kTileDepth * kTilePitch * int(sizeof(T));

template <class T>
struct alignas(16) Four {
  T at[kTileSide];
};

template <class T>
__device__ __forceinline__ Four<T> four_at(const T* pointer) {
  return *reinterpret_cast<const Four<T>*>(pointer);
}

// Entry (row, column) of the tile belongs to one thread.
template <class T>
struct TileSums {
  T sum[kTileSide][kTileSide];

  __device__ __forceinline__ TileSums() {
    for_each([](int, int, T& sum) { sum = T(0.f); });
  }

  static __device__ __forceinline__ int first_row() { return int(threadIdx.x) / 16 * kTileSide; }
  static __device__ __forceinline__ int first_column() { return int(threadIdx.x) % 16 * kTileSide; }

  // f(row, column, sum)
  template <class F>
  __device__ __forceinline__ void for_each(const F& f) {
#pragma unroll
    for (int i = 0; i < kTileSide; ++i) {
#pragma unroll
      for (int j = 0; j < kTileSide; ++j) f(first_row() + i, first_column() + j, sum[i][j]);
    }
  }

  __device__ __forceinline__ void add(const TileSums& other) {
#pragma unroll
    for (int i = 0; i < kTileSide; ++i) {
#pragma unroll
      for (int j = 0; j < kTileSide; ++j) sum[i][j] = sum[i][j] + other.sum[i][j];
    }
  }

  // One of depth: this thread's four of either operand.
  template <class In>
  __device__ __forceinline__ void add_outer(const Four<In>& left, const Four<In>& right) {
#pragma unroll
    for (int i = 0; i < kTileSide; ++i) {
#pragma unroll
      for (int j = 0; j < kTileSide; ++j) {
        sum[i][j] = multiply_add(left.at[i], right.at[j], sum[i][j]);
      }
    }
  }

  // Ends with a barrier: shared memory is free again. T is float, or wide for operands of either.
  template <class In, class Left, class Right>
  __device__ __forceinline__ void add_product(const Left& left, const Right& right, int depth,
                                              unsigned char* shared) {
    // Two floats make a product 15 instructions, and a loop must fit the instruction cache.
    constexpr int kTogether = std::is_same_v<T, TwoFloat> ? 2 : kTileDepth;
    In* const left_at = reinterpret_cast<In*>(shared);
    In* const right_at = left_at + kTileDepth * kTilePitch;
    In next_left[kTileSide], next_right[kTileSide];
    left.fetch(next_left, 0, depth);
    right.fetch(next_right, 0, depth);
#pragma unroll 1
    for (int first = 0; first < depth; first += kTileDepth) {
      left.put(left_at, next_left);
      right.put(right_at, next_right);
      __syncthreads();
      if (first + kTileDepth < depth) {
        left.fetch(next_left, first + kTileDepth, depth);
        right.fetch(next_right, first + kTileDepth, depth);
      }
#pragma unroll kTogether
      for (int k = 0; k < kTileDepth; ++k) {
        add_outer(four_at(left_at + k * kTilePitch + first_row()),
                  four_at(right_at + k * kTilePitch + first_column()));
      }
      __syncthreads();
    }
  }
};

}  // namespace kronext::cuda
