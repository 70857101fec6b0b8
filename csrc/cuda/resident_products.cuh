// Products of matrices whose columns lie in shared memory, for the threads of one matrix.
#pragma once

#include "csrc/cuda/pivoted_cholesky.cuh"
#include "csrc/cuda/spectral_task.cuh"

namespace kronext::cuda {

constexpr int kProductTile = 4;

// Calls f(i, j, (M MT)_ij) for j <= i. n^3 / 2 multiply-adds.
template <class Shape, class F>
__device__ __forceinline__ void lower_gram(const Columns& m, int thread, const F& f) {
  const int tiles = (m.n + kProductTile - 1) / kProductTile;
  int row = 0, column = thread;  // of the tile, counted along the rows of the lower triangle
  for (int tile = thread; tile < tiles * (tiles + 1) / 2; tile += Shape::kThreads) {
    while (column > row) column -= ++row;
    float sum[kProductTile][kProductTile] = {};
    for (int k = 0; k < m.n; ++k) {
      const float* at = m.data + k * m.pitch;
      const float4 left = *reinterpret_cast<const float4*>(at + kProductTile * row);
      const float4 right = *reinterpret_cast<const float4*>(at + kProductTile * column);
      const float x[] = {left.x, left.y, left.z, left.w},
                  y[] = {right.x, right.y, right.z, right.w};
#pragma unroll
      for (int e = 0; e < kProductTile * kProductTile; ++e) {
        sum[e / 4][e % 4] = fmaf(x[e / 4], y[e % 4], sum[e / 4][e % 4]);
      }
    }
#pragma unroll
    for (int e = 0; e < kProductTile * kProductTile; ++e) {
      const int i = kProductTile * row + e / 4, j = kProductTile * column + e % 4;
      if (i < m.n && j <= i) f(i, j, sum[e / 4][e % 4]);
    }
    column += Shape::kThreads;
  }
}

// out <- left right, in columns of the same pitch; `out` may be either of them. n^3 multiply-adds.
template <class Shape>
__device__ __forceinline__ void multiply(const Columns& left, const float* right, float* out,
                                         const MatrixThreads<Shape>& threads) {
  constexpr int kTiles = (Shape::kLargest + kProductTile - 1) / kProductTile;
  constexpr int kRounds = (kTiles * kTiles + Shape::kThreads - 1) / Shape::kThreads;
  const int tiles = (left.n + kProductTile - 1) / kProductTile, n = left.n, pitch = left.pitch;
  float sum[kRounds][kProductTile][kProductTile];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int tile = threads.thread + round * Shape::kThreads;
    const int row = tile % tiles, column = tile / tiles;
#pragma unroll
    for (int e = 0; e < kProductTile * kProductTile; ++e) sum[round][e / 4][e % 4] = 0.f;
    for (int k = 0; k < (column < tiles ? n : 0); ++k) {
      const float4 x = *reinterpret_cast<const float4*>(left.data + k * pitch + kProductTile * row);
#pragma unroll
      for (int c = 0; c < kProductTile; ++c) {
        const int j = kProductTile * column + c;
        const float y = j < n ? right[j * pitch + k] : 0.f;
        sum[round][c][0] = fmaf(x.x, y, sum[round][c][0]);
        sum[round][c][1] = fmaf(x.y, y, sum[round][c][1]);
        sum[round][c][2] = fmaf(x.z, y, sum[round][c][2]);
        sum[round][c][3] = fmaf(x.w, y, sum[round][c][3]);
      }
    }
  }
  threads.sync();
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int tile = threads.thread + round * Shape::kThreads;
    const int row = tile % tiles, column = tile / tiles;
#pragma unroll
    for (int c = 0; c < kProductTile; ++c) {
      const int j = kProductTile * column + c;
      if (column < tiles && j < n) {
        *reinterpret_cast<float4*>(out + j * pitch + kProductTile * row) =
            make_float4(sum[round][c][0], sum[round][c][1], sum[round][c][2], sum[round][c][3]);
      }
    }
  }
  threads.sync();
}

// S <- QT A Q in wide arithmetic, by 8 rows of A at a time: `space` holds them and their product
// with Q. 3 n^3 / 2 wide multiply-adds. `a(i, j)` is an entry of A.
template <class Shape, class Wide, class Entry>
__device__ __forceinline__ void project(PivotedCholesky<Shape, Wide>& s, const Columns& q,
                                        const Entry& a, void* space,
                                        const MatrixThreads<Shape>& threads) {
  const int n = q.n, padded = ResidentLayout(n).padded;
  float* const rows = static_cast<float*>(space);
  Wide* const product = reinterpret_cast<Wide*>(rows + kProjectionRows * padded);
  s.clear();
  for (int first = 0; first < n; first += kProjectionRows) {
    for (int k = threads.thread; k < kProjectionRows * padded; k += Shape::kThreads) {
      const int i = first + k / padded, j = k % padded;
      rows[k] = i < n && j < n ? a(i, j) : 0.f;
    }
    threads.sync();
    for (int k = threads.thread; k < kProjectionRows / 2 * padded; k += Shape::kThreads) {
      const int i = k / padded * 2, j = k % padded;
      Wide upper = Wide(0.f), lower = Wide(0.f);
      for (int m = 0; j < n && m < n; m += 4) {
        const float4 x = *reinterpret_cast<const float4*>(q.data + j * q.pitch + m);
        const float4 u = *reinterpret_cast<const float4*>(rows + i * padded + m);
        const float4 l = *reinterpret_cast<const float4*>(rows + (i + 1) * padded + m);
        upper = multiply_add(u.x, x.x, upper), lower = multiply_add(l.x, x.x, lower);
        upper = multiply_add(u.y, x.y, upper), lower = multiply_add(l.y, x.y, lower);
        upper = multiply_add(u.z, x.z, upper), lower = multiply_add(l.z, x.z, lower);
        upper = multiply_add(u.w, x.w, upper), lower = multiply_add(l.w, x.w, lower);
      }
      product[i * padded + j] = upper, product[(i + 1) * padded + j] = lower;
    }
    threads.sync();
    for (int k = 0; k < kProjectionRows && first + k < n; ++k) {
      s.add_outer_product(
          n, [&](int i) { return Wide(q.data[i * q.pitch + first + k]); },
          [&](int j) { return product[k * padded + j]; });
    }
  }
  threads.sync();
}

}  // namespace kronext::cuda
