// Sweeps of one-sided Jacobi over panels of 32 columns of M: every two panels meet once a sweep,
// disjoint pairs together, two launches for each round.
//
//   gram_kernel     G = XT X of the 64 columns X of a pair, in float32, 128 rows a block. The last
//                   block adds the parts in their order, and turns G in shared memory by two-sided
//                   rotations: each column of one panel against each of the other, and once a sweep
//                   all pairs of the 64. G only steers; the rotations J are what is kept.
//   update_kernel   X <- X J
//
// J is accumulated as J - I: where columns turn by a little, a diagonal entry 1 would swallow what
// it loses, and the columns of M would grow by 1e-5 over the sweeps of n = 1024. The sums in X J
// keep the graded scale of the columns, so small eigenvalues keep their relative accuracy.
//
// A sweep notes the largest cosine that it met (in a fresh G) and the largest tangent by which it
// turned; when their product is rounding error, the launches that follow have nothing to do.
//
// Operations: 4 n^3 a sweep, half for G and half for X J; besides, n^2 / 64 of 32 steps of 64^2
// entries. Bytes: 16 n^3 / 64 a sweep, from the second-level cache up to about n = 2048.
#pragma once

#include "csrc/cuda/panel_problem.cuh"

namespace kronext::cuda {

// 64 x 64 numbers in shared memory.
struct PairMatrix {
  static constexpr int kPitch = kPairColumns + 1, kBytes = kPairColumns * kPitch * 4;

  float* data;
  __device__ __forceinline__ float& operator()(int i, int j) const { return data[i * kPitch + j]; }
};

struct PairRotation {
  static constexpr int kWarps = kTileThreads / 32, kPairs = kPairColumns / 2;
  static constexpr int kBytes = 2 * PairMatrix::kBytes + kWarps * int(sizeof(unsigned));

  PairMatrix gram, turn;  // turn: J - I
  unsigned* warp_largest;
  int warp, lane;

  __device__ __forceinline__ explicit PairRotation(unsigned char* shared)
      : gram{reinterpret_cast<float*>(shared)},
        turn{gram.data + PairMatrix::kBytes / 4},
        warp_largest(reinterpret_cast<unsigned*>(shared + 2 * PairMatrix::kBytes)),
        warp(int(threadIdx.x) / 32),
        lane(int(threadIdx.x) % 32) {}

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

  // J for the whole block.
  __device__ __forceinline__ void write(float* to) const {
    for (int k = int(threadIdx.x); k < kPairColumns * kPairColumns; k += kTileThreads) {
      const int i = k / kPairColumns, j = k % kPairColumns;
      to[k] = turn(i, j) + (i == j ? 1.f : 0.f);
    }
  }

 private:
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

constexpr int kGramBytes =
    PairRotation::kBytes > kTileBytes<float> ? PairRotation::kBytes : kTileBytes<float>;

__global__ void __launch_bounds__(kTileThreads, 2)
    gram_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes, int sweep,
                int round) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachGramPart> problem(tasks, workspace, classes);
  if (!problem.sweeping(sweep)) return;
  PanelState& state = problem.state();
  const int pair = problem.item % problem.pairs, part = problem.item / problem.pairs;
  const BlockPair met = round_robin(round, pair, problem.panels());
  const int first = part * kGramRows, parts = gram_parts(problem.pairs);
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  const float* const left = &m(first, met.left * kPanel);
  const float* const right = &m(first, met.right * kPanel);
  const auto columns = across_depth(
      [=](int i, int k) { return (i < kPanel ? left : right)[k * kPanel + i % kPanel]; });
  TileSums<float> sums;
  sums.add_product<float>(columns, columns, min(kGramRows, problem.n - first), shared);

  if (parts > 1) {
    constexpr int kEntries = kTile * kTile;
    float* const slots = problem.at<float>(&PanelLayout::parts) + int64_t(pair) * parts * kEntries;
    sums.for_each([&](int i, int j, float sum) { slots[part * kEntries + i * kTile + j] = sum; });
    if (!problem.last_to_arrive(state.pair_arrived[pair], parts, reinterpret_cast<int*>(shared))) {
      return;
    }
    sums = TileSums<float>();
#pragma unroll 1
    for (int p = 0; p < parts; ++p) {
      sums.for_each([&](int i, int j, float& sum) {
        sum += load_through_l2(slots + p * kEntries + i * kTile + j);
      });
    }
  }

  const PairRotation rotation(shared);
  rotation.load(sums);
  const float cosine = rotation.largest_cosine(round == 0);
  if (threadIdx.x == 0) state.pair_turns[pair] = cosine > 0.f;
  if (cosine == 0.f) return;
  const float tangent = rotation.turn_all(round == 0);
  rotation.write(problem.at<float>(&PanelLayout::rotations) + int64_t(pair) * kTile * kTile);
  if (threadIdx.x != 0) return;
  atomicMax(&state.cosine[sweep], __float_as_uint(cosine));
  atomicMax(&state.tangent[sweep], __float_as_uint(tangent));
}

__global__ void __launch_bounds__(kTileThreads, 2)
    update_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes, int sweep,
                  int round) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  const int pair = problem.item % problem.pairs, first = problem.item / problem.pairs * kTile;
  if (!problem.sweeping(sweep) || !problem.state().pair_turns[pair]) return;
  const int n = problem.n;
  const BlockPair met = round_robin(round, pair, problem.panels());
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  float* const left = &m(first, met.left * kPanel);
  float* const right = &m(first, met.right * kPanel);
  const float* const turn =
      problem.at<float>(&PanelLayout::rotations) + int64_t(pair) * kTile * kTile;
  TileSums<float> sums;
  sums.add_product<float>(
      along_depth([=](int i, int k) {
        return first + i < n ? (k < kPanel ? left : right)[i * kPanel + k % kPanel] : 0.f;
      }),
      across_depth([=](int j, int k) { return turn[k * kTile + j]; }), kTile, shared);
  sums.for_each([&](int r, int c, float sum) {
    if (first + r < n) (c < kPanel ? left : right)[r * kPanel + c % kPanel] = sum;
  });
}

}  // namespace kronext::cuda
