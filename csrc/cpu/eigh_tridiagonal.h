// Householder tridiagonalisation of the matrices in lanes: A = Q T QT, Q = H_{n-1} ... H_2.
//
// Step k, from the last row up, reflects the first k entries of row k onto entry k - 1:
//   H_k = I - tau_k v_k v_kT,   A <- H_k A H_k = A - v wT - w vT,   w = tau (p - (tau / 2)(pT v)
//   v),  p = A v.
// Row k of the packed triangle keeps v_k, its last entry, 1, included. The update of one step and
// the product A v of the next share a pass over the lower triangle, four operations for each entry
// read and written: 4/3 n^3 operations a matrix.
#pragma once

#include "csrc/cpu/eigh_lanes.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class D>
struct Tridiagonal {
  Vector<D>* diagonal;      // n
  Vector<D>* off_diagonal;  // n; entry i couples i and i + 1, the last one is 0
  Vector<D>* tau;           // n; of the reflectors 2 .. n - 1
};

// A rank-2 update that is still to be subtracted: v wT + w vT.
template <class D>
struct PendingUpdate {
  const Vector<D>* v;
  const Vector<D>* w;

  KRONEXT_INLINE Vector<D> at(int64_t i, int64_t j) const { return v[i] * w[j] + w[i] * v[j]; }
};

// Rows [first, first + Rows) of the lower triangle: A -= update, then p += A v for these entries
// and, by symmetry, their mirror images.
template <int Rows, class D>
KRONEXT_INLINE void update_and_multiply_rows(Vector<D>* a, int64_t first,
                                             const PendingUpdate<D>& update,
                                             const Vector<D>* __restrict v,
                                             Vector<D>* __restrict p) {
  using Lane = Vector<D>;
  Lane* row[Rows];
  Lane row_v[Rows], row_p[Rows], update_v[Rows], update_w[Rows];
  for (int r = 0; r < Rows; ++r) {
    row[r] = a + triangle(first + r);
    row_v[r] = v[first + r];
    row_p[r] = p[first + r];
    update_v[r] = update.v[first + r];
    update_w[r] = update.w[first + r];
  }
  for (int64_t j = 0; j < first; ++j) {
    const Lane column_v = v[j], w_j = update.w[j], v_j = update.v[j];
    Lane column_p = p[j];
    for (int r = 0; r < Rows; ++r) {
      const Lane x = row[r][j] - update_v[r] * w_j - update_w[r] * v_j;
      row[r][j] = x;
      row_p[r] += x * column_v;
      column_p += x * row_v[r];
    }
    p[j] = column_p;
  }
  for (int r = 0; r < Rows; ++r) {
    for (int c = 0; c <= r; ++c) {
      const Lane x = row[r][first + c] - update_v[r] * update_w[c] - update_w[r] * update_v[c];
      row[r][first + c] = x;
      row_p[r] += x * row_v[c];
      if (c < r) row_p[c] += x * row_v[r];
    }
  }
  for (int r = 0; r < Rows; ++r) p[first + r] = row_p[r];
}

// A -= update and p = A v over the leading k x k block.
template <class D>
inline void update_and_multiply(Vector<D>* a, int64_t k, const PendingUpdate<D>& update,
                                const Vector<D>* v, Vector<D>* p) {
  constexpr int kRows = kVectorRegisters / 8;  // four operands a row
  for (int64_t i = 0; i < k; ++i) p[i] = Vector<D>{};
  int64_t i = 0;
  for (; i + kRows <= k; i += kRows) update_and_multiply_rows<kRows, D>(a, i, update, v, p);
  for (; i < k; ++i) update_and_multiply_rows<1, D>(a, i, update, v, p);
}

// The reflector of row x[0 .. k] in place; x[k - 1] becomes 1.
template <class D>
KRONEXT_INLINE void make_reflector(Vector<D>* x, int64_t k, Vector<D>& off_diagonal,
                                   Vector<D>& tau) {
  using Lane = Vector<D>;
  // A square, of a matrix scaled to about 1. Nearer to the squares that vanish reflectors would not
  // be orthogonal.
  constexpr D kNothingLeft = FloatFormat<D>::kFloor;
  const Lane rest = dot<D>(x, x, k - 1), pivot = x[k - 1], one = splat(D(1));
  const Mask<D> none = rest <= splat(kNothingLeft);
  const Lane square = none ? one : pivot * pivot + rest;
  const Lane inverse_norm = reciprocal_square_root(square), norm = square * inverse_norm;
  const Lane sum = absolute<D>(pivot) + norm, inverse_sum = reciprocal(sum);
  const Lane inverse = none ? Lane{} : pivot < 0 ? -inverse_sum : inverse_sum;
  off_diagonal = none ? pivot : pivot < 0 ? norm : -norm;
  tau = none ? Lane{} : sum * inverse_norm;
  for (int64_t j = 0; j < k - 1; ++j) x[j] *= inverse;
  x[k - 1] = one;
}

// `w` and `p` are room for n vectors each.
template <class D>
inline void tridiagonalize(Vector<D>* a, int64_t n, const Tridiagonal<D>& t, Vector<D>* w,
                           Vector<D>* p) {
  using Lane = Vector<D>;
  for (int64_t i = 0; i < n; ++i) w[i] = Lane{};
  PendingUpdate<D> update{w, w};
  for (int64_t k = n - 1; k >= 2; --k) {
    Lane* v = a + triangle(k);
    for (int64_t j = 0; j <= k; ++j) v[j] -= update.at(k, j);
    t.diagonal[k] = v[k];
    make_reflector<D>(v, k, t.off_diagonal[k - 1], t.tau[k]);
    update_and_multiply<D>(a, k, update, v, p);
    const Lane tau = t.tau[k], half = dot<D>(p, v, k) * tau * D(0.5);
    for (int64_t j = 0; j < k; ++j) w[j] = (p[j] - half * v[j]) * tau;
    update.v = v;
  }
  t.diagonal[0] = a[0] - update.at(0, 0);
  if (n >= 2) {
    t.off_diagonal[0] = a[1] - update.at(1, 0);
    t.diagonal[1] = a[2] - update.at(1, 1);
  }
  t.off_diagonal[n - 1] = Lane{};
}

}  // namespace kronext::cpu::KRONEXT_CPU
