// Inverse roots from a basis V that nearly diagonalises A: B = VT A V = diag(d) + E.
//
// f is what the eigenvalues go through, x = d + damping what it raises to -1/root, and
//
//   S_ij = E_ij / sqrt(x_i x_j)
//
// measures the coupling of two columns of V. By the Daleckii-Krein theorem
//
//   f(B) = diag(f(d)) + F o E + R,   F_ij = (f(d_i) - f(d_j)) / (d_i - d_j),
//
// close eigenvalues do no harm, and for root >= 1 the remainder obeys
//
//   |R|_F <= trace R <= 1/root sum_i f_i sum_j S_ij^2 / (1 - |S|_2).
//
// f is operator convex, so R is positive semi-definite; its diagonal consists of f[d_i, d_j, d_i]
// E_ij^2, with f[x, y, z] <= |f[x, z]| / y and |f[x, z]| sqrt(x z) <= sqrt(f(x) f(z)) / root. Where
// that is too much the basis is rotated first, by U = exp(K) with K_ij about E_ij / (d_j - d_i).
#pragma once

#include <math.h>
#include <stdint.h>

#include "csrc/core/host_device.h"

namespace kronext {

// Pairs of eigenvalues closer than this, relative to their size, are left to Daleckii and Krein: a
// rotation that separates them would be large and undone by the next one.
constexpr double kCloseEigenvalues = 0.03;
// Lengths of the rows of K at most, and its spectral norm: U = I + K + K^2 / 2 is orthogonal up to
// K^4 / 4, and with K^3 / 8 up to K^6 / 64.
constexpr double kLongestRow = 0.7;
constexpr double kLargestRotation = 0.6;
constexpr double kLargestQuadraticRotation = 0.25;
// Bounds of the relative error: of Daleckii and Krein with none of `rotations` left, and above
// which that many rotations will not do (observed on factors of training runs); and of the whole. H
// = VT V
// - I is corrected to first order, which leaves at most |H|_F |H diag(f)|_F / |f|.
constexpr int kMaxRotations = 3;
KRONEXT_HOST_DEVICE double largest_remainder(int rotations) {
  return rotations == 0 ? 7e-6 : rotations == 1 ? 3e-4 : rotations == 2 ? 1e-2 : 0.06;
}
constexpr double kLargestError = 9e-6;
// The remainder is not known for a larger |S|_F, however small the gains of what it couples.
constexpr double kLargestCoupling = 0.5;
// By how much rotations may cancel: (UT diag(x) U)_jj over the new x_j. B is kept in float32, which
// is as good as float64 while no small eigenvalue comes out of a difference of large ones.
constexpr double kLargestCancellation = 16;

// B in the current basis. Row-major, symmetric.
struct NearDiagonal {
  int64_t n;
  const float* b;
  const double* values;          // d, the diagonal
  const double* damped;          // x
  const double* inverse_damped;  // 1 / x
  const double* gains;           // f(d)
};

// K_ij of the rotation: E_ij / gap of well separated eigenvalues, 0 for equal ones. `squares` is
// x_i x_j.
KRONEXT_HOST_DEVICE double rotation_angle(double coupling, double gap, double squares) {
  constexpr double kClose = kCloseEigenvalues * kCloseEigenvalues;
  return coupling * gap / (gap * gap + kClose * squares);
}

// F_ij for eigenvalues d, damped x and gains f of two columns, exponent = 1 / root.
KRONEXT_HOST_DEVICE double divided_difference(double d_i, double d_j, double x_i, double x_j,
                                              double f_i, double f_j, double exponent) {
  const double gap = d_i - d_j, size = x_i + x_j;
  // Below it the quotient of differences loses more to rounding than the derivative is off.
  const bool close = fabs(gap) < 1e-5 * size;
  const double tangent = d_i > 0 || d_j > 0 ? -exponent * (f_i + f_j) / size : 0;
  return close ? tangent : (f_i - f_j) / (close ? 1 : gap);
}

// Rows [first, last) of what a warm start does element by element.
struct WarmStartKernel {
  // out <- scale times the symmetric matrix of which `lower` is the lower triangle; may be in
  // place. Rows of tiles: first and last are multiples of kMirrorTile (or n).
  void (*mirror)(const float* lower, int64_t n, float scale, float* out, int64_t first,
                 int64_t last);
  // out[i][j] <- in[rows[i]][columns[j]]; rows null: i.
  void (*permute)(const float* in, int64_t n, const int32_t* rows, const int32_t* columns,
                  float* out, int64_t first, int64_t last);
  // remainder[i] <- f_i sum_j S_ij^2. kink[i]: the same with f_j in it, for couplings by which an
  // eigenvalue below the damping may be negative: f has a corner at 0, there they count to first
  // order.
  void (*measure)(const NearDiagonal&, double* remainder, double* kink, int64_t first,
                  int64_t last);
  // K, and the lengths of its rows.
  void (*angles)(const NearDiagonal&, float* k, double* lengths, int64_t first, int64_t last);
  // k[i][j] *= min(limits[i], limits[j])
  void (*limit)(const double* limits, int64_t n, float* k, int64_t first, int64_t last);
  // y <- W x
  void (*multiply)(const float* w, int64_t n, const float* x, float* y, int64_t first,
                   int64_t last);
  // k <- U of scale K for W = K KT; `cube` is K W, or null for the quadratic U.
  void (*rotation)(const float* w, const float* cube, int64_t n, float scale, float* k,
                   int64_t first, int64_t last);
  // sums[j] <- sum_i weights[i] u[i][j]^2 of columns [first, last).
  void (*weigh_columns)(const float* u, const double* weights, int64_t n, double* sums,
                        int64_t first, int64_t last);
  // out <- f(B) by Daleckii and Krein, between columns of V with VT V = gram, whose distance from
  // the identity is corrected to first order; defects[i] <- the squares of row i of that.
  void (*function)(const NearDiagonal&, const float* gram, double exponent, float* out,
                   double* defects, int64_t first, int64_t last);
};

constexpr int64_t kMirrorTile = 16;

}  // namespace kronext
