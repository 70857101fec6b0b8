// Bringing the matrices of the next problem into the cache while this one is computed.
#pragma once

#include "csrc/core/matrix.h"

namespace kronext {

struct Operand {
  Matrix matrix;
  bool written;
};

// A problem names at most this many.
constexpr int kMaxOperands = 4;

static inline int64_t bytes_of(const Matrix& m) { return m.rows * m.columns * bytes_of(m.dtype); }

// Slice `slice` of `slices` of the operand's rows (of its columns where they are what is
// contiguous). Other strides are left to the caches.
static inline void prefetch_slice(const Operand& operand, int64_t slice, int64_t slices) {
  const Matrix m = operand.matrix.column_stride == 1 ? operand.matrix : operand.matrix.transposed();
  if (!m.data || m.column_stride != 1) return;
  asm volatile("");  // gcc 12 leaves out calls of functions that do nothing but prefetch
  constexpr int64_t kLine = 64;
  const int64_t item = bytes_of(m.dtype), last = m.rows * (slice + 1) / slices;
  for (int64_t row = m.rows * slice / slices; row < last; ++row) {
    const char* begin = static_cast<const char*>(m.data) + row * m.row_stride * item;
    const char* const end = begin + m.columns * item;
    for (; begin < end; begin += kLine) {
      if (operand.written) {
        __builtin_prefetch(begin, 1, 2);
      } else {
        __builtin_prefetch(begin, 0, 2);
      }
    }
  }
}

}  // namespace kronext
