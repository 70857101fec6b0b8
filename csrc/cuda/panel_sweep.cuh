// Sweeps of one-sided Jacobi over panels of 32 columns of M: every two panels meet once a sweep,
// disjoint pairs together. Where the 64 columns X of a pair meet,
//
//   G = XT X      in float32; parts of 128 rows are summed each by itself, then in their order
//   J             from G (panel_rotation.cuh)
//   X <- X J      so that the columns' graded scale stays in the sums, and small eigenvalues keep
//                 their relative accuracy
//
// There are two methods, of the same operations in the same order, so of the same bits. The plan
// chooses (panel_eigh.cu).
//
//   resident_pair_kernel      a block for each pair, whose X is in shared memory meanwhile
//   gram_kernel               a block for each part of G; the last one to be done finds J
//   update_kernel             a block for each 64 rows of X J
//
// A sweep notes the largest cosine that it met (in a fresh G) and the largest tangent by which it
// turned; when their product is rounding error, the launches that follow have nothing to do.
//
// Operations: 4 n^3 a sweep, half for G and half for X J; besides, n^2 / 64 steps to J.
// Bytes of a sweep: n^3 / 4 where X is resident, read once and written once; else 3 n^3 / 4, since
// G reads X for either side and adds its parts, and every tile of X J reads J too. They come from
// the second-level cache as long as a list fits it: one matrix of n = 2048 is 16 MB.
#pragma once

#include "csrc/cuda/panel_rotation.cuh"

namespace kronext::cuda {

// ---- in shared memory --------------------------------------------------------------------------

// X, 64 numbers a row, and zeros below it up to a multiple of 64 rows.
struct ResidentPair {
  float* data;

  __device__ __forceinline__ void load(const PanelPair& x, int n, int rows) const {
    constexpr int kFours = kPairColumns / kTileSide;
    for (int k = int(threadIdx.x); k < rows * kFours; k += kTileThreads) {
      const int row = k / kFours, column = k % kFours * kTileSide;
      float* const to = data + row * kPairColumns + column;
      if (row < n) {
        copy_async_16(to, &x(row, column));
      } else {
        *reinterpret_cast<float4*>(to) = make_float4(0.f, 0.f, 0.f, 0.f);
      }
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
  }

  __device__ __forceinline__ TileSums<float> gram(int n) const {
    TileSums<float> sums;
#pragma unroll 1
    for (int part = 0; part < n; part += kGramRows) {
      TileSums<float> of_part;
      const int end = min(part + kGramRows, n);
#pragma unroll 1
      for (int first = part; first < end; first += kTileDepth) {
#pragma unroll
        for (int k = 0; k < kTileDepth; ++k) {
          const float* const row = data + (first + k) * kPairColumns;
          of_part.add_outer(four_at(row + of_part.first_row()),
                            four_at(row + of_part.first_column()));
        }
      }
      sums.add(of_part);
    }
    return sums;
  }

  // 64 rows of X J.
  __device__ __forceinline__ TileSums<float> turned(const PairMatrix& turn, int first) const {
    TileSums<float> sums;
    const float* const rows = data + (first + sums.first_row()) * kPairColumns;
#pragma unroll 4
    for (int k = 0; k < kPairColumns; k += kTileSide) {
      Four<float> x[kTileSide];
#pragma unroll
      for (int i = 0; i < kTileSide; ++i) x[i] = four_at(rows + i * kPairColumns + k);
#pragma unroll
      for (int e = 0; e < kTileSide; ++e) {
        const Four<float> column = {x[0].at[e], x[1].at[e], x[2].at[e], x[3].at[e]};
        sums.add_outer(column, four_at(&turn(k + e, sums.first_column())));
      }
    }
    return sums;
  }
};

// Of a matrix of so many pairs.
KRONEXT_HOST_DEVICE int resident_bytes(int pairs) {
  return PairRotation::kBytes + pairs * kTile * kPairColumns * int(sizeof(float));
}

__global__ void __launch_bounds__(kTileThreads, 2)
    resident_pair_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes,
                         int sweep, int round) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachPair> problem(tasks, workspace, classes);
  if (!problem.sweeping(sweep)) return;
  const int n = problem.n;
  const BlockPair met = round_robin(round, problem.item, problem.panels());
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  const PairRotation rotation(shared);
  const ResidentPair x{reinterpret_cast<float*>(shared + PairRotation::kBytes)};
  x.load(PanelPair(m, met, 0), n, problem.pairs * kTile);
  TileSums<float> gram = x.gram(n);
  if (!rotation.run(gram, round == 0, sweep, problem.state())) return;
#pragma unroll 1
  for (int first = 0; first < n; first += kTile) {
    PanelPair(m, met, first).store(x.turned(rotation.turn, first), n - first);
  }
}

// ---- in two launches ---------------------------------------------------------------------------

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
  const int first = part * kGramRows, parts = gram_parts(problem.pairs);
  const PanelPair x(problem.panels_at(&PanelLayout::columns),
                    round_robin(round, pair, problem.panels()), first);
  const auto columns = across_depth([=](int i, int k) { return x(k, i); });
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
  const bool turns = rotation.run(sums, round == 0, sweep, state);
  if (threadIdx.x == 0) state.pair_turns[pair] = turns;
  if (!turns) return;
  float* const to = problem.at<float>(&PanelLayout::rotations) + int64_t(pair) * kTile * kTile;
  for (int k = int(threadIdx.x); k < kTile * kTile; k += kTileThreads) {
    to[k] = rotation.turn(k / kTile, k % kTile);
  }
}

__global__ void __launch_bounds__(kTileThreads, 2)
    update_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes, int sweep,
                  int round) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  const int pair = problem.item % problem.pairs, first = problem.item / problem.pairs * kTile;
  if (!problem.sweeping(sweep) || !problem.state().pair_turns[pair]) return;
  const int rows = problem.n - first;
  const PanelPair x(problem.panels_at(&PanelLayout::columns),
                    round_robin(round, pair, problem.panels()), first);
  const float* const turn =
      problem.at<float>(&PanelLayout::rotations) + int64_t(pair) * kTile * kTile;
  TileSums<float> sums;
  sums.add_product<float>(along_depth([=](int i, int k) { return i < rows ? x(i, k) : 0.f; }),
                          across_depth([=](int j, int k) { return turn[k * kTile + j]; }), kTile,
                          shared);
  x.store(sums, rows);
}

}  // namespace kronext::cuda
