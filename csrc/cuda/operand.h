// One operand of a product, as a table in device memory describes it.
//
// A product sums left(x, k) right(y, k) over k: both operands are seen as rows x (or y) along k, so
// A B has the operands A and BT, and X XT has the same operand twice.
#pragma once

#include <stdint.h>

#include "csrc/core/matrix.h"

namespace kronext::cuda {

struct alignas(16) Operand {
  const void* data;
  int64_t x_stride, k_stride;  // in elements
  int32_t x_count, k_count;
  Dtype dtype;
  int8_t transposed;  // consecutive x lie closer in memory than consecutive k
  int8_t vector;      // can be copied in 16-byte pieces along that direction
};

// Operands whose k runs through many matrices, one after the other; a chunk of k lies in one of
// them.
struct alignas(16) SampledOperand : Operand {
  int64_t stride_bytes;  // from one matrix to the next
  int32_t chunks;        // of each
};

// The matrix that a chunk lies in, where the chunk then counts.
KRONEXT_HOST_DEVICE const Operand& matrix_of(const Operand& operand, int&) { return operand; }
KRONEXT_HOST_DEVICE Operand matrix_of(const SampledOperand& operand, int& chunk) {
  const int index = chunk / operand.chunks;
  chunk -= index * operand.chunks;
  Operand matrix = operand;
  matrix.data = static_cast<const char*>(operand.data) + index * operand.stride_bytes;
  return matrix;
}

// Whether rows so far apart all begin at multiples of 16 bytes.
inline bool has_aligned_rows(const void* data, int64_t step_bytes) {
  return uintptr_t(data) % 16 == 0 && step_bytes % 16 == 0;
}

// Whether consecutive rows are closer in memory than consecutive columns.
inline bool runs_down(const Matrix& x) {
  if (x.columns <= 1) return x.rows > 1;
  return x.rows > 1 && x.row_stride < x.column_stride;
}

// The operand whose x are the rows of a matrix, and its k the columns.
inline Operand make_operand(const Matrix& m, bool transposed) {
  Operand operand = {};
  operand.data = m.data;
  // A dimension of length 1 has no step that matters.
  operand.x_stride = m.rows > 1 ? m.row_stride : 0;
  operand.k_stride = m.columns > 1 ? m.column_stride : 0;
  operand.x_count = int32_t(m.rows);
  operand.k_count = int32_t(m.columns);
  operand.dtype = m.dtype;
  operand.transposed = transposed;
  const int64_t along = transposed ? operand.x_stride : operand.k_stride;
  const int64_t across = transposed ? operand.k_stride : operand.x_stride;
  const int64_t length = transposed ? m.rows : m.columns;
  operand.vector =
      (along == 1 || length == 1) && has_aligned_rows(m.data, across * bytes_of(m.dtype));
  return operand;
}

inline Operand make_operand(const Matrix& m) { return make_operand(m, runs_down(m)); }

}  // namespace kronext::cuda
