// One symmetric matrix on its way through the eigensolver, with vectors along its rows.
#pragma once

#include "csrc/cpu/eigh_lanes.h"
#include "csrc/cpu/product.h"

namespace kronext::cpu::KRONEXT_CPU {

// Rows of matrices and reflectors are padded to a multiple of it.
constexpr int64_t kRowBlock = 32;

// Values between two rows: an odd number of cache lines, so that rows fall into different sets.
template <class D>
constexpr int64_t row_pitch(int64_t n) {
  return round_up(n, kRowBlock) + 64 / int64_t(sizeof(D));
}

// A symmetric matrix on its way to T.
//
// Only the lower triangle counts, with one exception: blocks of kPanel<D> x kPanel<D> on the
// diagonal are kept whole, so that a product with them needs no masks.
template <class D>
struct Reduction {
  static constexpr int64_t matrix_size(int64_t n) {
    return round_up(n, kRowBlock) * row_pitch<D>(n);
  }

  D* row(int64_t k) const { return matrix + k * row_pitch<D>(n); }

  int64_t n;
  D* matrix;    // becomes the reflectors: row k is v_k, with zeros up to a multiple of kRowBlock
  D* diagonal;  // n
  D* off_diagonal;  // n; entry i couples i and i + 1, the last one is 0
  D* tau;           // n; 0 for k < 2, whose rows are empty
};

template <class D>
struct MatrixScale {
  D scale;      // a power of two: matrix = scale * copy
  bool finite;  // if not, there is no copy
};

// The lower triangle of a matrix into `to`, divided by the power of two that brings its largest
// entry to [1, 2) (or as near as D can), so that squares neither overflow nor vanish.
template <class D, class T>
MatrixScale<D> copy_scaled(const T* matrix, int64_t row_stride, const Reduction<D>& to) {
  constexpr int kL = kLanes<T>, kBias = FloatFormat<D>::kBias;
  const int64_t n = to.n;
  Mask<T> bits{};  // their order is that of the magnitudes, with NaN above infinity
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; j += kL) {
      const Vector<T> x = load_first<T>(matrix + i * row_stride + j, i + 1 - j);
      bits = maximum(bits, reinterpret_cast<Mask<T>>(absolute<T>(x)));
    }
  typename IntegerOf<T>::type largest = 0;
  for (int lane = 0; lane < kL; ++lane) largest = maximum(largest, bits[lane]);
  const int exponent = int(largest >> FloatFormat<T>::kMantissaBits) - FloatFormat<T>::kBias;
  if (exponent > FloatFormat<T>::kBias) return {D(1), false};
  const int power = minimum(maximum(exponent, 1 - kBias), kBias - 1);
  const D inverse = power_of_two<D>(-power - Mask<D>{})[0];

  for (int64_t i = 0; i < round_up(n, kRowBlock); ++i) {
    D* row = to.row(i);
    for (int64_t j = 0; j < round_up(i + 1, kRowBlock); j += kLanes<D>) {
      const int64_t count = i < n ? i + 1 - j : 0;
      const Vector<T, kLanes<D>> x = load_first<T, kLanes<D>>(matrix + i * row_stride + j, count);
      store(row + j, convert<D, T, kLanes<D>>(x) * inverse);
    }
    for (int64_t j = i / kPanel<D> * kPanel<D>; j < i; ++j) to.row(j)[i] = row[j];
  }
  return {power_of_two<D>(power - Mask<D>{})[0], true};
}

}  // namespace kronext::cpu::KRONEXT_CPU
