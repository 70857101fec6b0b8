// A strided matrix of any of the package's dtypes, as every kernel takes it.
#pragma once

#include <stdint.h>

#include "csrc/core/host_device.h"

namespace kronext {

enum class Dtype : int32_t { kFloat64, kFloat32, kBFloat16, kFloat16 };

KRONEXT_HOST_DEVICE int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

// Element (i, j) lies at data[i * row_stride + j * column_stride]; strides in elements.
struct Matrix {
  void* data;
  Dtype dtype;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  int64_t column_stride;

  KRONEXT_HOST_DEVICE Matrix transposed() const {
    return {data, dtype, columns, rows, column_stride, row_stride};
  }
};

}  // namespace kronext
