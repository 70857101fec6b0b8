// Eigenvectors of a small tridiagonal matrix by implicit QL (LAPACK's steqr), in float64. Vectors
// run along eigenvectors, of which each rotation turns two.
#pragma once

#include "csrc/cpu/eigh_lanes.h"

namespace kronext::cpu::KRONEXT_CPU {

constexpr int64_t kLeafRows = 16;

// x <- c x - s y, y <- s x + c y.
KRONEXT_INLINE void turn(double* x, double* y, int64_t n, double c, double s) {
  for (int64_t i = 0; i < n; ++i) {
    const double y_i = y[i];
    y[i] = s * x[i] + c * y_i;
    x[i] = c * x[i] - s * y_i;
  }
}

// One sweep over rows [low, high] with Wilkinson's shift.
inline void sweep_leaf(double* d, double* e, int64_t low, int64_t high, int64_t n, double* q) {
  const double half = 0.5 * (d[low + 1] - d[low]);
  const double length = __builtin_sqrt(half * half + e[low] * e[low]);
  const double shift = d[low] - e[low] * e[low] / (half < 0 ? half - length : half + length);
  double g = d[high] - shift, s = 1, c = 1, p = 0;
  for (int64_t i = high - 1; i >= low; --i) {
    const double f = s * e[i], b = c * e[i], r = __builtin_sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r == 0) {  // squares that vanish: the matrix splits here
      d[i + 1] -= p;
      e[high] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    const double above = d[i + 1] - p, slope = (d[i] - above) * s + 2 * c * b;
    p = s * slope;
    d[i + 1] = above + p;
    g = c * slope - b;
    turn(q + i * n, q + (i + 1) * n, n, c, s);
  }
  d[low] -= p;
  e[low] = g;
  e[high] = 0;
}

// diagonal[n] becomes the eigenvalues, row k of q (n x n) the eigenvector of value k, and `order`
// says in which order the values ascend. Couplings of up to `negligible` count as zero. False if
// they do not converge.
inline bool solve_tridiagonal_leaf(int64_t n, double* diagonal, const double* off_diagonal,
                                   double negligible, double* q, int32_t* order) {
  double e[kLeafRows + 1] = {};
  for (int64_t i = 0; i < n; ++i) {
    e[i] = i + 1 < n ? off_diagonal[i] : 0;
    for (int64_t j = 0; j < n; ++j) q[i * n + j] = i == j;
  }
  const auto coupled = [&](int64_t i) {
    const double neighbours = __builtin_fabs(diagonal[i]) + __builtin_fabs(diagonal[i + 1]);
    return __builtin_fabs(e[i]) > neighbours * FloatFormat<double>::kRoundoff + negligible;
  };
  int64_t sweeps = 0;
  for (int64_t low = 0; low < n;) {
    int64_t high = low;
    while (high + 1 < n && coupled(high)) ++high;
    if (high == low) {
      ++low;
      continue;
    }
    if (++sweeps > 30 * n) return false;
    sweep_leaf(diagonal, e, low, high, n, q);
  }
  for (int64_t k = 0; k < n; ++k) {
    int64_t place = k;
    for (; place > 0 && diagonal[order[place - 1]] > diagonal[k]; --place)
      order[place] = order[place - 1];
    order[place] = int32_t(k);
  }
  return true;
}

}  // namespace kronext::cpu::KRONEXT_CPU
