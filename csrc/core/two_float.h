// A number as the unevaluated sum of two float32: about 48 bits, for devices whose float64 is slow.
//
// Error-free transformations of Dekker (1971) and Knuth; the sums drop what lies below 2^-46 of
// their larger operand. Compilers must not fuse a product with the sum after it, which is why every
// rounding is spelled out.
#pragma once

#include <math.h>

#include "csrc/core/host_device.h"

namespace kronext {

struct TwoFloat {
  float high, low;  // |low| <= half a unit in the last place of high

  TwoFloat() = default;
  KRONEXT_HOST_DEVICE TwoFloat(float value) : high(value), low(0.f) {}
  KRONEXT_HOST_DEVICE TwoFloat(float high, float low) : high(high), low(low) {}
  KRONEXT_HOST_DEVICE explicit operator float() const { return high; }
  KRONEXT_HOST_DEVICE explicit operator double() const { return double(high) + double(low); }
};

KRONEXT_HOST_DEVICE float rounded_sum(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

KRONEXT_HOST_DEVICE float rounded_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// a + b exactly, where |a| >= |b| or a is 0.
KRONEXT_HOST_DEVICE TwoFloat ordered_sum(float a, float b) {
  const float sum = rounded_sum(a, b);
  return {sum, rounded_sum(b, -rounded_sum(sum, -a))};
}

// a + b exactly.
KRONEXT_HOST_DEVICE TwoFloat exact_sum(float a, float b) {
  const float sum = rounded_sum(a, b), b_part = rounded_sum(sum, -a);
  const float a_part = rounded_sum(sum, -b_part);
  return {sum, rounded_sum(rounded_sum(a, -a_part), rounded_sum(b, -b_part))};
}

// a b exactly.
KRONEXT_HOST_DEVICE TwoFloat exact_product(float a, float b) {
  const float product = rounded_product(a, b);
  return {product, fmaf(a, b, -product)};
}

KRONEXT_HOST_DEVICE TwoFloat operator-(const TwoFloat& x) { return {-x.high, -x.low}; }

KRONEXT_HOST_DEVICE TwoFloat operator+(const TwoFloat& x, const TwoFloat& y) {
  const TwoFloat sum = exact_sum(x.high, y.high);
  return ordered_sum(sum.high, rounded_sum(sum.low, rounded_sum(x.low, y.low)));
}

KRONEXT_HOST_DEVICE TwoFloat operator-(const TwoFloat& x, const TwoFloat& y) { return x + -y; }

KRONEXT_HOST_DEVICE TwoFloat operator*(const TwoFloat& x, const TwoFloat& y) {
  const TwoFloat product = exact_product(x.high, y.high);
  const float cross = fmaf(x.high, y.low, fmaf(x.low, y.high, product.low));
  return ordered_sum(product.high, cross);
}

// x y + sum, cheaper than the two operators: the product is not normalised in between.
KRONEXT_HOST_DEVICE TwoFloat multiply_add(const TwoFloat& x, const TwoFloat& y,
                                          const TwoFloat& sum) {
  const TwoFloat product = exact_product(x.high, y.high);
  const float cross = fmaf(x.high, y.low, fmaf(x.low, y.high, product.low));
  const TwoFloat total = exact_sum(sum.high, product.high);
  return ordered_sum(total.high, rounded_sum(total.low, rounded_sum(sum.low, cross)));
}

KRONEXT_HOST_DEVICE TwoFloat multiply_add(float x, float y, const TwoFloat& sum) {
  const TwoFloat product = exact_product(x, y), total = exact_sum(sum.high, product.high);
  return ordered_sum(total.high, rounded_sum(total.low, rounded_sum(sum.low, product.low)));
}

// 1 / sqrt(x) from an approximation that is off by a few units: one Newton step, about 42 bits.
KRONEXT_HOST_DEVICE TwoFloat refined_inverse_root(const TwoFloat& x, float approximation) {
  const TwoFloat y = approximation;
  const TwoFloat residual = TwoFloat(1.f) - x * (y * y);
  return multiply_add(TwoFloat(0.5f * approximation), residual, y);
}

}  // namespace kronext
