// Lanes across matrices: element (i, j) of kEighLanes matrices is one float64 vector.
//
// The serial part of an eigensolver (tridiagonalisation, QL recurrences) has no parallelism to
// speak of in one small matrix; in lanes every instruction works on as many matrices as a vector
// has lanes. Only lower triangles are kept, row by row: row i holds i + 1 vectors.
#pragma once

#include "csrc/cpu/simd.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace kronext::cpu::KRONEXT_CPU {

using Lane = Vector<double>;
using LaneMask = Mask<double>;

constexpr int kEighLanes = kLanes<double>;
// Lane vectors whose QL recurrences run interleaved: each is one long chain of dependent
// operations.
constexpr int kEighGroups = 4;
constexpr int kEighMatrices = kEighGroups * kEighLanes;

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

// floor(log2 x) of x >= 0: at most -1023 for zero and denormals, 1024 for infinity and NaN.
KRONEXT_INLINE LaneMask exponent(LaneMask bits) { return (bits >> 52) - 1023; }
KRONEXT_INLINE LaneMask exponent(Lane x) { return exponent(reinterpret_cast<LaneMask>(x)); }
// 2^power for -1022 <= power <= 1023.
KRONEXT_INLINE Lane power_of_two(LaneMask power) {
  return reinterpret_cast<Lane>((power + 1023) << 52);
}
KRONEXT_INLINE LaneMask clamp(LaneMask x, int64_t low, int64_t high) {
  const LaneMask lows = low - LaneMask{}, highs = high - LaneMask{};
  x = x < lows ? lows : x;
  return x > highs ? highs : x;
}

KRONEXT_INLINE Lane dot(const Lane* x, const Lane* y, int64_t n) {
  Lane sum[4] = {};
  int64_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (int u = 0; u < 4; ++u) sum[u] += x[j + u] * y[j + u];
  for (; j < n; ++j) sum[0] += x[j] * y[j];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Rows of `kEighLanes` matrices to lanes. Blocks of a row may reach beyond the diagonal, into
// vectors that the next row overwrites.
template <class T>
void pack_lower(const T* const* matrices, int64_t n, int64_t row_stride, Lane* a) {
  Lane block[kEighLanes];
  for (int64_t i = 0; i < n; ++i) {
    Lane* row = a + triangle(i);
    if (n < kEighLanes) {
      for (int64_t j = 0; j <= i; ++j)
        for (int lane = 0; lane < kEighLanes; ++lane)
          row[j][lane] = double(matrices[lane][i * row_stride + j]);
      continue;
    }
    for (int64_t j = 0; j <= i; j += kEighLanes) {
      const int64_t first = minimum<int64_t>(j, n - kEighLanes);
#pragma GCC unroll 8
      for (int lane = 0; lane < kEighLanes; ++lane)
        block[lane] = convert<double, T, kEighLanes>(
            load<T, kEighLanes>(matrices[lane] + i * row_stride + first));
      Transpose<double>::run(block);
#pragma GCC unroll 8
      for (int q = 0; q < kEighLanes; ++q) row[first + q] = block[q];
    }
  }
}

struct Scaling {
  Lane scale;       // a power of two: matrix = scale * packed matrix
  LaneMask finite;  // of the matrix; a matrix that is not is packed as zero
};

// Divides each matrix by the power of two that brings its largest entry to [1, 2) (or as near as
// float64 can), so that squares neither overflow nor vanish. A NaN would keep its lane from ever
// converging and hold up the others, therefore it goes here.
inline Scaling normalize(Lane* a, int64_t n) {
  LaneMask largest{};  // as bits, whose order is that of the magnitudes, with NaN above infinity
  for (int64_t k = 0; k < triangle(n); ++k)
    largest = maximum(largest, reinterpret_cast<LaneMask>(absolute<double>(a[k])));
  const LaneMask finite = exponent(largest) < 1024;
  const LaneMask power = clamp(exponent(largest), -1022, 1022);
  const Lane inverse = power_of_two(-power);
  if (any<double>(~finite)) {
    for (int64_t k = 0; k < triangle(n); ++k) a[k] = finite ? a[k] * inverse : Lane{};
  } else {
    for (int64_t k = 0; k < triangle(n); ++k) a[k] *= inverse;
  }
  return {power_of_two(power), finite};
}

}  // namespace kronext::cpu::KRONEXT_CPU
