// Results of lanes and panels to row-major matrices, eigenvalues in ascending order.
#pragma once

#include "csrc/cpu/eigh_panels.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T>
void store_identity(T* out, int64_t n) {
  for (int64_t k = 0; k < n * n; ++k) out[k] = 0;
  for (int64_t i = 0; i < n; ++i) out[i * (n + 1)] = 1;
}

// Eigenvalues of either kind of lanes, in float64.
using Lane = Vector<double>;
using LaneMask = Mask<double>;
constexpr int kValueLanes = kLanes<double>;

// order[matrix * n + rank] = column of the eigenvalue with that rank, of the matrices in lanes.
// Counting comparisons costs n^2 / 2 of them but no branch, and equal values keep their order.
inline void ascending_order(const Lane* values, int64_t n, LaneMask* ranks, int32_t* order) {
  for (int64_t i = 0; i < n; ++i) ranks[i] = LaneMask{};
  for (int64_t i = 0; i < n; ++i) {
    LaneMask rank = ranks[i];
    for (int64_t j = i + 1; j < n; ++j) {
      const LaneMask less = values[j] < values[i];  // -1 where it holds
      rank -= less;
      ranks[j] += 1 + less;
    }
    ranks[i] = rank;
  }
  for (int lane = 0; lane < kValueLanes; ++lane)
    for (int64_t i = 0; i < n; ++i) order[lane * n + ranks[i][lane]] = int32_t(i);
}

// Adding +0 turns -0 into +0: idle rotations leave either, depending on the neighbours in a vector.
template <class T, int Lanes = kLanes<T>>
KRONEXT_INLINE Vector<T, Lanes> unsigned_zero(Vector<T, Lanes> x) {
  return x + Vector<T, Lanes>{};
}

// The eigenvectors of a unit with their columns in order; `out` is null where a matrix failed.
// `scratch` holds a panel's rows of every matrix of the unit.
template <class T, class D>
void store_vectors(const Panels<T, D, LanesHold::kMatrices>& panels, const T* vectors,
                   const int32_t* order, T* const* out, T* scratch) {
  constexpr int kVector = kLanes<T>;
  const int64_t n = panels.n, pitch = round_up<int64_t>(n, kVector);
  for (int64_t p = 0; p < panels.count; ++p)
    with_height<Panels<T, D, LanesHold::kMatrices>::kMaxHeight>(panels.height(p), [&](auto height) {
      constexpr int kHeight = decltype(height)::value;
      const T* x = panels.panel(const_cast<T*>(vectors), p);
      for (int64_t k = 0; k < n; k += kVector)
        for (int h = 0; h < kHeight; ++h) {
          Vector<T> block[kVector];
#pragma GCC unroll 16
          for (int q = 0; q < kVector; ++q) {
            const int64_t column = minimum(k + q, n - 1);
            block[q] = unsigned_zero<T>(load(x + (column * kHeight + h) * kVector));
          }
          Transpose<T>::run(block);
#pragma GCC unroll 16
          for (int m = 0; m < kVector; ++m)
            store(scratch + (m * kHeight + h) * pitch + k, block[m]);
        }
      for (int m = 0; m < kVector; ++m) {
        if (!out[m]) continue;
        const T* from = scratch + m * kHeight * pitch;
        T* to = out[m] + panels.first_vector(p) * n;
        for (int h = 0; h < kHeight; ++h)
          for (int64_t k = 0; k < n; ++k) to[h * n + k] = from[h * pitch + order[m * n + k]];
      }
    });
}

// `out` has at least kLanes<T> rows.
template <class T, class D>
void store_vectors(const Panels<T, D, LanesHold::kRows>& panels, const T* vectors,
                   const int32_t* order, T* const* out, T*) {
  constexpr int kVector = kLanes<T>;
  const int64_t n = panels.n;
  if (!*out) return;
  for (int64_t p = 0; p < panels.count; ++p)
    for (int h = 0; h < panels.height(p); ++h) {
      const T* x = panels.panel(const_cast<T*>(vectors), p) + h * kVector;
      const int64_t row = (panels.first_vector(p) + h) * kVector,
                    stride = panels.height(p) * kVector;
      for (int64_t k = 0; k < n; k += kVector) {
        Vector<T> block[kVector];
        const int64_t first = minimum(k, n - kVector);
#pragma GCC unroll 16
        for (int q = 0; q < kVector; ++q)
          block[q] = unsigned_zero<T>(load(x + order[first + q] * stride));
        Transpose<T>::run(block);
        for (int q = 0; q < minimum<int64_t>(kVector, n - row); ++q)
          store(*out + (row + q) * n + first, block[q]);
      }
    }
}

// scale * x of n^2 vectors in lanes to the dense matrices that are not null.
template <class T>
void store_matrices(const T* x, int64_t n, Vector<T> scale, T* const* out) {
  constexpr int kVector = kLanes<T>;
  const int64_t size = n * n;
  if (size < kVector) {
    for (int m = 0; m < kVector; ++m)
      for (int64_t k = 0; out[m] && k < size; ++k) out[m][k] = x[k * kVector + m] * scale[m] + 0;
    return;
  }
  for (int64_t k = 0; k < size; k += kVector) {
    const int64_t first = minimum(k, size - kVector);
    Vector<T> block[kVector];
#pragma GCC unroll 16
    for (int q = 0; q < kVector; ++q)
      block[q] = unsigned_zero<T>(load(x + (first + q) * kVector) * scale);
    Transpose<T>::run(block);
#pragma GCC unroll 16
    for (int m = 0; m < kVector; ++m)
      if (out[m]) store(out[m] + first, block[m]);
  }
}

}  // namespace kronext::cpu::KRONEXT_CPU
