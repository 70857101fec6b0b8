// One operand of a product on tensor cores: how a panel of it comes into shared memory, becomes
// bfloat16 parts, and goes to the tensor cores.
//
// Layouts. mma wants both operands as [x][k] with k next to each other. Where consecutive k are
// close in memory a panel is stored [x][k] and read by plain ldmatrix; where consecutive x are, it
// is stored [k][x] as it comes and ldmatrix turns each 8 x 8 block. So no transpose is ever made.
//
// Parts. bfloat16 is used as it is, and so is float16 where both operands are. Everything else is
// a sum of bfloat16 parts, each the nearest to what is left: three hold any float32 exactly, two
// hold any float16. A thread splits what it has copied itself, so there is no barrier between copy
// and split, and each element is split once a block, not once a warp.
#pragma once

#include "csrc/cuda/operand.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

// Byte offset of 16 bytes `column` of a row of `width`: eight consecutive rows lie in eight
// different groups of banks.
template <int width>
__device__ __forceinline__ int swizzle(int row, int column) {
  constexpr int kRowsApart = width >= 8 ? 1 : 8 / width, kMask = width >= 8 ? 7 : width - 1;
  return (row * width + (column ^ (row / kRowsApart & kMask))) * 16;
}

// The bfloat16 nearest to each of two numbers, packed; leaves what is left of them.
__device__ __forceinline__ uint32_t take_part(float& low, float& high) {
  const uint32_t part = pack_bfloat16(low, high);
  low -= __uint_as_float(part << 16);
  high -= __uint_as_float(part & 0xffff0000u);
  return part;
}

template <Dtype dtype, int parts, int tile, int depth, int threads>
struct TensorOperand {
  static constexpr bool kSplits = dtype == Dtype::kFloat32 || parts > 1;
  static constexpr int kParts = parts;
  static constexpr int kBytes = dtype == Dtype::kFloat32 ? 4 : 2;  // of an element
  static constexpr int kUnit = 16 / kBytes;                        // elements in 16 bytes
  static constexpr int kUnits = tile * depth / kUnit / threads;    // of a panel, for each thread
  static constexpr int kStageBytes = tile * depth * kBytes;        // a panel as it comes
  static constexpr int kPlaneBytes = tile * depth * 2;             // one part of it
  static constexpr int kPlanesBytes = kSplits ? parts * kPlaneBytes : 0;

  static_assert(dtype != Dtype::kFloat64 && (dtype != Dtype::kBFloat16 || parts == 1) &&
                kUnits > 0 && tile * depth % (kUnit * threads) == 0);

  // ---- global to shared memory -----------------------------------------------------------------

  // Panel `panel` of x and chunk `chunk` of k, zeros beyond the rims. What is used as it is goes
  // into swizzled rows, what is to be split into slots that only this thread reads.
  template <bool transposed, class Source>
  static __device__ __forceinline__ void load(unsigned char* to, const Source& source, int panel,
                                              int chunk) {
    const Operand& operand = matrix_of(source, chunk);
    constexpr int kWidth = transposed ? tile : depth, kUnitsWide = kWidth / kUnit;
    constexpr int kRowStep = threads / kUnitsWide, kRows = kRowStep * kUnits;
    constexpr int kToStep = kSplits ? threads * 16 : kRowStep * kUnitsWide * 16;
    static_assert(threads % kUnitsWide == 0 && (kSplits || kRowStep % 8 == 0),
                  "all units of a thread have one column and one swizzle");
    const int64_t row_stride = transposed ? operand.k_stride : operand.x_stride;
    const int64_t stride = transposed ? operand.x_stride : operand.k_stride;
    const int rows = transposed ? operand.k_count : operand.x_count;
    const int length = transposed ? operand.x_count : operand.k_count;
    const int row = transposed ? chunk * depth : panel * tile;
    const int column = transposed ? panel * tile : chunk * depth;

    const int my_row = int(threadIdx.x) / kUnitsWide, my_unit = int(threadIdx.x) % kUnitsWide;
    unsigned char* mine =
        to + (kSplits ? int(threadIdx.x) * 16 : swizzle<kUnitsWide>(my_row, my_unit));
    const int first = column + my_unit * kUnit, left = length - first;
    const int valid = left < 0 ? 0 : left > kUnit ? kUnit : left;
    const auto* from = assume_global(static_cast<const unsigned char*>(operand.data)) +
                       (int64_t(row + my_row) * row_stride + int64_t(first) * stride) * kBytes;
    const int64_t from_step = kRowStep * row_stride * kBytes;
    if (!operand.vector) {
#pragma unroll 1
      for (int i = 0; i < kUnits; ++i) {
        const int count = row + my_row + i * kRowStep < rows ? valid : 0;
        load_elements(mine + i * kToStep, from + i * from_step, stride, count);
      }
    } else if (row + kRows <= rows && column + kWidth <= length) {
#pragma unroll
      for (int i = 0; i < kUnits; ++i) copy_async_16(mine + i * kToStep, from + i * from_step);
    } else {
#pragma unroll
      for (int i = 0; i < kUnits; ++i) {
        const int count = row + my_row + i * kRowStep < rows ? valid : 0;
        copy_async_16(mine + i * kToStep, from + i * from_step, count * kBytes);
      }
    }
  }

  // One unit whose elements are anywhere. No asynchronous copy is as small as two bytes.
  static __device__ __forceinline__ void load_elements(unsigned char* to, const unsigned char* from,
                                                       int64_t stride, int count) {
    if constexpr (kBytes == 4) {
#pragma unroll
      for (int j = 0; j < kUnit; ++j) {
        copy_async_4(to + 4 * j, j < count ? from + j * stride * 4 : from, j < count ? 4 : 0);
      }
    } else {
      const auto* source = reinterpret_cast<const uint16_t*>(from);
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t low = 2 * j < count ? source[2 * j * stride] : 0;
        const uint32_t high = 2 * j + 1 < count ? source[(2 * j + 1) * stride] : 0;
        words[j] = low | high << 16;
      }
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }

  // ---- parts -----------------------------------------------------------------------------------

  // This thread's slots become planes, one for each part.
  template <bool transposed>
  static __device__ __forceinline__ void split(const unsigned char* slots, unsigned char* planes) {
    constexpr int kUnitsWide = (transposed ? tile : depth) / kUnit;
    constexpr int kRowStep = threads / kUnitsWide, kUnitsOf16 = 8 / kUnit;  // of a plane's row
    const int row = int(threadIdx.x) / kUnitsWide, unit = int(threadIdx.x) % kUnitsWide;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      float rest[kUnit];
      unpack(rest, slots + (i * threads + int(threadIdx.x)) * 16);
      unsigned char* to = planes +
                          swizzle<kUnitsWide / kUnitsOf16>(row + i * kRowStep, unit / kUnitsOf16) +
                          unit % kUnitsOf16 * 8;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        uint32_t words[kUnit / 2];
#pragma unroll
        for (int j = 0; j < kUnit / 2; ++j) words[j] = take_part(rest[2 * j], rest[2 * j + 1]);
        if constexpr (kUnit == 8) {
          *reinterpret_cast<uint4*>(to + part * kPlaneBytes) =
              make_uint4(words[0], words[1], words[2], words[3]);
        } else {
          *reinterpret_cast<uint2*>(to + part * kPlaneBytes) = make_uint2(words[0], words[1]);
        }
      }
    }
  }

  static __device__ __forceinline__ void unpack(float (&values)[kUnit], const unsigned char* unit) {
    if constexpr (kBytes == 4) {
      const float4 v = *reinterpret_cast<const float4*>(unit);
      values[0] = v.x;
      values[1] = v.y;
      values[2] = v.z;
      values[3] = v.w;
    } else {
      const uint4 v = *reinterpret_cast<const uint4*>(unit);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        values[2 * j] = float16_to_float(uint16_t(words[j]));
        values[2 * j + 1] = float16_to_float(uint16_t(words[j] >> 16));
      }
    }
  }

  // ---- shared memory to tensor cores -----------------------------------------------------------

  // 16 of x from `x`, 16 of depth from `k`, as mma takes its left operand.
  template <bool transposed>
  static __device__ __forceinline__ void left_fragment(uint32_t (&a)[4], const unsigned char* plane,
                                                       int x, int k) {
    const int matrix = int(threadIdx.x) % 32 / 8, line = int(threadIdx.x) % 8;
    const int down = matrix % 2, along = matrix / 2;
    ldmatrix_x4<transposed>(
        a, transposed ? plane + swizzle<tile / 8>(k + along * 8 + line, x / 8 + down)
                      : plane + swizzle<depth / 8>(x + down * 8 + line, k / 8 + along));
  }

  // Two neighbouring right operands, 8 of x each.
  template <bool transposed>
  static __device__ __forceinline__ void right_fragments(uint32_t (&b0)[2], uint32_t (&b1)[2],
                                                         const unsigned char* plane, int x, int k) {
    const int matrix = int(threadIdx.x) % 32 / 8, line = int(threadIdx.x) % 8;
    const int down = matrix / 2, along = matrix % 2;
    uint32_t r[4];
    ldmatrix_x4<transposed>(
        r, transposed ? plane + swizzle<tile / 8>(k + along * 8 + line, x / 8 + down)
                      : plane + swizzle<depth / 8>(x + down * 8 + line, k / 8 + along));
    b0[0] = r[0];
    b0[1] = r[1];
    b1[0] = r[2];
    b1[1] = r[3];
  }
};

}  // namespace kronext::cuda
