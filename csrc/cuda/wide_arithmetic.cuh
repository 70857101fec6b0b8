// What the eigensolvers carry beyond float32, "wide": float64, or two float32 where float64 is
// slow. One vocabulary for both.
#pragma once

#include "csrc/core/two_float.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

using kronext::multiply_add;

__device__ __forceinline__ double multiply_add(double x, double y, double sum) {
  return fma(x, y, sum);
}

__device__ __forceinline__ double multiply_add(float x, float y, double sum) {
  return fma(double(x), double(y), sum);
}

__device__ __forceinline__ double inverse_root(double x) { return rsqrt(x); }

__device__ __forceinline__ TwoFloat inverse_root(const TwoFloat& x) {
  return refined_inverse_root(x, rsqrtf(x.high));
}

// A choice between values, never between places: between two elements of an array, `?:` would
// choose an address and put the array in local memory.
__device__ __forceinline__ double choose(bool first, double a, double b) { return first ? +a : +b; }

__device__ __forceinline__ TwoFloat choose(bool first, const TwoFloat& a, const TwoFloat& b) {
  return {first ? +a.high : +b.high, first ? +a.low : +b.low};
}

__device__ __forceinline__ double shuffle_xor(unsigned mask, double x, int bits) {
  return __shfl_xor_sync(mask, x, bits);
}

__device__ __forceinline__ TwoFloat shuffle_xor(unsigned mask, const TwoFloat& x, int bits) {
  return {__shfl_xor_sync(mask, x.high, bits), __shfl_xor_sync(mask, x.low, bits)};
}

}  // namespace kronext::cuda
