// A tile of a product in float64 on the ordinary units, for operands of any dtype: the interface of
// TensorTile. Each thread sums 4 x 4 entries.
#pragma once

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/operand.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

__device__ __forceinline__ double load_double(const unsigned char* x, Dtype dtype, int64_t index) {
  switch (dtype) {
    case Dtype::kFloat64:
      return reinterpret_cast<const double*>(x)[index];
    case Dtype::kFloat32:
      return double(reinterpret_cast<const float*>(x)[index]);
    case Dtype::kBFloat16:
      return double(bfloat16_to_float(reinterpret_cast<const uint16_t*>(x)[index]));
    case Dtype::kFloat16:
      break;
  }
  return double(float16_to_float(reinterpret_cast<const uint16_t*>(x)[index]));
}

struct DoubleTile {
  using Value = double;
  static constexpr int kTile = 64, kDepth = 16, kThreads = 256, kBlocks = 2;
  static constexpr int kSide = 4, kLanes = kTile / kSide, kSums = kSide * kSide;
  static constexpr int kPitch = kTile + 1;  // rows of shared memory start in different banks
  static constexpr int kOperand = kDepth * kPitch;
  static constexpr int kTileBytes = kTile * kPitch * int(sizeof(double));
  static constexpr int kLoopBytes = 2 * kOperand * int(sizeof(double));
  static constexpr int kSharedBytes = kTileBytes > kLoopBytes ? kTileBytes : kLoopBytes;

  using Sums = double[kSide][kSide];

  static __device__ __forceinline__ int tile_index(int row, int column) {
    return row * kPitch + column;
  }

  // A panel as [k][x]; neighbouring threads read what is close in memory.
  template <class Source>
  static __device__ __forceinline__ void load(double* to, const Source& source, int panel,
                                              int chunk) {
    const Operand& operand = matrix_of(source, chunk);
    const auto* data = assume_global(static_cast<const unsigned char*>(operand.data));
    for (int i = int(threadIdx.x); i < kTile * kDepth; i += kThreads) {
      const int row = operand.transposed ? i % kTile : i / kDepth;
      const int column = operand.transposed ? i / kTile : i % kDepth;
      const int x = panel * kTile + row, k = chunk * kDepth + column;
      const bool inside = x < operand.x_count && k < operand.k_count;
      to[column * kPitch + row] =
          inside ? load_double(data, operand.dtype, x * operand.x_stride + k * operand.k_stride)
                 : 0.0;
    }
  }

  template <class LeftOperand, class RightOperand>
  static __device__ __forceinline__ void accumulate(Sums& sums, unsigned char* shared,
                                                    const LeftOperand& left,
                                                    const RightOperand& right,
                                                    const TileStep& step) {
    accumulate_chunks(sums, shared, left, right, step, false);
  }

  // sums += x xT: on the diagonal one panel serves as both.
  static __device__ __forceinline__ void accumulate_square(Sums& sums, unsigned char* shared,
                                                           const Operand& x, const TileStep& step) {
    accumulate_chunks(sums, shared, x, x, step, step.row == step.column);
  }

  template <class LeftOperand, class RightOperand>
  static __device__ __forceinline__ void accumulate_chunks(Sums& sums, unsigned char* shared,
                                                           const LeftOperand& left_operand,
                                                           const RightOperand& right_operand,
                                                           const TileStep& step, bool diagonal) {
    double* const left = reinterpret_cast<double*>(shared);
    double* const right = left + (diagonal ? 0 : kOperand);
    const int row = int(threadIdx.x) / kLanes, column = int(threadIdx.x) % kLanes;
    for (int chunk = step.first_chunk; chunk < step.last_chunk; ++chunk) {
      load(left, left_operand, step.row, chunk);
      if (!diagonal) load(right, right_operand, step.column, chunk);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        double a[kSide], b[kSide];
#pragma unroll
        for (int i = 0; i < kSide; ++i) a[i] = left[k * kPitch + row + i * kLanes];
#pragma unroll
        for (int j = 0; j < kSide; ++j) b[j] = right[k * kPitch + column + j * kLanes];
#pragma unroll
        for (int i = 0; i < kSide; ++i) {
#pragma unroll
          for (int j = 0; j < kSide; ++j) sums[i][j] = fma(a[i], b[j], sums[i][j]);
        }
      }
      __syncthreads();
    }
  }

  static __device__ __forceinline__ void spill(const Sums& sums, double* to) {
    const int row = int(threadIdx.x) / kLanes, column = int(threadIdx.x) % kLanes;
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
#pragma unroll
      for (int j = 0; j < kSide; ++j) {
        to[tile_index(row + i * kLanes, column + j * kLanes)] = sums[i][j];
      }
    }
  }
};

}  // namespace kronext::cuda
