// What a kernel must know of one side, in device memory.
#pragma once

#include "csrc/core/matrix.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

// In both precisions, so that a float32 kernel has no float64 instruction.
struct Scalar {
  double in_double;
  float in_float;

  template <class T>
  __device__ __forceinline__ T as() const {
    if constexpr (sizeof(T) == sizeof(double)) {
      return in_double;
    } else {
      return in_float;
    }
  }
};

struct alignas(16) OuterTask {
  const void* x;
  int64_t row_stride, column_stride;  // in elements
  void* factor;
  void* second_factor;  // of XT X, made from the same read of X; null without
  int32_t rows, columns;
  int32_t panels, chunks;
  Dtype dtype, factor_dtype;
  int8_t transposed;     // consecutive rows lie closer in memory than consecutive columns
  int8_t vector;         // x can be copied in 16-byte pieces along that direction
  int8_t factor_vector;  // rows of the factor can be read and written in 16-byte pieces
  int8_t second_vector;
  Scalar decay, weight;
};

// X as the rows that shared memory holds: its own, or its columns where they are closer in memory.
struct Operand {
  const unsigned char* data;
  int64_t row_stride, stride;  // between rows, and inside one
  int rows, length;
};

__device__ __forceinline__ Operand operand_of(const OuterTask& task, bool transposed) {
  const auto* data = assume_global(static_cast<const unsigned char*>(task.x));
  return transposed ? Operand{data, task.column_stride, task.row_stride, task.columns, task.rows}
                    : Operand{data, task.row_stride, task.column_stride, task.rows, task.columns};
}

}  // namespace kronext::cuda
