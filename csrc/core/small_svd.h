// Singular value decomposition of a small dense matrix by one-sided Jacobi rotations.
#pragma once

#include <math.h>
#include <stdint.h>

#include "csrc/core/host_device.h"

namespace kronext {

// B = P diag(sigma) QT for a `size` x `size` matrix whose column k is b[k * size ...]. On return
// column k of b is P_k and of q is Q_k, both orthogonal; sigma is descending. Entries must be
// finite.
//
// Rotations of pairs of columns make the columns of B Q orthogonal; their lengths are the singular
// values. Columns that are zero to rounding get any directions that complete P.
KRONEXT_HOST_DEVICE void small_svd(double* b, double* q, double* sigma, int64_t size) {
  constexpr double kRounding = 2.3e-16;
  constexpr int kMaxSweeps = 40;
  const auto dot = [size](const double* x, const double* y) {
    double sum = 0;
    for (int64_t i = 0; i < size; ++i) sum += x[i] * y[i];
    return sum;
  };
  const auto rotate = [size](double* x, double* y, double c, double s) {
    for (int64_t i = 0; i < size; ++i) {
      const double a = x[i];
      x[i] = c * a - s * y[i];
      y[i] = s * a + c * y[i];
    }
  };
  double largest = 0;
  for (int64_t e = 0; e < size * size; ++e) {
    q[e] = e % (size + 1) == 0;
    largest = fmax(largest, fabs(b[e]));
  }
  const double scale = largest > 0 ? largest : 1;
  for (int64_t e = 0; e < size * size; ++e) b[e] /= scale;

  bool rotated = true;
  for (int sweep = 0; rotated && sweep < kMaxSweeps; ++sweep) {
    rotated = false;
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = i + 1; j < size; ++j) {
        double *x = b + i * size, *y = b + j * size;
        const double xx = dot(x, x), yy = dot(y, y), xy = dot(x, y);
        if (fabs(xy) <= kRounding * sqrt(xx * yy)) continue;
        rotated = true;
        const double zeta = (yy - xx) / (2 * xy);
        const double t = copysign(1.0, zeta) / (fabs(zeta) + sqrt(1 + zeta * zeta));
        const double c = 1 / sqrt(1 + t * t);
        rotate(x, y, c, c * t);
        rotate(q + i * size, q + j * size, c, c * t);
      }
    }
  }
  for (int64_t k = 0; k < size; ++k) sigma[k] = sqrt(dot(b + k * size, b + k * size));
  for (int64_t k = 0; k < size; ++k) {
    int64_t top = k;
    for (int64_t i = k + 1; i < size; ++i) top = sigma[i] > sigma[top] ? i : top;
    const auto exchange = [](double& x, double& y) {
      const double z = x;
      x = y;
      y = z;
    };
    exchange(sigma[k], sigma[top]);
    for (int64_t i = 0; i < size; ++i) {
      exchange(b[k * size + i], b[top * size + i]);
      exchange(q[k * size + i], q[top * size + i]);
    }
  }
  const double negligible = kRounding * double(size) * (size ? sigma[0] : 0);
  for (int64_t k = 0; k < size; ++k) {
    double* column = b + k * size;
    double length = sigma[k];
    // A unit vector outside the span of the columns before it: one of them leaves a residual of at
    // least 1 / sqrt(size).
    for (int64_t unit = 0; sigma[k] <= negligible && unit < size; ++unit) {
      for (int64_t i = 0; i < size; ++i) column[i] = i == unit;
      for (int pass = 0; pass < 2; ++pass) {
        for (int64_t p = 0; p < k; ++p) {
          const double along = dot(b + p * size, column);
          for (int64_t i = 0; i < size; ++i) column[i] -= along * b[p * size + i];
        }
      }
      length = sqrt(dot(column, column));
      if (length * length * double(size) >= 0.5) break;
    }
    for (int64_t i = 0; i < size; ++i) column[i] /= length;
    sigma[k] *= scale;
  }
}

}  // namespace kronext
