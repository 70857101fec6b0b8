// The first kernels of the panel eigensolver: how large a matrix is, whether it is finite, and
// where it has a basis, the basis made orthogonal and the matrix projected on it.
//
// Operations: n^3 / 2 for the defect of the basis and n^3 to mend it, 1.5 n^3 wide to project.
#pragma once

#include "csrc/cuda/panel_problem.cuh"

namespace kronext::cuda {

// The bits of the largest magnitude; those of a NaN or an infinity are larger than any number's.
__global__ void __launch_bounds__(kTileThreads, 2)
    measure_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  const PanelProblem<ForEachStrip> problem(tasks, workspace, classes);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  unsigned largest = 0;
  for (int r = warp; r < kTile; r += kTileThreads / 32) {
    const int i = problem.item * kTile + r;
    for (int j = lane; i < problem.n && j <= i; j += 32) {
      largest = max(largest, __float_as_uint(entry(problem.task(), i, j)) & 0x7fffffffu);
    }
  }
  largest = __reduce_max_sync(~0u, largest);
  if (lane == 0) atomicMax(&problem.state().largest, largest);
}

// D = QT Q - I, and the largest square norm of its tiles.
__global__ void __launch_bounds__(kTileThreads, 2)
    basis_defect_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachLowerTile> problem(tasks, workspace, classes);
  if (!problem.task().basis || !problem.finite()) return;
  const int n = problem.n;
  const TilePlace tile = lower_tile(problem.item);
  const float* const q = assume_global(problem.task().basis);
  const auto columns = [=](int first) {
    return across_depth(
        [=](int i, int k) { return first + i < n ? q[int64_t(k) * n + first + i] : 0.f; });
  };
  TileSums<float> sums;
  sums.add_product<float>(columns(tile.row * kTile), columns(tile.column * kTile), n, shared);
  float* const defect = problem.at<float>(&PanelLayout::remainder);
  float square = 0;
  sums.for_each([&](int r, int c, float sum) {
    const int i = tile.row * kTile + r, j = tile.column * kTile + c;
    if (i >= n || j > i) return;
    const float d = sum - (i == j ? 1.f : 0.f);
    square = fmaf(i == j ? 1.f : 2.f, d * d, square);
    defect[int64_t(i) * n + j] = d;
    defect[int64_t(j) * n + i] = d;
  });
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2) square += __shfl_xor_sync(~0u, square, bit);
  float* const squares = reinterpret_cast<float*>(shared);
  if (threadIdx.x % 32 == 0) squares[threadIdx.x / 32] = square;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kTileThreads / 32; ++warp) square += squares[warp];
  atomicMax(&problem.state().defect, __float_as_uint(square) & 0x7fffffffu);
}

// Q <- Q (3 I - QT Q) / 2, the step of Newton and Schulz.
__global__ void __launch_bounds__(kTileThreads, 2)
    mend_basis_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  if (!problem.finite() || !problem.warm()) return;
  const int n = problem.n;
  const int row = problem.item / problem.pairs * kTile,
            column = problem.item % problem.pairs * kTile;
  const float* const q = assume_global(problem.task().basis);
  const float* const defect = problem.at<float>(&PanelLayout::remainder);
  TileSums<float> sums;
  sums.add_product<float>(
      along_depth([=](int i, int k) { return row + i < n ? q[int64_t(row + i) * n + k] : 0.f; }),
      across_depth(
          [=](int j, int k) { return column + j < n ? defect[int64_t(k) * n + column + j] : 0.f; }),
      n, shared);
  float* const out = problem.at<float>(&PanelLayout::basis);
  sums.for_each([&](int r, int c, float sum) {
    const int i = row + r, j = column + c;
    if (i < n && j < n) out[int64_t(i) * n + j] = fmaf(-0.5f, sum, q[int64_t(i) * n + j]);
  });
}

// A Q, in the scale of the solver.
template <class Wide>
__global__ void __launch_bounds__(kTileThreads, 2)
    multiply_basis_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  if (!problem.finite() || !problem.warm()) return;
  const int n = problem.n;
  const int row = problem.item / problem.pairs * kTile,
            column = problem.item % problem.pairs * kTile;
  const float* const q = problem.template at<float>(&PanelLayout::basis);
  const ScaledMatrix a = problem.scaled_matrix();
  TileSums<Wide> sums;
  sums.template add_product<float>(
      along_depth([=](int i, int k) { return row + i < n ? a(row + i, k) : 0.f; }),
      across_depth(
          [=](int j, int k) { return column + j < n ? q[int64_t(k) * n + column + j] : 0.f; }),
      n, shared);
  Wide* const out = problem.template at<Wide>(&PanelLayout::remainder);
  sums.for_each([&](int r, int c, const Wide& sum) {
    if (row + r < n && column + c < n) out[int64_t(row + r) * n + column + c] = sum;
  });
}

// B = QT (A Q), symmetric.
template <class Wide>
__global__ void __launch_bounds__(kTileThreads, 2)
    project_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachLowerTile> problem(tasks, workspace, classes);
  if (!problem.finite() || !problem.warm()) return;
  const int n = problem.n;
  const TilePlace tile = lower_tile(problem.item);
  const int row = tile.row * kTile, column = tile.column * kTile;
  const float* const q = problem.template at<float>(&PanelLayout::basis);
  const Wide* const product = problem.template at<Wide>(&PanelLayout::remainder);
  TileSums<Wide> sums;
  sums.template add_product<Wide>(across_depth([=](int i, int k) {
                                    return Wide(row + i < n ? q[int64_t(k) * n + row + i] : 0.f);
                                  }),
                                  across_depth([=](int j, int k) {
                                    return column + j < n ? product[int64_t(k) * n + column + j]
                                                          : Wide(0.f);
                                  }),
                                  n, shared);
  Wide* const out = problem.template at<Wide>(&PanelLayout::projected);
  sums.for_each([&](int r, int c, const Wide& sum) {
    const int i = row + r, j = column + c;
    if (i >= n || j > i) return;
    out[int64_t(i) * n + j] = sum;
    out[int64_t(j) * n + i] = sum;
  });
}

}  // namespace kronext::cuda
