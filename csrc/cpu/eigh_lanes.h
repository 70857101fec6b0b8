// Lanes across matrices: element (i, j) of kLanes<D> matrices is one vector of D.
//
// The serial part of an eigensolver (tridiagonalisation, QL recurrences) has no parallelism to
// speak of in one small matrix; in lanes every instruction works on as many matrices as a vector
// has lanes. D is double, or float in the plain float32 mode. Only lower triangles are kept, row by
// row: row i holds i + 1 vectors.
#pragma once

#include "csrc/cpu/simd.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace kronext::cpu::KRONEXT_CPU {

// Lane vectors whose QL recurrences run interleaved: each is one long chain of dependent
// operations.
constexpr int kEighGroups = 4;
template <class D>
constexpr int kEighMatrices = kEighGroups * kLanes<D>;

constexpr int64_t triangle(int64_t n) { return n * (n + 1) / 2; }

// Denormals read and round as zero while this lives: rotations decay through the denormal range,
// where some CPUs take a hundred times longer. Inputs and results stay outside such scopes, so that
// tiny matrices are not zero.
class [[maybe_unused]] FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : saved_(_mm_getcsr()) {
    constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
    set(saved_ | kFlushToZero | kDenormalsAreZero);
  }
  ~FlushDenormals() { set(saved_); }

 private:
  // The clobbers keep arithmetic, whose operands come from memory, on its side of the switch.
  static void set(unsigned state) {
    asm volatile("" ::: "memory");
    _mm_setcsr(state);
    asm volatile("" ::: "memory");
  }
  unsigned saved_;
#endif
};

// The layout of a floating-point number, and how small numbers may become before their squares and
// inverses leave the range of normal ones.
template <class D>
struct FloatFormat;
template <>
struct FloatFormat<double> {
  static constexpr int kMantissaBits = 52, kBias = 1023;
  static constexpr double kRoundoff = 0x1p-53;
  static constexpr double kTiny = 1e-150;  // its square is normal
  static constexpr double kFloor = 1e-145;
};
template <>
struct FloatFormat<float> {
  static constexpr int kMantissaBits = 23, kBias = 127;
  static constexpr float kRoundoff = 0x1p-24f;
  static constexpr float kTiny = 2e-19f;
  static constexpr float kFloor = 1e-18f;
};

// floor(log2 x) of x >= 0: at most -kBias for zero and denormals, kBias + 1 for infinity and NaN.
template <class D>
KRONEXT_INLINE Mask<D> exponent_of_bits(Mask<D> bits) {
  return (bits >> FloatFormat<D>::kMantissaBits) - FloatFormat<D>::kBias;
}
template <class D>
KRONEXT_INLINE Mask<D> exponent(Vector<D> x) {
  return exponent_of_bits<D>(reinterpret_cast<Mask<D>>(x));
}
// 2^power of a normal number.
template <class D>
KRONEXT_INLINE Vector<D> power_of_two(Mask<D> power) {
  return reinterpret_cast<Vector<D>>((power + FloatFormat<D>::kBias)
                                     << FloatFormat<D>::kMantissaBits);
}
template <class D>
KRONEXT_INLINE Mask<D> clamp(Mask<D> x, int low, int high) {
  const Mask<D> lows = low - Mask<D>{}, highs = high - Mask<D>{};
  x = x < lows ? lows : x;
  return x > highs ? highs : x;
}

template <class D>
KRONEXT_INLINE Vector<D> dot(const Vector<D>* x, const Vector<D>* y, int64_t n) {
  Vector<D> sum[4] = {};
  int64_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (int u = 0; u < 4; ++u) sum[u] += x[j + u] * y[j + u];
  for (; j < n; ++j) sum[0] += x[j] * y[j];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Rows of kLanes<D> matrices to lanes. Blocks of a row may reach beyond the diagonal, into vectors
// that the next row overwrites.
template <class D, class T>
void pack_lower(const T* const* matrices, int64_t n, int64_t row_stride, Vector<D>* a) {
  constexpr int kWidth = kLanes<D>;
  Vector<D> block[kWidth];
  for (int64_t i = 0; i < n; ++i) {
    Vector<D>* row = a + triangle(i);
    if (n < kWidth) {
      for (int64_t j = 0; j <= i; ++j)
        for (int lane = 0; lane < kWidth; ++lane)
          row[j][lane] = D(matrices[lane][i * row_stride + j]);
      continue;
    }
    for (int64_t j = 0; j <= i; j += kWidth) {
      const int64_t first = minimum<int64_t>(j, n - kWidth);
#pragma GCC unroll 16
      for (int lane = 0; lane < kWidth; ++lane)
        block[lane] =
            convert<D, T, kWidth>(load<T, kWidth>(matrices[lane] + i * row_stride + first));
      Transpose<D>::run(block);
#pragma GCC unroll 16
      for (int q = 0; q < kWidth; ++q) row[first + q] = block[q];
    }
  }
}

template <class D>
struct Scaling {
  Vector<D> scale;  // a power of two: matrix = scale * packed matrix
  Mask<D> finite;   // of the matrix; a matrix that is not is packed as zero
};

// Divides each matrix by the power of two that brings its largest entry to [1, 2) (or as near as D
// can), so that squares neither overflow nor vanish. A NaN would keep its lane from ever converging
// and hold up the others, therefore it goes here.
template <class D>
inline Scaling<D> normalize(Vector<D>* a, int64_t n) {
  constexpr int kBias = FloatFormat<D>::kBias;
  Mask<D> largest{};  // as bits, whose order is that of the magnitudes, with NaN above infinity
  for (int64_t k = 0; k < triangle(n); ++k)
    largest = maximum(largest, reinterpret_cast<Mask<D>>(absolute<D>(a[k])));
  const Mask<D> exponents = exponent_of_bits<D>(largest), finite = exponents <= kBias;
  const Mask<D> power = clamp<D>(exponents, 1 - kBias, kBias - 1);
  const Vector<D> inverse = power_of_two<D>(-power);
  if (any<D>(~finite)) {
    for (int64_t k = 0; k < triangle(n); ++k) a[k] = finite ? a[k] * inverse : Vector<D>{};
  } else {
    for (int64_t k = 0; k < triangle(n); ++k) a[k] *= inverse;
  }
  return {power_of_two<D>(power), finite};
}

}  // namespace kronext::cpu::KRONEXT_CPU
