// The secular equation, whose roots are the eigenvalues of diag(d) + rho z z^T:
//
//   f(x) = 1 / rho + sum_i z_i^2 / (d_i - x) = 0,   d ascending, rho > 0
//
// Root j lies between d_j and d_{j+1}, the last one above all poles. The lanes of a vector hold
// consecutive roots and the poles are broadcast, so that a vector takes as many operations as a
// scalar would. A root is kept as its nearer pole (its origin) and the offset from it: differences
// d_i - x keep their relative accuracy however near x comes to a pole, and the eigenvectors depend
// on nothing else.
//
// The iteration is Borges and Gragg's ("A parallel divide and conquer algorithm for the generalized
// real symmetric definite tridiagonal eigenproblem", 1993): c + s / (d_j - x) + S / (d_{j+1} - x)
// with the value and two derivatives of f, which converges cubically; brackets guard it. The
// weights for which the computed roots are exact are Gu and Eisenstat's ("A divide-and-conquer
// algorithm for the symmetric tridiagonal eigenproblem", SIAM J. Matrix Anal. Appl. 16, 1995).
#pragma once

#include "csrc/cpu/simd.h"

namespace kronext::cpu::KRONEXT_CPU {

class SecularEquation {
 public:
  using Lane = Vector<double>;
  using LaneMask = Mask<double>;
  static constexpr int kWidth = kLanes<double>;

  int64_t size;
  double inverse_rho;
  const double* poles;
  const double* squares;  // z_i^2
  double* origins;        // root j = origins[j] + offsets[j]
  double* offsets;

  // Roots [first, first + kWidth); false if some root was not found.
  bool solve(int64_t first) const;

  // z_i of which the roots are exact, up to sign and a factor common to all, for i in [first, first
  // + kWidth).
  void exact_weights(int64_t first, double* weights) const;

 private:
  static constexpr int kMaxSteps = 100;
  // A cubically convergent step that changes the distance to the pole by less than this fraction
  // arrives at rounding level.
  static constexpr double kLastStep = 0x1p-19;

  // f and its derivatives at origin + offset without the constant term, and the sum of the
  // magnitudes that make up f.
  struct Sums {
    Lane value, slope, half_curvature, magnitude;
  };
  struct Interval {
    Lane left, right;  // the poles on both sides of the root, from the origin
  };

  LaneMask lane_indices(int64_t first) const {
    LaneMask index;
    for (int lane = 0; lane < kWidth; ++lane) index[lane] = minimum(first + lane, size - 1);
    return index;
  }

  KRONEXT_INLINE Lane difference(int64_t pole, Lane origin, Lane offset) const {
    return (poles[pole] - origin) - offset;
  }

  Lane others_at(int64_t first, LaneMask index, Lane origin, Lane offset) const;
  Sums sums_at(int64_t first, Lane origin, Lane offset) const;
};

// The poles' terms except those of the two poles around each root.
inline auto SecularEquation::others_at(int64_t first, LaneMask index, Lane origin,
                                       Lane offset) const -> Lane {
  Lane sum[2] = {};
  const int64_t last = minimum(first + kWidth + 1, size);
  for (int64_t i = 0; i < first; ++i)
    sum[0] += squares[i] * reciprocal(difference(i, origin, offset));
  for (int64_t i = first; i < last; ++i) {
    const LaneMask around = (index == i) | (index + 1 == i);
    const Lane term = squares[i] * reciprocal(difference(i, origin, offset));
    sum[0] += around ? Lane{} : term;
  }
  for (int64_t i = last; i < size; ++i)
    sum[1] += squares[i] * reciprocal(difference(i, origin, offset));
  return sum[0] + sum[1];
}

inline auto SecularEquation::sums_at(int64_t first, Lane origin, Lane offset) const -> Sums {
  Lane below{}, among{}, above{}, magnitude{}, slope{}, half_curvature{};
  const auto term = [&](int64_t i) {
    const Lane inverse = reciprocal(difference(i, origin, offset));
    const Lane value = squares[i] * inverse, derivative = value * inverse;
    slope += derivative;
    half_curvature += derivative * inverse;
    return value;
  };
  const int64_t last = minimum(first + kWidth, size);
  int64_t i = 0;
  for (; i < first; ++i) below += term(i);
  for (; i < last; ++i) {
    const Lane value = term(i);
    among += value;
    magnitude += absolute<double>(value);
  }
  for (; i < size; ++i) above += term(i);
  return {(below + above) + among, slope, half_curvature, (above - below) + magnitude};
}

inline bool SecularEquation::solve(int64_t first) const {
  const LaneMask index = lane_indices(first);
  Lane pole, next, square, next_square;
  double total = 0;
  for (int64_t i = 0; first + kWidth >= size && i < size; ++i) total += squares[i];
  for (int lane = 0; lane < kWidth; ++lane) {
    const int64_t j = index[lane];
    pole[lane] = poles[j];
    square[lane] = squares[j];
    // The last root lies within rho |z|^2 of the last pole; a pole of no weight at twice that
    // closes its interval.
    next[lane] = j + 1 < size ? poles[j + 1] : poles[j] + 2 * total / inverse_rho;
    next_square[lane] = j + 1 < size ? squares[j + 1] : 0;
  }
  const Lane gap = next - pole, half = 0.5 * gap;
  const LaneMask is_last = index == size - 1;

  // The middle of the interval tells the nearer pole; the terms of the other poles there and the
  // exact ones of the two poles around make the first guess.
  const Lane others = inverse_rho + others_at(first, index, pole, half);
  const Lane at_middle = others + (next_square - square) / half;
  const LaneMask from_left = (at_middle >= 0) | is_last;
  const Lane origin = from_left ? pole : next;
  const Lane left = from_left ? Lane{} : -gap, right = from_left ? gap : Lane{};
  const Lane sign = from_left ? splat(1.0) : splat(-1.0);
  // In terms of the distance x from the origin, with `near` the weight there:
  // signed_others x (gap - x) - near (gap - x) + far x = 0.
  const Lane near = from_left ? square : next_square, far = from_left ? next_square : square;
  const Lane c = sign * others, b = c * gap + near + far;
  const Lane root = square_root(maximum(b * b - 4.0 * c * near * gap, Lane{}));
  Lane distance = b > 0 ? 2.0 * near * gap / (b + root) : (b - root) / (2.0 * c);

  Lane low = gap * 0x1p-200, high = 0.625 * gap;  // the root's distance lies between
  distance = (distance > low) & (distance < high) ? distance : 0.5 * half;
  LaneMask active = ~LaneMask{};
  for (int step = 0; step < kMaxSteps; ++step) {
    const Lane offset = sign * distance;
    const Sums sums = sums_at(first, origin, offset);
    const Lane value = inverse_rho + sums.value;
    const Lane noise = (inverse_rho + sums.magnitude) * (8 * 0x1p-53);
    active &= absolute<double>(value) > noise;
    if (!any<double>(active)) break;

    const LaneMask beyond = sign * value > 0;
    high = beyond ? distance : high;
    low = beyond ? low : distance;

    const Lane to_left = left - offset, to_right = right - offset;
    const Lane both = to_left + to_right, product = to_left * to_right;
    const Lane a = both * value - product * sums.slope, q = product * value;
    const Lane constant = value - both * sums.slope + product * sums.half_curvature;
    const Lane discriminant = square_root(absolute<double>(a * a - 4.0 * q * constant));
    const Lane change =
        a > 0 ? 2.0 * q / (a + discriminant) : (a - discriminant) / (2.0 * constant);
    Lane moved = distance + sign * change;
    const LaneMask inside = (moved > low) & (moved < high);
    moved = inside ? moved : square_root(low) * square_root(high);
    const LaneMask arrived =
        (inside & (absolute<double>(moved - distance) <= kLastStep * distance)) |
        (high - low <= 0x1p-52 * high);
    distance = active ? moved : distance;
    active &= ~arrived;
    if (!any<double>(active)) break;
  }
  store_first(origins + first, origin, size - first);
  store_first(offsets + first, sign * distance, size - first);
  return !any<double>(active);
}

inline void SecularEquation::exact_weights(int64_t first, double* weights) const {
  // Factors whose products cannot leave the range of normal numbers before they are divided.
  constexpr int kFactors = 4;
  const LaneMask index = lane_indices(first);
  Lane pole;
  for (int lane = 0; lane < kWidth; ++lane) pole[lane] = poles[index[lane]];
  Lane product = splat(1.0);
  for (int64_t j = 0; j < size; j += kFactors) {
    Lane numerator = splat(1.0), denominator = splat(1.0);
    for (int64_t f = j; f < minimum(j + kFactors, size); ++f) {
      numerator *= (pole - origins[f]) - offsets[f];
      denominator *= index == f ? splat(1.0) : pole - poles[f];
    }
    product *= numerator / denominator;
  }
  store_first(weights + first, square_root(absolute<double>(product)), size - first);
}

}  // namespace kronext::cpu::KRONEXT_CPU
