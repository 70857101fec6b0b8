// X = (Q g)(Q g)T with g = f(lambda)^(1/2), the inverse root from eigenvectors in panels.
//
// n^3 operations: only tiles that reach the upper triangle are computed, and the other half is its
// mirror image.
#pragma once

#include "csrc/cpu/eigh_output.h"

namespace kronext::cpu::KRONEXT_CPU {

struct RootScale {
  Lane scale;    // root = scale * (Q g)(Q g)T
  Lane largest;  // eigenvalue of the root, a bound of its entries
};

// g of every eigenvalue in lanes, divided by a power of two that brings the largest to [1, 2) so
// that products neither overflow nor vanish.
inline RootScale root_gains(const Lane* values, int64_t n, const Damping& damping, Lane* gains) {
  Lane largest = values[0];
  for (int64_t i = 1; i < n; ++i) largest = maximum(largest, values[i]);
  // Powers of two need only square roots, which lanes have.
  int square_roots = 0;
  double root = damping.root;
  for (; root > 1; root /= 2) ++square_roots;
  const bool power_of_two_root = root == 1;

  Lane top{};
  for (int64_t i = 0; i < n; ++i) {
    Lane gain = damped_eigenvalue(values[i], largest, damping);
    if (power_of_two_root) {
      Lane power = gain;
      for (int k = 0; k < square_roots; ++k) power *= reciprocal_square_root(power);
      gain = gain > 0 ? reciprocal_square_root(power) : Lane{};
    } else {
      for (int lane = 0; lane < kValueLanes; ++lane)
        gain[lane] = gain[lane] > 0 ? pow(gain[lane], -0.5 / damping.root) : 0;
    }
    gains[i] = gain;
    top = maximum(top, gain);
  }
  // Half the range of float32, so that the square is a float32 too.
  const LaneMask power = clamp<double>(exponent<double>(top), -63, 63);
  for (int64_t i = 0; i < n; ++i) gains[i] *= power_of_two<double>(-power);
  return {power_of_two<double>(power + power), top * top};
}

template <class P>
void scale_columns(const P& panels, typename P::Value* vectors, const typename P::Value* gains) {
  using T = typename P::Value;
  for (int64_t p = 0; p < panels.count; ++p) {
    auto* x = reinterpret_cast<Vector<T>*>(panels.panel(vectors, p));
    for (int64_t k = 0; k < panels.n; ++k) {
      const Vector<T> gain = P::coefficient(gains, k);
      for (int h = 0; h < panels.height(p); ++h) *x++ *= gain;
    }
  }
}

// sum[c][h] = sum_k x[k][h] coefficient(y[k], c): rows of one panel times single rows of another.
template <class P, int Height, int Rows, class T = typename P::Value, class V = typename P::V>
KRONEXT_INLINE void multiply_rows(const T* x, int64_t x_stride, const T* y, int64_t y_stride,
                                  int64_t n, V (&sum)[Rows][Height]) {
  for (int c = 0; c < Rows; ++c)
    for (int h = 0; h < Height; ++h) sum[c][h] = V{};
  for (int64_t k = 0; k < n; ++k, x += x_stride, y += y_stride) {
    V x_k[Height];
    for (int h = 0; h < Height; ++h) x_k[h] = load(x + h * P::kVector);
#pragma GCC unroll 8
    for (int c = 0; c < Rows; ++c) {
      const V y_k = P::coefficient(y, c);
      for (int h = 0; h < Height; ++h) sum[c][h] += x_k[h] * y_k;
    }
  }
}

// One matrix a unit: the tiles of X that reach the upper triangle, to `out`, (n, n) dense.
template <class T, class D>
void multiply_upper(const Panels<T, D, LanesHold::kRows>& panels, const T* vectors, T* out) {
  using P = Panels<T, D, LanesHold::kRows>;
  constexpr int kRows = minimum(P::kVector, kVectorRegisters / 4);
  const int64_t n = panels.n;
  for (int64_t p = 0; p < panels.count; ++p)
    for (int64_t q = 0; q <= p; ++q) {
      const int64_t first_row = panels.first_vector(q) * P::kVector;
      const int64_t last_row = minimum(n, first_row + panels.height(q) * P::kVector);
      const T* y = panels.panel(const_cast<T*>(vectors), q);
      for (int64_t j = first_row; j < last_row; j += kRows, y += kRows) {
        // Columns of the tiles: from the diagonal on, two vectors at a time.
        const int64_t skip = maximum<int64_t>(0, j / P::kVector - panels.first_vector(p));
        for (int h = int(skip); h < panels.height(p); h += 2)
          with_height<2>(panels.height(p) - h, [&](auto height) {
            constexpr int kHeight = decltype(height)::value;
            Vector<T> sum[kRows][kHeight];
            multiply_rows<P, kHeight, kRows>(
                panels.panel(const_cast<T*>(vectors), p) + h * P::kVector,
                panels.height(p) * P::kVector, y, panels.height(q) * P::kVector, n, sum);
            const int64_t i = (panels.first_vector(p) + h) * P::kVector;
            for (int c = 0; c < minimum<int64_t>(kRows, n - j); ++c)
              for (int v = 0; v < kHeight; ++v)
                store_first(out + (j + c) * n + i + v * P::kVector, sum[c][v],
                            n - i - v * P::kVector);
          });
      }
    }
}

// out *= scale, and the upper triangle becomes its own mirror image.
template <class T>
void scale_and_mirror(T* out, int64_t n, T scale) {
  constexpr int kVector = kLanes<T>;
  for (int64_t j = 0; j < n; j += kVector)
    for (int64_t i = j; i < n; i += kVector) {
      if (i > j && i + kVector <= n) {
        Vector<T> block[kVector];
#pragma GCC unroll 16
        for (int q = 0; q < kVector; ++q) {
          block[q] = load(out + (j + q) * n + i) * scale;
          store(out + (j + q) * n + i, block[q]);
        }
        Transpose<T>::run(block);
#pragma GCC unroll 16
        for (int q = 0; q < kVector; ++q) store(out + (i + q) * n + j, block[q]);
      } else {
        for (int64_t r = j; r < minimum(j + kVector, n); ++r)
          for (int64_t c = maximum(i, r); c < minimum(i + kVector, n); ++c)
            out[c * n + r] = out[r * n + c] *= scale;
      }
    }
}

// kLanes<T> matrices a unit: X to `out`, n x n vectors.
template <class T, class D>
void multiply_lanes(const Panels<T, D, LanesHold::kMatrices>& panels, const T* vectors, T* out) {
  using P = Panels<T, D, LanesHold::kMatrices>;
  const int64_t n = panels.n;
  for (int64_t p = 0; p < panels.count; ++p)
    for (int64_t q = 0; q <= p; ++q)
      with_height<P::kMaxHeight>(panels.height(p), [&](auto p_height) {
        with_height<P::kMaxHeight>(panels.height(q), [&](auto q_height) {
          constexpr int kHeight = decltype(p_height)::value, kRows = decltype(q_height)::value;
          Vector<T> sum[kRows][kHeight];
          multiply_rows<P, kHeight, kRows>(
              panels.panel(const_cast<T*>(vectors), p), kHeight * P::kVector,
              panels.panel(const_cast<T*>(vectors), q), kRows * P::kVector, n, sum);
          for (int c = 0; c < kRows; ++c)
            for (int h = 0; h < kHeight; ++h) {
              const int64_t i = panels.first_vector(p) + h, j = panels.first_vector(q) + c;
              store(out + (i * n + j) * P::kVector, sum[c][h]);
              store(out + (j * n + i) * P::kVector, sum[c][h]);
            }
        });
      });
}

}  // namespace kronext::cpu::KRONEXT_CPU
