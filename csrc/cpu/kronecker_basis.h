// The small algebra of power iteration: iterates as orthonormal bases, and bases as singular
// triples.
//
// The r iterates of a side are columns of one basis, matrices as vectors. A step makes the columns
// orthonormal again (for r = 1: scales them); at the end the r x r matrix UT Hhat V tells which
// combinations are singular vectors (Rayleigh-Ritz). Sums are float64 whatever the iterates are.
#pragma once

#include "csrc/core/power_iteration.h"
#include "csrc/core/small_svd.h"
#include "csrc/cpu/simd.h"

namespace kronext::cpu::KRONEXT_CPU {

constexpr double kLargest = 1.7976931348623157e308;

// sum of term(e) over [0, size), with sixteen sums side by side for the vector units.
template <class Term>
KRONEXT_INLINE double sum_of(int64_t size, const Term& term) {
  constexpr int kSums = 16;
  double sums[kSums] = {};
  int64_t e = 0;
  for (; e + kSums <= size; e += kSums) {
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sums[s] += term(e + s);
  }
  for (; e < size; ++e) sums[0] += term(e);
  double total = 0;
  for (int s = 0; s < kSums; ++s) total += sums[s];
  return total;
}

template <class T>
double dot(const T* x, const T* y, int64_t size) {
  return sum_of(size, [=](int64_t e) { return double(x[e]) * double(y[e]); });
}

// Not finite where an entry is not.
template <class T>
double norm(const T* x, int64_t size) {
  const double squares = dot(x, x, size);
  // Squares of float32 always fit float64, those of float64 may not.
  if (sizeof(T) < sizeof(double) || (squares > 1e-280 && squares < 1e280)) return sqrt(squares);
  double largest = 0;
  for (int64_t e = 0; e < size; ++e) {
    const double a = __builtin_fabs(double(x[e]));
    if (!(a <= kLargest)) return __builtin_nan("");
    largest = maximum(a, largest);
  }
  if (largest == 0) return 0;
  const double scale = maximum(largest, 1e-300);
  return scale * sqrt(sum_of(size, [=](int64_t e) {
           const double a = double(x[e]) / scale;
           return a * a;
         }));
}

template <class T>
void scale(T* x, double factor, int64_t size) {
  for (int64_t e = 0; e < size; ++e) x[e] = T(double(x[e]) * factor);
}

template <class T>
void subtract(T* x, double factor, const T* y, int64_t size) {
  for (int64_t e = 0; e < size; ++e) x[e] = T(double(x[e]) - factor * double(y[e]));
}

// Takes the first k columns out of column k, twice because once leaves a rounded rest of them, and
// makes what stays of norm 1. Returns the length of what stayed; nothing more is done where it is 0
// or not finite.
template <class T>
double orthogonalise(T* columns, int64_t k, int64_t size) {
  T* column = columns + k * size;
  double stayed = 1;
  for (int pass = 0; pass < (k > 0 ? 3 : 1); ++pass) {
    for (int64_t i = 0; pass > 0 && i < k; ++i) {
      const T* other = columns + i * size;
      subtract(column, dot(other, column, size), other, size);
    }
    const double length = norm(column, size);
    if (!(length > 0 && length <= kLargest)) return length;
    scale(column, 1 / length, size);
    stayed *= length;
  }
  return stayed;
}

// The sine of the angle between a unit column and the span of an orthonormal basis.
template <class T>
double distance(const T* column, const T* basis, int64_t columns, int64_t size, double* inside) {
  constexpr int64_t kBlock = 256;
  double rest[kBlock], squares = 0;
  for (int64_t i = 0; i < columns; ++i) inside[i] = dot(basis + i * size, column, size);
  for (int64_t first = 0; first < size; first += kBlock) {
    const int64_t count = minimum(kBlock, size - first);
    for (int64_t e = 0; e < count; ++e) rest[e] = double(column[first + e]);
    for (int64_t i = 0; i < columns; ++i) {
      const T* other = basis + i * size + first;
      for (int64_t e = 0; e < count; ++e) rest[e] -= inside[i] * double(other[e]);
    }
    for (int64_t e = 0; e < count; ++e) squares += rest[e] * rest[e];
  }
  return sqrt(squares);
}

// See orthonormalise in csrc/core/power_iteration.h. A column that is nothing but rounding beside
// the leading one is replaced by one of the previous basis: r orthonormal columns cannot all lie in
// the span of fewer than r.
template <class T>
double orthonormalise_columns(const Basis& basis, const Basis& previous, double* scratch) {
  T* columns = static_cast<T*>(basis.data);
  const T* before = static_cast<const T*>(previous.data);
  const int64_t size = basis.size;
  const double negligible = double(basis.columns) * (sizeof(T) == 8 ? 1e-14 : 1e-6);
  double turned = 0, leading = 0;
  for (int64_t k = 0; k < basis.columns; ++k) {
    T* column = columns + k * size;
    double stayed = orthogonalise(columns, k, size);
    if (k == 0) leading = stayed;
    for (int64_t i = 0; stayed <= negligible * leading && i < basis.columns; ++i) {
      for (int64_t e = 0; e < size; ++e) column[e] = before[i * size + e];
      const double part = orthogonalise(columns, k, size);
      if (part * part * double(basis.columns) >= 0.5) stayed = part;
    }
    if (!(stayed <= kLargest)) {
      for (int64_t e = 0; e < basis.columns * size; ++e) columns[e] = T(__builtin_nan(""));
      return 0;
    }
    turned = maximum(turned, distance(column, before, basis.columns, size, scratch));
  }
  return turned;
}

// columns <- columns * matrix, a small square matrix with contiguous columns.
template <class T>
void rotate_columns(T* columns, int64_t count, int64_t size, const double* matrix, double* row) {
  for (int64_t e = 0; e < size; ++e) {
    for (int64_t k = 0; k < count; ++k) {
      row[k] = 0;
      for (int64_t i = 0; i < count; ++i)
        row[k] += double(columns[i * size + e]) * matrix[k * count + i];
    }
    for (int64_t k = 0; k < count; ++k) columns[k * size + e] = T(row[k]);
  }
}

// x <- (x + xT) / 2 for a dim x dim matrix.
template <class T>
void symmetrise(T* x, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      x[i * dim + j] = x[j * dim + i] = T(0.5 * (double(x[i * dim + j]) + double(x[j * dim + i])));
    }
  }
}

template <class T>
double trace(const T* x, int64_t dim) {
  double sum = 0;
  for (int64_t i = 0; i < dim; ++i) sum += double(x[i * dim + i]);
  return sum;
}

template <class T>
void fill_identity(T* x, int64_t dim) {
  for (int64_t e = 0; e < dim * dim; ++e)
    x[e] = e % (dim + 1) == 0 ? T(1 / sqrt(double(dim))) : T(0);
}

// Makes the leading pair symmetric and of norm 1 with a trace that is not negative, and returns
// <left, Hhat vec(right)>. The image is Hhat vec(right) before that; for a symmetric H the
// symmetric part of right has the symmetric part of the image, and <left, .> sees no other.
template <class T>
double finish_leading(T* left, T* right, const T* image, int64_t m, int64_t n) {
  symmetrise(left, m);
  symmetrise(right, n);
  const double left_norm = norm(left, m * m), right_norm = norm(right, n * n);
  const double sign = trace(right, n) < 0 ? -1 : 1;
  scale(left, sign / left_norm, m * m);
  scale(right, sign / right_norm, n * n);
  const double sigma = sign * dot(left, image, m * m) / right_norm;
  if (sigma < 0) scale(left, -1, m * m);
  return __builtin_fabs(sigma);
}

template <class T>
int32_t singular_triples_of(const Basis& lefts, const Basis& rights, const Basis& image, int64_t m,
                            int64_t n, double* scratch, T* sigma) {
  T* left = static_cast<T*>(lefts.data);
  T* right = static_cast<T*>(rights.data);
  T* images = static_cast<T*>(image.data);
  const int64_t rank = lefts.columns;
  double *b = scratch, *q = b + rank * rank, *values = q + rank * rank, *row = values + rank;
  bool finite = true;
  sigma[0] = 0;
  for (int64_t k = 0; k < rank; ++k) {
    for (int64_t i = 0; i < rank; ++i) {
      const double entry = dot(left + i * m * m, images + k * m * m, m * m);
      b[k * rank + i] = entry;
      finite &= __builtin_fabs(entry) <= kLargest;
    }
  }
  if (finite && rank > 1) {
    small_svd(b, q, values, rank);
    rotate_columns(left, rank, m * m, b, row);
    rotate_columns(right, rank, n * n, q, row);
    rotate_columns(images, rank, m * m, q, row);
    for (int64_t k = 1; k < rank; ++k) sigma[k] = T(values[k]);
  }
  if (finite && m > 0 && n > 0) sigma[0] = T(finish_leading(left, right, images, m, n));
  if (finite && sigma[0] == sigma[0]) return 0;
  for (int64_t k = 0; k < rank; ++k) {
    fill_identity(left + k * m * m, m);
    fill_identity(right + k * n * n, n);
    sigma[k] = 0;
  }
  return 1;
}

}  // namespace kronext::cpu::KRONEXT_CPU
