// Tiles of X XT on tensor cores: bfloat16 and float16 as they are, float32 as a sum of bfloat16
// parts.
//
// Layouts. mma wants the left operand as [x][k] and the right one as [x'][k], both with k next to
// each other, and both are rows of X. Where consecutive k are close in memory X is stored [x][k]
// and read by plain ldmatrix; where consecutive x are, it is stored [k][x] as it comes and ldmatrix
// turns each 8 x 8 block. So no transpose is ever made, and on the diagonal one operand serves as
// both.
//
// Sums. Tensor cores round every sum towards zero, and all terms of a diagonal entry are positive:
// a long sum left in their accumulator comes out too small (by 5.7e-5 at a depth of 8192). So at
// most 32 of depth are summed there, small products first, and then added by an ordinary float32
// addition.
//
// float32. x = high + middle + low, each part the bfloat16 nearest to what is left. Six of the nine
// products of parts are as accurate as float32. A thread splits what it has copied itself, so there
// is no barrier between copy and split, and each element is split once a block, not once a warp.
#pragma once

#include "csrc/core/outer_schedule.h"
#include "csrc/cuda/outer_task.cuh"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

template <Dtype dtype, int parts, int tile, int depth, int warp_rows, int warp_columns, int stages,
          int blocks>
struct TensorTile {
  using Value = float;
  static constexpr int kTile = tile, kDepth = depth, kThreads = 32 * warp_rows * warp_columns;
  static constexpr int kBlocks = blocks;  // on a multiprocessor
  static constexpr bool kSplits = dtype == Dtype::kFloat32;
  static constexpr Half kHalf = dtype == Dtype::kFloat16 ? Half::kFloat16 : Half::kBFloat16;
  static constexpr int kBytes = kSplits ? 4 : 2,
                       kUnit = 16 / kBytes;  // of an element; elements in 16 bytes
  static constexpr int kUnits = tile * depth / kUnit / kThreads;  // of one operand, for each thread
  static constexpr int kRowTiles = tile / warp_rows / 16, kColumnTiles = tile / warp_columns / 8;
  static constexpr int kSums = kRowTiles * kColumnTiles * 4;

  static constexpr int kPlaneBytes = tile * depth * 2;  // one part of one operand
  static constexpr int kOperandBytes = tile * depth * kBytes, kStageBytes = 2 * kOperandBytes;
  static constexpr int kPlanes = parts * kPlaneBytes;  // all parts of one operand
  static constexpr int kLoopBytes = stages * kStageBytes + (kSplits ? 4 * kPlanes : 0);
  static constexpr int kTileBytes = tile * tile * 4;
  // A gradient that is one tile and one chunk is read once and serves both sides.
  static constexpr bool kPairs = !kSplits && tile == depth;
  static constexpr int kPairBytes = kTileBytes + (kPairs ? kPlaneBytes : 0);
  static constexpr int kSharedBytes = kLoopBytes > kPairBytes ? kLoopBytes : kPairBytes;

  static_assert(kSplits || parts == 1, "16-bit numbers are exact in one part");
  static_assert(tile * depth % (kUnit * kThreads) == 0 && tile % (16 * warp_rows) == 0 &&
                tile % (16 * warp_columns) == 0 && depth % 16 == 0);

  using Sums = float[kRowTiles][kColumnTiles][4];

  // Byte offset of 16 bytes `column` of a row of `width`: eight consecutive rows lie in eight
  // different groups of banks.
  template <int width>
  static __device__ __forceinline__ int swizzle(int row, int column) {
    constexpr int kRowsApart = width >= 8 ? 1 : 8 / width, kMask = width >= 8 ? 7 : width - 1;
    return (row * width + (column ^ (row / kRowsApart & kMask))) * 16;
  }

  // Index into the tile of the epilogue: fragment writes, row and column reads are free of
  // conflicts.
  static __device__ __forceinline__ int tile_index(int row, int column) {
    return row * tile + (column ^ (((row >> 2 & 7) ^ (row & 3) << 1) << 2));
  }

  static __device__ __forceinline__ int warp_row() {
    return int(threadIdx.x) / 32 / warp_columns * (tile / warp_rows);
  }
  static __device__ __forceinline__ int warp_column() {
    return int(threadIdx.x) / 32 % warp_columns * (tile / warp_columns);
  }

  // ---- global to shared memory
  // ---------------------------------------------------------------------

  // Elements [row, row + rows) x [column, column + width) of the operand, zeros beyond its rims.
  // 16-bit: into swizzled rows. float32: into slots that only this thread reads.
  template <bool transposed, bool vector>
  static __device__ __forceinline__ void load(unsigned char* to, const Operand& x, int row,
                                              int column) {
    constexpr int kWidth = transposed ? tile : depth, kUnitsWide = kWidth / kUnit;
    constexpr int kRowStep = kThreads / kUnitsWide, kRows = kRowStep * kUnits;
    constexpr int kToStep = kSplits ? kThreads * 16 : kRowStep * kUnitsWide * 16;
    static_assert(kThreads % kUnitsWide == 0 && (kSplits || kRowStep % 8 == 0),
                  "all units of a thread have one column and one swizzle");
    const int my_row = int(threadIdx.x) / kUnitsWide, my_unit = int(threadIdx.x) % kUnitsWide;
    unsigned char* mine =
        to + (kSplits ? int(threadIdx.x) * 16 : swizzle<kUnitsWide>(my_row, my_unit));
    const int first = column + my_unit * kUnit, left = x.length - first;
    const int valid = left < 0 ? 0 : left > kUnit ? kUnit : left;
    const unsigned char* from =
        x.data + (int64_t(row + my_row) * x.row_stride + int64_t(first) * x.stride) * kBytes;
    const int64_t from_step = kRowStep * x.row_stride * kBytes;
    if (vector && row + kRows <= x.rows && column + kWidth <= x.length) {
#pragma unroll
      for (int i = 0; i < kUnits; ++i) copy_async_16(mine + i * kToStep, from + i * from_step);
      return;
    }
#pragma unroll(vector ? kUnits : 1)
    for (int i = 0; i < kUnits; ++i) {
      const int count = row + my_row + i * kRowStep < x.rows ? valid : 0;
      if constexpr (vector) {
        copy_async_16(mine + i * kToStep, from + i * from_step, count * kBytes);
      } else {
        load_elements(mine + i * kToStep, from + i * from_step, x.stride, count);
      }
    }
  }

  // One unit whose elements are anywhere. No asynchronous copy is as small as two bytes.
  static __device__ __forceinline__ void load_elements(unsigned char* to, const unsigned char* from,
                                                       int64_t stride, int count) {
    if constexpr (kSplits) {
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

  // This thread's float32 slots become bfloat16 planes.
  template <bool transposed>
  static __device__ __forceinline__ void split(const unsigned char* slots, unsigned char* planes) {
    constexpr int kUnitsWide = (transposed ? tile : depth) / 4, kRowStep = kThreads / kUnitsWide;
    const int row = int(threadIdx.x) / kUnitsWide, unit = int(threadIdx.x) % kUnitsWide;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      const float4 v =
          *reinterpret_cast<const float4*>(slots + (i * kThreads + int(threadIdx.x)) * 16);
      float rest[4] = {v.x, v.y, v.z, v.w};
      unsigned char* to =
          planes + swizzle<kUnitsWide / 2>(row + i * kRowStep, unit / 2) + unit % 2 * 8;
#pragma unroll
      for (int part = 0; part < parts; ++part) {
        const uint2 rounded =
            make_uint2(pack_bfloat16(rest[0], rest[1]), pack_bfloat16(rest[2], rest[3]));
        *reinterpret_cast<uint2*>(to + part * kPlaneBytes) = rounded;
        rest[0] -= __uint_as_float(rounded.x << 16);
        rest[1] -= __uint_as_float(rounded.x & 0xffff0000u);
        rest[2] -= __uint_as_float(rounded.y << 16);
        rest[3] -= __uint_as_float(rounded.y & 0xffff0000u);
      }
    }
  }

  // ---- shared memory to tensor cores
  // -----------------------------------------------------------------

  // 16 rows from `row`, 16 of depth from `k`, as mma takes its left operand.
  template <bool transposed>
  static __device__ __forceinline__ void left_fragment(uint32_t (&a)[4], const unsigned char* plane,
                                                       int row, int k) {
    const int matrix = int(threadIdx.x) % 32 / 8, line = int(threadIdx.x) % 8;
    const int down = matrix % 2, along = matrix / 2;
    ldmatrix_x4<transposed>(
        a, transposed ? plane + swizzle<tile / 8>(k + along * 8 + line, row / 8 + down)
                      : plane + swizzle<depth / 8>(row + down * 8 + line, k / 8 + along));
  }

  // Two neighbouring right operands, 8 columns each.
  template <bool transposed>
  static __device__ __forceinline__ void right_fragments(uint32_t (&b0)[2], uint32_t (&b1)[2],
                                                         const unsigned char* plane, int column,
                                                         int k) {
    const int matrix = int(threadIdx.x) % 32 / 8, line = int(threadIdx.x) % 8;
    const int down = matrix / 2, along = matrix % 2;
    uint32_t r[4];
    ldmatrix_x4<transposed>(
        r, transposed ? plane + swizzle<tile / 8>(k + along * 8 + line, column / 8 + down)
                      : plane + swizzle<depth / 8>(column + down * 8 + line, k / 8 + along));
    b0[0] = r[0];
    b0[1] = r[1];
    b1[0] = r[2];
    b1[1] = r[3];
  }

  // The products of parts that are made, small ones first. Of nine, the three smallest are left
  // out; of four, none, because only the whole square of a rounded number is positive
  // semi-definite.
  static constexpr int kProducts = parts == 3 ? 6 : parts * parts;
  struct PartPair {
    int left, right;
  };
  static __device__ constexpr PartPair part_pair(int i) {
    constexpr PartPair kThree[6] = {{0, 2}, {2, 0}, {1, 1}, {0, 1}, {1, 0}, {0, 0}};
    constexpr PartPair kTwo[4] = {{1, 1}, {0, 1}, {1, 0}, {0, 0}};
    return parts == 3 ? kThree[i] : parts == 2 ? kTwo[i] : PartPair{0, 0};
  }

  template <bool transposed>
  static __device__ __forceinline__ void multiply(Sums& sums, const unsigned char* left,
                                                  const unsigned char* right) {
    constexpr int kFlush = depth < 32 ? depth / 16 : 2;  // steps of 16 that stay in the tensor core
    constexpr int kTogether =
        kColumnTiles < 4 ? kColumnTiles : 4;  // sums in flight hide the latency
    const int row = warp_row(), column = warp_column();
#pragma unroll
    for (int k0 = 0; k0 < depth / 16; k0 += kFlush) {
      uint32_t b[kFlush][parts][kColumnTiles][2];
#pragma unroll
      for (int k = 0; k < kFlush; ++k) {
#pragma unroll
        for (int part = 0; part < parts; ++part) {
#pragma unroll
          for (int j = 0; j < kColumnTiles; j += 2) {
            right_fragments<transposed>(b[k][part][j], b[k][part][j + 1],
                                        right + part * kPlaneBytes, column + j * 8, (k0 + k) * 16);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        uint32_t a[kFlush][parts][4];
#pragma unroll
        for (int k = 0; k < kFlush; ++k) {
#pragma unroll
          for (int part = 0; part < parts; ++part) {
            left_fragment<transposed>(a[k][part], left + part * kPlaneBytes, row + i * 16,
                                      (k0 + k) * 16);
          }
        }
#pragma unroll
        for (int j0 = 0; j0 < kColumnTiles; j0 += kTogether) {
          float fresh[kTogether][4] = {};
#pragma unroll
          for (int product = 0; product < kProducts; ++product) {
#pragma unroll
            for (int k = 0; k < kFlush; ++k) {
#pragma unroll
              for (int j = 0; j < kTogether; ++j) {
                mma_m16n8k16<kHalf>(fresh[j], a[k][part_pair(product).left],
                                    b[k][part_pair(product).right][j0 + j]);
              }
            }
          }
#pragma unroll
          for (int j = 0; j < kTogether; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[i][j0 + j][e] += fresh[j][e];
          }
        }
      }
    }
  }

  // ---- the loop over the depth
  // -------------------------------------------------------------------------

  static __device__ __forceinline__ void accumulate(Sums& sums, unsigned char* shared,
                                                    const OuterTask& task, const OuterStep& step) {
    if (task.transposed) {
      if (task.vector) {
        accumulate_chunks<true, true>(sums, shared, operand_of(task, true), step);
      } else {
        accumulate_chunks<true, false>(sums, shared, operand_of(task, true), step);
      }
    } else {
      if (task.vector) {
        accumulate_chunks<false, true>(sums, shared, operand_of(task, false), step);
      } else {
        accumulate_chunks<false, false>(sums, shared, operand_of(task, false), step);
      }
    }
  }

  template <bool transposed, bool vector>
  static __device__ __forceinline__ void load_chunk(unsigned char* to, const Operand& x, int panel,
                                                    int chunk) {
    load<transposed, vector>(to, x, transposed ? chunk * depth : panel * tile,
                             transposed ? panel * tile : chunk * depth);
  }

  // The loop starts early and only copies then, so that the copies are compiled once, not in a
  // prologue too. It always commits, so that the number of groups on their way stays the same.
  template <bool transposed, bool vector>
  static __device__ __forceinline__ void accumulate_chunks(Sums& sums, unsigned char* shared,
                                                           const Operand& x,
                                                           const OuterStep& step) {
    constexpr int kLead = kSplits ? stages : stages - 1;
    const int chunks = step.last_chunk - step.first_chunk;
    const bool diagonal = step.row == step.column;
    unsigned char* const planes = shared + stages * kStageBytes;
    int in = 0, out = 0;  // byte offsets of stages
    const auto next = [](int at) {
      return at + kStageBytes == stages * kStageBytes ? 0 : at + kStageBytes;
    };
    const auto copy = [&](int i) {
      if (i < chunks) {
        load_chunk<transposed, vector>(shared + in, x, step.row, step.first_chunk + i);
        if (!diagonal) {
          load_chunk<transposed, vector>(shared + in + kOperandBytes, x, step.column,
                                         step.first_chunk + i);
        }
        in = next(in);
      }
      copy_async_commit();
    };
#pragma unroll 1
    for (int i = -kLead; i < chunks; ++i) {
      if constexpr (kSplits) {
        // Planes of odd and even chunks: these were last read two chunks ago, before the last
        // barrier.
        unsigned char* const left = planes + (i & 1) * 2 * kPlanes;
        unsigned char* const right = diagonal ? left : left + kPlanes;
        if (i >= 0) {
          copy_async_wait<stages - 1>();
          split<transposed>(shared + out, left);
          if (!diagonal) split<transposed>(shared + out + kOperandBytes, right);
          out = next(out);
        }
        copy(i + kLead);  // into the slots that this thread has just read
        if (i < 0) continue;
        __syncthreads();
        multiply<transposed>(sums, left, right);
      } else {
        if (i >= 0) {
          copy_async_wait<stages - 2>();
          __syncthreads();  // chunk i has come, and all are done with the stage of chunk i - 1
        }
        copy(i + kLead);
        if (i < 0) continue;
        multiply<transposed>(sums, shared + out, shared + out + (diagonal ? 0 : kOperandBytes));
        out = next(out);
      }
    }
    copy_async_wait<0>();
  }

  // All of X, for both sides of a pair, behind the tile of the epilogue.
  static __device__ __forceinline__ void load_pair(unsigned char* shared, const OuterTask& task) {
    if (task.vector) {
      load<false, true>(shared + kTileBytes, operand_of(task, false), 0, 0);
    } else {
      load<false, false>(shared + kTileBytes, operand_of(task, false), 0, 0);
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
  }

  static __device__ __forceinline__ void multiply_pair(Sums& sums, const unsigned char* shared,
                                                       bool transposed) {
    const unsigned char* const x = shared + kTileBytes;
    if (transposed) {
      multiply<true>(sums, x, x);
    } else {
      multiply<false>(sums, x, x);
    }
  }

  static __device__ __forceinline__ void spill(const Sums& sums, float* to) {
    const int group = int(threadIdx.x) % 32 / 4, member = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = warp_row() + i * 16 + half * 8 + group;
          const int column = warp_column() + j * 8 + 2 * member;
          *reinterpret_cast<float2*>(to + tile_index(row, column)) =
              make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
        }
      }
    }
  }
};

}  // namespace kronext::cuda
