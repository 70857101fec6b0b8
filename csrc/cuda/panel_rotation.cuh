// The rotations J that make the 64 columns X of two panels more orthogonal, from G = XT X.
//
// G is turned in shared memory by two-sided rotations: each column of one panel against each of the
// other, and once a sweep all pairs of the 64. G only steers; J is what is kept.
//
// J is accumulated as J - I: where columns turn by a little, a diagonal entry 1 would swallow what
// it loses, and the columns of M would grow by 1e-5 over the sweeps of n = 1024.
//
// Operations: 32 steps of 64^2 entries, 63 where all pairs turn.
#pragma once

#include "csrc/cuda/panel_problem.cuh"

namespace kronext::cuda {

// The 64 columns of two panels, from row `first` of M on.
struct PanelPair {
  float *left, *right;

  __device__ __forceinline__ PanelPair(const PanelMatrix& m, const BlockPair& panels, int first)
      : left(&m(first, panels.left * kPanel)), right(&m(first, panels.right * kPanel)) {}

  __device__ __forceinline__ float& operator()(int i, int j) const {
    return (j < kPanel ? left : right)[i * kPanel + j % kPanel];
  }

  // The first `rows` rows of a tile.
  __device__ __forceinline__ void store(const TileSums<float>& tile, int rows) const {
#pragma unroll
    for (int i = 0; i < kTileSide; ++i) {
      const int row = tile.first_row() + i;
      const auto& sum = tile.sum[i];
      if (row >= rows) continue;
      store_through_l2(reinterpret_cast<float4*>(&(*this)(row, tile.first_column())),
                       make_float4(sum[0], sum[1], sum[2], sum[3]));
    }
  }
};

// 64 x 64 numbers in shared memory.
struct PairMatrix {
  static constexpr int kBytes = kPairColumns * kTilePitch * 4;

  float* data;
  __device__ __forceinline__ float& operator()(int i, int j) const {
    return data[i * kTilePitch + j];
  }
};

struct PairRotation {
  static constexpr int kWarps = kTileThreads / 32, kPairs = kPairColumns / 2;
  static constexpr int kBytes = 2 * PairMatrix::kBytes + kWarps * int(sizeof(unsigned));

  PairMatrix gram, turn;  // turn: J - I on the way, then J
  unsigned* warp_largest;
  int warp, lane;

  __device__ __forceinline__ explicit PairRotation(unsigned char* shared)
      : gram{reinterpret_cast<float*>(shared)},
        turn{gram.data + PairMatrix::kBytes / 4},
        warp_largest(reinterpret_cast<unsigned*>(shared + 2 * PairMatrix::kBytes)),
        warp(int(threadIdx.x) / 32),
        lane(int(threadIdx.x) % 32) {}

  // From the Gram matrix `sums`; notes in the record of the sweep what it met. False: nothing
  // turns, and there is no J. A barrier for the block.
  __device__ __forceinline__ bool run(TileSums<float>& sums, bool inside, int sweep,
                                      PanelState& state) const {
    load(sums);
    const float cosine = largest_cosine(inside);
    if (cosine == 0.f) return false;
    const float tangent = turn_all(inside);
    if (threadIdx.x < kPairColumns) turn(int(threadIdx.x), int(threadIdx.x)) += 1.f;
    if (threadIdx.x == 0) {
      atomicMax(&state.cosine[sweep], __float_as_uint(cosine));
      atomicMax(&state.tangent[sweep], __float_as_uint(tangent));
    }
    __syncthreads();
    return true;
  }

 private:
  __device__ __forceinline__ void load(TileSums<float>& sums) const {
    sums.for_each([&](int i, int j, float sum) {
      gram(i, j) = sum;
      turn(i, j) = 0.f;
    });
    __syncthreads();
  }

  // Of all threads, for numbers that are not negative.
  __device__ __forceinline__ float largest(float x) const {
    const unsigned bits = __reduce_max_sync(~0u, __float_as_uint(x));
    if (lane == 0) warp_largest[warp] = bits;
    __syncthreads();
    unsigned all = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) all = max(all, warp_largest[w]);
    return __uint_as_float(all);
  }

  // The largest cosine above rounding error, between the panels and where `inside` within them.
  __device__ __forceinline__ float largest_cosine(bool inside) const {
    float cosine = 0.f;
    for (int k = int(threadIdx.x); k < kPairColumns * kPairColumns; k += kTileThreads) {
      const int i = k / kPairColumns, j = k % kPairColumns;
      const float product = gram(i, j), squares = gram(i, i) * gram(j, j);
      const bool meet = i < j && (inside || (i < kPanel && j >= kPanel));
      if (meet && product * product > kOrthogonal * kOrthogonal * squares) {
        cosine = fmaxf(cosine, squares > 0.f ? fabsf(product) * rsqrtf(squares) : 1.f);
      }
    }
    return largest(cosine);
  }

  // All pairs that meet in a round are disjoint; every warp finds the same 32 rotations, one a
  // lane. Returns the largest tangent.
  __device__ __forceinline__ float turn_all(bool inside) const {
    SweepRecord record;
    const int rounds = inside ? kPairColumns - 1 : kPanel;
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
      const BlockPair columns = inside ? round_robin(round, lane, kPairColumns)
                                       : BlockPair{lane, kPanel + (lane + round) % kPanel};
      const Rotation r =
          rotation(gram(columns.left, columns.right), gram(columns.left, columns.left),
                   gram(columns.right, columns.right), record);
      if (!__any_sync(~0u, r.half_tangent != 0.f)) continue;
      __syncthreads();
      turn_gram(columns, r);
      accumulate(columns, r);
      __syncthreads();
    }
    const unsigned bits = __reduce_max_sync(~0u, __float_as_uint(record.tangent));
    return __uint_as_float(bits);
  }

  // G <- JT G J for one round: a warp has four pairs of rows, a lane a pair of columns.
  __device__ __forceinline__ void turn_gram(const BlockPair& columns, const Rotation& r) const {
#pragma unroll
    for (int p = 0; p < kPairs / kWarps; ++p) {
      const int from = warp * (kPairs / kWarps) + p;
      const int rows[2] = {__shfl_sync(~0u, columns.left, from),
                           __shfl_sync(~0u, columns.right, from)};
      const float half_tangent = __shfl_sync(~0u, r.half_tangent, from);
      const float sine = __shfl_sync(~0u, r.sine, from);
      float left[2], right[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        left[e] = gram(rows[e], columns.left);
        right[e] = gram(rows[e], columns.right);
      }
      shear(left, right, r.half_tangent, r.sine);
      float upper[2] = {left[0], right[0]}, lower[2] = {left[1], right[1]};
      shear(upper, lower, half_tangent, sine);
      gram(rows[0], columns.left) = upper[0];
      gram(rows[0], columns.right) = upper[1];
      gram(rows[1], columns.left) = lower[0];
      gram(rows[1], columns.right) = lower[1];
    }
  }

  // J <- J J_round. The shears of a row of J = I + turn, less the I.
  __device__ __forceinline__ void accumulate(const BlockPair& columns, const Rotation& r) const {
#pragma unroll
    for (int e = 0; e < kPairColumns / kWarps; ++e) {
      const int row = warp + e * kWarps;
      const float left_one = row == columns.left ? 1.f : 0.f;
      const float right_one = row == columns.right ? 1.f : 0.f;
      float left = turn(row, columns.left), right = turn(row, columns.right);
      left = fmaf(-r.half_tangent, right + right_one, left);
      right = fmaf(r.sine, left + left_one, right);
      left = fmaf(-r.half_tangent, right + right_one, left);
      turn(row, columns.left) = left;
      turn(row, columns.right) = right;
    }
  }
};

}  // namespace kronext::cuda
