// A + s I = L LT by elimination with diagonal pivoting, 32 columns a launch, in wide arithmetic.
//
// A launch subtracts the outer products of the last panel from what is left of the matrix, tile by
// tile; the last of a matrix's blocks to be done then eliminates the next panel. Pivots are chosen
// among all rows, column by column, so the columns of L are graded and well conditioned, which is
// what one-sided Jacobi converges fast on. Rows keep their places; those of former pivots are zero
// in later panels.
//
// A thread of the block that eliminates keeps eight rows: their diagonal entries in registers, and
// of each new column the entry that the 32-column panel still owes it.
//
// Operations: n^3 / 2 wide multiply-adds in tiles, 16 n^2 in panels. Bytes: n^3 / 4 of the
// remainder read and written, mostly in the second-level cache.
#pragma once

#include "csrc/cuda/panel_problem.cuh"

namespace kronext::cuda {

__device__ __forceinline__ TwoFloat load_through_l2(const TwoFloat* pointer) {
  const float2 parts = load_through_l2(reinterpret_cast<const float2*>(pointer));
  return {parts.x, parts.y};
}

template <class Wide>
struct PanelElimination {
  static constexpr int kRows = kLargestPanelMatrix / kTileThreads, kWarps = kTileThreads / 32;
  static constexpr unsigned kRowBits = kLargestPanelMatrix - 1;
  static constexpr int kTransposePitch = kPanel + 1;

  struct Shared {
    unsigned key[kWarps];
    Wide pivot_row[kPanel];  // negative
    float column[kWarps][32 * kTransposePitch];
  };

  int n;
  const Wide* remainder;  // symmetric, less the outer products of all former panels
  Wide* panel;            // column after column
  int* eliminated;
  Shared& shared;

  Wide diagonal[kRows];
  // Bit m: row threadIdx.x + 256 m was no pivot yet; rounding that is left in those is no pivot.
  unsigned alive;

  template <class F>
  __device__ __forceinline__ void for_each_row(const F& f) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      const int i = int(threadIdx.x) + m * kTileThreads;
      if (i < n) f(m, i);
    }
  }

  __device__ __forceinline__ void load_diagonal(bool first) {
    alive = 0;
    for_each_row([&](int m, int i) {
      if (first) eliminated[i] = 0;
      alive |= unsigned(first || !eliminated[i]) << m;
      diagonal[m] = load_through_l2(remainder + int64_t(i) * n + i);
    });
  }

  // The largest diagonal entry in float32, whose bits order as the numbers do, with its row in the
  // last bits.
  __device__ __forceinline__ unsigned best_key() {
    unsigned best = 0;
    for_each_row([&](int m, int i) {
      const float d = float(diagonal[m]);
      if ((alive >> m & 1) && d > 0.f)
        best = max(best, (__float_as_uint(d) & ~kRowBits) | unsigned(i));
    });
    best = __reduce_max_sync(~0u, best);
    if (threadIdx.x % 32 == 0) shared.key[threadIdx.x / 32] = best;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) best = max(best, shared.key[warp]);
    return best;
  }

  // Column `done` of the panel, for pivot row k.
  __device__ __forceinline__ void eliminate(int k, int done) {
    const Wide* const row = remainder + int64_t(k) * n;
    Wide column[kRows], pivot = load_through_l2(row + k);
    for_each_row([&](int m, int i) { column[m] = load_through_l2(row + i); });
    if (int(threadIdx.x) < done)
      shared.pivot_row[threadIdx.x] = -panel[int64_t(threadIdx.x) * n + k];
    __syncthreads();
    for (int c = 0; c < done; ++c) {
      const Wide factor = shared.pivot_row[c];
      pivot = multiply_add(factor, -factor, pivot);
      for_each_row([&](int m, int i) {
        column[m] = multiply_add(factor, panel[int64_t(c) * n + i], column[m]);
      });
    }
    const Wide root = inverse_root(pivot);
    for_each_row([&](int m, int i) {
      const Wide below = choose(alive >> m & 1, column[m] * root, Wide(0.f));
      const Wide value = choose(i == k, pivot * root, below);
      alive &= ~(unsigned(i == k) << m);
      diagonal[m] = multiply_add(-value, value, diagonal[m]);
      panel[int64_t(done) * n + i] = value;
    });
    if (int(threadIdx.x) == k % kTileThreads) eliminated[k] = 1;
  }

  // The panel as rows of 32 in float32. Every thread reads back what it wrote itself; a warp turns
  // 32 rows at a time.
  __device__ __forceinline__ void write(float* to, int width) {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    float* const turned = shared.column[warp];
    for (int first = warp * 32; first < n; first += kTileThreads) {
      __syncwarp();
      for (int c = 0; c < kPanel; ++c) {
        const bool inside = c < width && first + lane < n;
        turned[lane * kTransposePitch + c] =
            inside ? float(panel[int64_t(c) * n + first + lane]) : 0.f;
      }
      __syncwarp();
      for (int r = 0; r < 32 && first + r < n; ++r) {
        to[int64_t(first + r) * kPanel + lane] = turned[r * kTransposePitch + lane];
      }
    }
  }

  // False: a pivot was too small.
  __device__ __forceinline__ bool run(int step, float* factor) {
    const int width = min(kPanel, n - step * kPanel);
    load_diagonal(step == 0);
    for (int done = 0; done < width; ++done) {
      const unsigned best = best_key();
      if (!(__uint_as_float(best & ~kRowBits) >= kSmallestPivot)) return false;
      eliminate(int(best & kRowBits), done);
    }
    write(factor + int64_t(step) * n * kPanel, width);
    return true;
  }
};

template <class Wide>
constexpr int kEliminateBytes =
    int(sizeof(typename PanelElimination<Wide>::Shared)) > kTileBytes<Wide>
        ? int(sizeof(typename PanelElimination<Wide>::Shared))
        : kTileBytes<Wide>;

// Step 0 of an attempt fills the remainder, every other one subtracts the last panel; the next
// panel follows. Without effect where another attempt is on.
template <class Wide>
__global__ void __launch_bounds__(kTileThreads, 2)
    eliminate_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes,
                     int attempt, int step) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachLowerTile> problem(tasks, workspace, classes);
  PanelState& state = problem.state();
  if (!problem.finite() || state.factored || state.failed_shifts != attempt) return;
  const int n = problem.n;
  const bool warm = problem.warm();
  const TilePlace tile = lower_tile(problem.item);
  const int row = tile.row * kTile, column = tile.column * kTile;
  Wide* const remainder = problem.template at<Wide>(&PanelLayout::remainder);
  Wide* const panel = problem.template at<Wide>(&PanelLayout::panel);
  const Wide* const projected = problem.template at<Wide>(&PanelLayout::projected);
  const ScaledMatrix a = problem.scaled_matrix();
  const Wide shift = Wide(float(problem.shift()));

  TileSums<Wide> sums;
  if (step > 0) {
    const auto rows = [=](int first) {
      return across_depth([=](int i, int k) {
        return first + i < n ? panel[int64_t(k) * n + first + i] : Wide(0.f);
      });
    };
    sums.template add_product<Wide>(rows(row), rows(column), kPanel, shared);
  }
  sums.for_each([&](int r, int c, const Wide& sum) {
    const int i = row + r, j = column + c;
    if (i >= n || j > i) return;
    const int64_t at = int64_t(i) * n + j;
    Wide value = step > 0 ? remainder[at] - sum : warm ? projected[at] : Wide(a(i, j));
    if (step == 0 && i == j) value = value + shift;
    remainder[at] = value;
    remainder[int64_t(j) * n + i] = value;
  });
  if (!problem.last_to_arrive(state.arrived, problem.blocks(), reinterpret_cast<int*>(shared)))
    return;

  float* const factor = warm ? problem.template at<float>(&PanelLayout::factor)
                             : problem.template at<float>(&PanelLayout::columns);
  using Elimination = PanelElimination<Wide>;
  Elimination elimination{n, remainder, panel, problem.template at<int>(&PanelLayout::order),
                          *reinterpret_cast<typename Elimination::Shared*>(shared)};
  const bool passed = elimination.run(step, factor);
  const bool last = (step + 1) * kPanel >= n;
  if (last && step + 1 < problem.panels()) {
    for (int k = int(threadIdx.x); k < n * kPanel; k += kTileThreads) {
      factor[int64_t(step + 1) * n * kPanel + k] = 0.f;
    }
  }
  if (threadIdx.x != 0) return;
  if (!passed) state.failed_shifts = attempt + 1;
  if (passed && last) state.factored = 1;
}

// M = Q L.
__global__ void __launch_bounds__(kTileThreads, 2)
    orient_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  if (!problem.finite() || !problem.warm() || !problem.state().factored) return;
  const int n = problem.n;
  const int row = problem.item / problem.pairs * kTile,
            column = problem.item % problem.pairs * kTile;
  const float* const q = problem.at<float>(&PanelLayout::basis);
  const PanelMatrix factor = problem.panels_at(&PanelLayout::factor);
  TileSums<float> sums;
  sums.add_product<float>(
      along_depth([=](int i, int k) { return row + i < n ? q[int64_t(row + i) * n + k] : 0.f; }),
      across_depth([=](int j, int k) { return factor(k, column + j); }), n, shared);
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  sums.for_each([&](int r, int c, float sum) {
    if (row + r < n) m(row + r, column + c) = sum;
  });
}

}  // namespace kronext::cuda
