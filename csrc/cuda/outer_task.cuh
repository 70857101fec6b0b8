// What a kernel must know of one side, in device memory.
#pragma once

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/operand.h"

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
  Operand x;
  TileGrid grid;
  void* factor;
  void* second_factor;  // of XT X, made from the same read of X; null without
  Dtype factor_dtype;
  int8_t factor_vector;  // rows of the factor can be read and written in 16-byte pieces
  int8_t second_vector;
  Scalar decay, weight;
};

}  // namespace kronext::cuda
