// A tile of a product on tensor cores: sums(x, y) of left(x, k) right(y, k) over k, for two
// operands (operand.h) or for one that is both.
//
// Sums. Tensor cores round every sum towards zero: a long sum left in their accumulator comes out
// too small (a diagonal entry of X XT by 5.7e-5 at a depth of 8192). So at most 32 of depth are
// summed there, small products of parts first, and then added by an ordinary float32 addition.
//
// Products of parts. Part i is 2^-9i of the number at most, so the product of part i of one operand
// and part j of the other counts as much as any with the same i + j. All with i + j <= order are
// made. Up to the last part of the longer operand they are as accurate as its parts: six products
// of three parts with three, five with two, three with one.
//
// The loop. Copies of `lead` chunks are on their way while one is multiplied. Chunks that are split
// wait in slots that only the thread that reads them writes, so `lead` slots are enough; a chunk
// that is used as it comes needs one more.
#pragma once

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/tensor_operand.cuh"

namespace kronext::cuda {

template <int tile, int depth, int warp_rows, int warp_columns, int lead, int blocks>
struct TileShape {
  static constexpr int kTile = tile, kDepth = depth, kThreads = 32 * warp_rows * warp_columns;
  static constexpr int kWarpRows = warp_rows, kWarpColumns = warp_columns;
  static constexpr int kLead = lead;
  static constexpr int kBlocks = blocks;  // on a multiprocessor
};

// The products of parts, small ones first.
struct PartPair {
  int left, right;
};
template <int left_parts, int right_parts, int order>
struct PartPairs {
  int count = 0;
  PartPair pair[left_parts * right_parts] = {};

  constexpr PartPairs() {
    for (int sum = order; sum >= 0; --sum) {
      for (int left = 0; left < left_parts; ++left) {
        const int right = sum - left;
        if (right >= 0 && right < right_parts) pair[count++] = {left, right};
      }
    }
  }
};

constexpr int last_part(int left_parts, int right_parts) {
  return (left_parts > right_parts ? left_parts : right_parts) - 1;
}

template <class Shape, Dtype left_dtype, int left_parts, Dtype right_dtype, int right_parts,
          int order = last_part(left_parts, right_parts)>
struct TensorTile {
  using Value = float;
  static constexpr int kTile = Shape::kTile, kDepth = Shape::kDepth, kThreads = Shape::kThreads;
  static constexpr int kBlocks = Shape::kBlocks;
  using Left = TensorOperand<left_dtype, left_parts, kTile, kDepth, kThreads>;
  using Right = TensorOperand<right_dtype, right_parts, kTile, kDepth, kThreads>;
  static constexpr Half kHalf =
      Left::kSplits || left_dtype == Dtype::kBFloat16 ? Half::kBFloat16 : Half::kFloat16;
  static_assert(kHalf == (Right::kSplits || right_dtype == Dtype::kBFloat16 ? Half::kBFloat16
                                                                            : Half::kFloat16),
                "tensor cores multiply numbers of one kind");

  static constexpr int kRowTiles = kTile / Shape::kWarpRows / 16;
  static constexpr int kColumnTiles = kTile / Shape::kWarpColumns / 8;
  static constexpr int kSums = kRowTiles * kColumnTiles * 4;
  static_assert(kTile % (16 * Shape::kWarpRows) == 0 && kTile % (16 * Shape::kWarpColumns) == 0 &&
                kDepth % 16 == 0);

  static constexpr int kStageBytes = Left::kStageBytes + Right::kStageBytes;
  static constexpr int kPlanesBytes = Left::kPlanesBytes + Right::kPlanesBytes;
  static constexpr int kStages = Shape::kLead + (Left::kSplits && Right::kSplits ? 0 : 1);
  static constexpr int kLoopBytes = kStages * kStageBytes + 2 * kPlanesBytes;
  static constexpr int kTileBytes = kTile * kTile * 4;
  static constexpr int kSharedBytes = kLoopBytes > kTileBytes ? kLoopBytes : kTileBytes;

  using Sums = float[kRowTiles][kColumnTiles][4];

  // Index into a tile in shared memory: fragment writes, row and column reads are free of
  // conflicts.
  static __device__ __forceinline__ int tile_index(int row, int column) {
    return row * kTile + (column ^ (((row >> 2 & 7) ^ (row & 3) << 1) << 2));
  }

  static __device__ __forceinline__ int warp_row() {
    return int(threadIdx.x) / 32 / Shape::kWarpColumns * (kTile / Shape::kWarpRows);
  }
  static __device__ __forceinline__ int warp_column() {
    return int(threadIdx.x) / 32 % Shape::kWarpColumns * (kTile / Shape::kWarpColumns);
  }

  // ---- products --------------------------------------------------------------------------------

  // sums += left right over one chunk. left_fragment(a, part, i, k) gives row tile i at depth k,
  // right_fragments(b0, b1, part, j, k) column tiles j and j + 1.
  template <int unroll = kDepth / 16, class LeftFragment, class RightFragments>
  static __device__ __forceinline__ void multiply_fragments(Sums& sums,
                                                            const LeftFragment& left_fragment,
                                                            const RightFragments& right_fragments) {
    constexpr PartPairs<left_parts, right_parts, order> kPairs;
    constexpr int kFlush = kDepth < 32 ? kDepth / 16 : 2;  // steps of 16 that stay in tensor cores
    constexpr int kTogether =
        kColumnTiles < 4 ? kColumnTiles : 4;  // sums in flight hide the latency
#pragma unroll(unroll)
    for (int k0 = 0; k0 < kDepth / 16; k0 += kFlush) {
      uint32_t b[kFlush][right_parts][kColumnTiles][2];
#pragma unroll
      for (int k = 0; k < kFlush; ++k) {
#pragma unroll
        for (int part = 0; part < right_parts; ++part) {
#pragma unroll
          for (int j = 0; j < kColumnTiles; j += 2) {
            right_fragments(b[k][part][j], b[k][part][j + 1], part, j, (k0 + k) * 16);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        uint32_t a[kFlush][left_parts][4];
#pragma unroll
        for (int k = 0; k < kFlush; ++k) {
#pragma unroll
          for (int part = 0; part < left_parts; ++part) {
            left_fragment(a[k][part], part, i, (k0 + k) * 16);
          }
        }
#pragma unroll
        for (int j0 = 0; j0 < kColumnTiles; j0 += kTogether) {
          float fresh[kTogether][4] = {};
#pragma unroll
          for (int product = 0; product < kPairs.count; ++product) {
#pragma unroll
            for (int k = 0; k < kFlush; ++k) {
#pragma unroll
              for (int j = 0; j < kTogether; ++j) {
                mma_m16n8k16<kHalf>(fresh[j], a[k][kPairs.pair[product].left],
                                    b[k][kPairs.pair[product].right][j0 + j]);
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

  // The same for panels in shared memory: their planes, or what came where they are used as it is.
  template <bool left_transposed, bool right_transposed, int unroll = kDepth / 16>
  static __device__ __forceinline__ void multiply(Sums& sums, const unsigned char* left,
                                                  const unsigned char* right) {
    const int row = warp_row(), column = warp_column();
    multiply_fragments<unroll>(
        sums,
        [&](uint32_t (&a)[4], int part, int i, int k) {
          Left::template left_fragment<left_transposed>(a, left + part * Left::kPlaneBytes,
                                                        row + i * 16, k);
        },
        [&](uint32_t (&b0)[2], uint32_t (&b1)[2], int part, int j, int k) {
          Right::template right_fragments<right_transposed>(
              b0, b1, right + part * Right::kPlaneBytes, column + j * 8, k);
        });
  }

  // ---- the loop over the depth -----------------------------------------------------------------

  // sums += left right over the chunks of a step.
  template <class LeftOperand, class RightOperand>
  static __device__ __forceinline__ void accumulate(Sums& sums, unsigned char* shared,
                                                    const LeftOperand& left,
                                                    const RightOperand& right,
                                                    const TileStep& step) {
    if (left.transposed) {
      if (right.transposed) {
        accumulate_chunks<true, true>(sums, shared, left, right, step, false);
      } else {
        accumulate_chunks<true, false>(sums, shared, left, right, step, false);
      }
    } else {
      if (right.transposed) {
        accumulate_chunks<false, true>(sums, shared, left, right, step, false);
      } else {
        accumulate_chunks<false, false>(sums, shared, left, right, step, false);
      }
    }
  }

  // sums += x xT: on the diagonal one panel serves as both.
  static __device__ __forceinline__ void accumulate_square(Sums& sums, unsigned char* shared,
                                                           const Operand& x, const TileStep& step) {
    if (x.transposed) {
      accumulate_chunks<true, true>(sums, shared, x, x, step, step.row == step.column);
    } else {
      accumulate_chunks<false, false>(sums, shared, x, x, step, step.row == step.column);
    }
  }

  // The loop starts early and only copies then, so that the copies are compiled once, not in a
  // prologue too. It always commits, so that the number of groups on their way stays the same.
  // Operands stay in memory and are read again for each chunk: the multiplication needs the
  // registers.
  template <bool left_transposed, bool right_transposed, class LeftOperand, class RightOperand>
  static __device__ __forceinline__ void accumulate_chunks(Sums& sums, unsigned char* shared,
                                                           const LeftOperand& left,
                                                           const RightOperand& right,
                                                           const TileStep& step, bool diagonal) {
    const int chunks = step.last_chunk - step.first_chunk;
    int in = 0, out = 0;  // byte offsets of stages
    const auto next = [](int at) {
      return at + kStageBytes == kStages * kStageBytes ? 0 : at + kStageBytes;
    };
#pragma unroll 1
    for (int i = -Shape::kLead; i < chunks; ++i) {
      // Planes of odd and even chunks: these were last read two chunks ago, before the last
      // barrier.
      unsigned char* const left_planes = shared + kStages * kStageBytes + (i & 1) * kPlanesBytes;
      unsigned char* const right_planes = diagonal ? left_planes : left_planes + Left::kPlanesBytes;
      const unsigned char* const left_stage = shared + out;
      const unsigned char* const right_stage =
          diagonal ? left_stage : left_stage + Left::kStageBytes;
      if (i >= 0) {
        copy_async_wait<Shape::kLead - 1>();
        if constexpr (Left::kSplits) {
          Left::template split<left_transposed>(left_stage, left_planes);
        }
        if constexpr (Right::kSplits) {
          if (!diagonal) Right::template split<right_transposed>(right_stage, right_planes);
        }
        out = next(out);
        __syncthreads();  // chunk i has come, and all are done with the stage of chunk i - 1
      }
      if (i + Shape::kLead < chunks) {
        const int chunk = step.first_chunk + i + Shape::kLead;
        Left::template load<left_transposed>(shared + in, left, step.row, chunk);
        if (!diagonal) {
          Right::template load<right_transposed>(shared + in + Left::kStageBytes, right,
                                                 step.column, chunk);
        }
        in = next(in);
      }
      copy_async_commit();
      if (i < 0) continue;
      multiply<left_transposed, right_transposed>(sums, Left::kSplits ? left_planes : left_stage,
                                                  Right::kSplits ? right_planes : right_stage);
    }
    copy_async_wait<0>();
  }

  // Writes this thread's sums to a tile in shared memory.
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
