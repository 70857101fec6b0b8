// Q = H_{n-1} ... H_2 from the reflectors of eigh_tridiagonal.h.
//
// Row r of QT = H_2 ... H_{n-1} is e_r until reflector r + 1 and fills up from the left after it:
// 4/3 n^3 operations where the rows of Q would take 2 n^3. So panels of QT are formed and
// transposed while they are stored. Reflectors go in pairs, and one pass over a panel applies a
// pair and takes the products with the next:
//
//   x <- x - y vT - w uT,   y = tau_v x v,   w = tau_u (x u - y vT u)   for consecutive v, u.
#pragma once

#include "csrc/cpu/eigh_panels.h"

namespace kronext::cpu::KRONEXT_CPU {

// The reflectors of a unit, as coefficients. Rows are padded with zeros so that a pair can be
// applied over the columns of the next one, and row n is zero so that the last pair is complete.
template <class P>
struct Reflectors {
  using T = typename P::Value;

  static constexpr int64_t pitch(int64_t n) { return round_up<int64_t>(n + 4, P::kLaneCount); }
  static constexpr int64_t vectors_size(int64_t n) { return (n + 1) * pitch(n) * P::kWidth; }
  static constexpr int64_t scalars_size(int64_t n) { return pitch(n) * P::kWidth; }

  Reflectors of(int64_t unit) const {
    return {vectors + unit * vectors_size(n), tau + unit * scalars_size(n),
            overlap + unit * scalars_size(n), n};
  }
  const T* row(int64_t k) const { return vectors + k * pitch(n) * P::kWidth; }

  T* vectors;  // row k: v_k
  T* tau;
  T* overlap;  // v_k . v_{k+1}
  int64_t n;
};

// Copies the reflectors of one lane group, the matrices `first` and on of those that `to` holds.
template <class P>
void scatter_reflectors(const typename P::Lane* a, typename P::Lane* tau, typename P::Lane* overlap,
                        int first, const Reflectors<P>& to) {
  using R = Reflectors<P>;
  using D = typename P::LaneValue;
  constexpr int kCount = P::kLaneCount;
  const int64_t n = to.n, pitch = R::pitch(n);
  Vector<D> block[kCount];
  for (int64_t k = 2; k <= n; ++k) {
    const Vector<D>* v = a + triangle(k);
    for (int64_t j = 0; j < minimum(k + 4, pitch); j += kCount) {
      for (int q = 0; q < kCount; ++q) block[q] = j + q < k && k < n ? v[j + q] : Vector<D>{};
      P::template scatter<D>(block, first, to.vectors, R::vectors_size(n), k * pitch + j);
    }
    overlap[k] = k + 1 < n ? dot<D>(v, a + triangle(k + 1), k) : Vector<D>{};
  }
  tau[n] = Vector<D>{};
  for (int64_t k = 0; k < n + 1; k += kCount) {
    P::template scatter<D>(tau + k, first, to.tau, R::scalars_size(n), k);
    P::template scatter<D>(overlap + k, first, to.overlap, R::scalars_size(n), k);
  }
}

// One pass over the first columns of a panel of rows x: applies the pair (old_v, old_u), then takes
// y = x v and w = x u.
template <class P, int Height, bool kUpdate, bool kDot, class T = typename P::Value,
          class V = typename P::V>
KRONEXT_INLINE void apply_pair(V* panel, int64_t columns, const T* old_v, const T* old_u,
                               const T* v, const T* u, V* y, V* w) {
  V old_y[Height], old_w[Height], sum_v[Height], sum_u[Height];
  for (int h = 0; h < Height; ++h) {
    old_y[h] = y[h];
    old_w[h] = w[h];
    sum_v[h] = sum_u[h] = V{};
  }
  for (int64_t j = 0; j < columns; ++j) {
    V old_v_j{}, old_u_j{}, v_j{}, u_j{};
    if (kUpdate) old_v_j = P::coefficient(old_v, j), old_u_j = P::coefficient(old_u, j);
    if (kDot) v_j = P::coefficient(v, j), u_j = P::coefficient(u, j);
    for (int h = 0; h < Height; ++h) {
      V x = panel[j * Height + h];
      if (kUpdate) {
        x -= old_y[h] * old_v_j;
        x -= old_w[h] * old_u_j;
        panel[j * Height + h] = x;
      }
      if (kDot) {
        sum_v[h] += x * v_j;
        sum_u[h] += x * u_j;
      }
    }
  }
  for (int h = 0; h < Height; ++h) {
    y[h] = sum_v[h];
    w[h] = sum_u[h];
  }
}

// Rows `first_vector` and on of QT, n columns.
template <int Height, class P>
void form_rows(const Reflectors<P>& reflectors, int64_t first_vector, typename P::V* x) {
  using T = typename P::Value;
  using V = typename P::V;
  const int64_t n = reflectors.n, first_row = first_vector * P::kRowsPerVector;
  for (int64_t k = 0; k < n * Height; ++k) x[k] = V{};
  for (int h = 0; h < Height; ++h)
    for (int lane = 0; lane < P::kVector; ++lane) {
      const int64_t row = first_row + h * P::kRowsPerVector + lane / P::kWidth;
      if (row < n) x[row * Height + h][lane] = 1;
    }
  int64_t k = maximum<int64_t>(2, first_row & ~1);
  if (k >= n) return;
  V y[Height], w[Height];
  const T *v = reflectors.row(k), *u = reflectors.row(k + 1);
  apply_pair<P, Height, false, true>(x, k + 1, v, u, v, u, y, w);
  for (;; k += 2) {
    const V tau_v = P::coefficient(reflectors.tau, k),
            tau_u = P::coefficient(reflectors.tau, k + 1);
    const V overlap = P::coefficient(reflectors.overlap, k);
    for (int h = 0; h < Height; ++h) {
      y[h] *= tau_v;
      w[h] = (w[h] - y[h] * overlap) * tau_u;
    }
    if (k + 2 >= n) break;
    const T *next_v = reflectors.row(k + 2), *next_u = reflectors.row(k + 3);
    apply_pair<P, Height, true, true>(x, k + 3, v, u, next_v, next_u, y, w);
    v = next_v;
    u = next_u;
  }
  apply_pair<P, Height, true, false>(x, minimum(k + 1, n), v, u, v, u, y, w);
}

// Rows `first_vector` and on of QT to columns of the panels of Q.
template <int Height, class P>
void store_transposed(const P& panels, int64_t first_vector, const typename P::V* x,
                      typename P::Value* unit) {
  using T = typename P::Value;
  constexpr int kRows = P::kRowsPerVector;
  Vector<T> block[kRows];
  for (int64_t p = 0; p < panels.count; ++p) {
    const int height = panels.height(p);
    Vector<T>* to = reinterpret_cast<Vector<T>*>(panels.panel(unit, p));
    for (int to_h = 0; to_h < height; ++to_h)
      for (int h = 0; h < Height; ++h) {
        const int64_t row = (panels.first_vector(p) + to_h) * kRows,
                      column = (first_vector + h) * kRows;
        for (int q = 0; q < kRows; ++q)
          block[q] = row + q < panels.n ? x[(row + q) * Height + h] : Vector<T>{};
        if constexpr (kRows > 1) Transpose<T>::run(block);
        for (int q = 0; q < kRows; ++q)
          if (column + q < panels.n) to[(column + q) * height + to_h] = block[q];
      }
  }
}

// Q of one unit, in panels with empty margins. `scratch` holds n columns of the highest panel.
template <class P>
void form_vectors(const P& panels, const Reflectors<P>& reflectors, typename P::Value* unit,
                  typename P::Value* scratch) {
  using T = typename P::Value;
  Vector<T>* x = reinterpret_cast<Vector<T>*>(scratch);
  for (int64_t p = 0; p < panels.count; ++p) {
    with_height<P::kMaxHeight>(panels.height(p), [&](auto height) {
      constexpr int kHeight = decltype(height)::value;
      form_rows<kHeight>(reflectors, panels.first_vector(p), x);
      store_transposed<kHeight>(panels, panels.first_vector(p), x, unit);
      Vector<T>* panel = reinterpret_cast<Vector<T>*>(panels.panel(unit, p));
      for (int64_t k = 0; k < P::kMargin * kHeight; ++k)
        panel[k - P::kMargin * kHeight] = panel[panels.n * kHeight + k] = Vector<T>{};
    });
  }
}

}  // namespace kronext::cpu::KRONEXT_CPU
