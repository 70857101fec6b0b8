// The scale that the eigensolvers work in, and what is small in it.
#pragma once

#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

// Pivots below it, 2^-34, mean that a matrix with entries up to 1 or 2 must be shifted first.
constexpr float kSmallestPivot = 5.8e-11f;

constexpr unsigned kInfinityBits = 0x7f800000u;

__device__ __forceinline__ float power_of_two(int exponent) {
  return __uint_as_float(unsigned(127 + exponent) << 23);
}

// A power of two that brings the largest magnitude of a matrix to [1, 2), in two factors: one alone
// may not fit a float32.
struct Scale {
  int exponent;  // of the largest magnitude

  __device__ __forceinline__ float down(float x) const {
    return x * power_of_two(-(exponent / 2)) * power_of_two(exponent / 2 - exponent);
  }
  __device__ __forceinline__ float up(float x) const {
    return x * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
  }
  __device__ __forceinline__ double up(double x) const { return ldexp(x, exponent); }
};

__device__ __forceinline__ Scale scale_of(unsigned bits) {
  const bool subnormal = bits < 0x00800000u;
  if (subnormal) bits = __float_as_uint(__uint_as_float(bits) * 0x1p23f);
  return {bits == 0 ? 0 : int(bits >> 23) - (subnormal ? 150 : 127)};
}

// x^(-1 / (2 root)) in float32; infinite where that does not fit. Only the exponent needs float64,
// and roots and powers in float64 would be what small matrices wait for where it is slow.
__device__ __forceinline__ float half_gain(double x, double root) {
  if (!(x > 0)) return 0.f;
  int exponent;
  const float fraction = float(frexp(x, &exponent));
  const double power = fmin(fmax(-0.5 / root * (exponent + double(log2f(fraction))), -400.), 400.);
  const double whole = rint(power);
  return ldexpf(exp2f(float(power - whole)), int(whole));
}

}  // namespace kronext::cuda
