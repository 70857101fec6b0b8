// S = L LT by elimination with diagonal pivoting, S in registers, in wide arithmetic.
//
// A thread holds 4 x 8 entries of the lower triangle. In each of n steps the threads of the pivot's
// row and column publish it, every thread subtracts its part of the outer product, and L gets a
// column, rounded to float32: columns in the order of elimination, rows in the order of S.
//
// Pivoting makes the columns of L graded, which is what one-sided Jacobi converges fast on.
// Operations: n^3 / 3 wide multiply-adds.
#pragma once

#include "csrc/cuda/resident_shape.cuh"
#include "csrc/cuda/spectral_scale.cuh"
#include "csrc/cuda/wide_arithmetic.cuh"

namespace kronext::cuda {

template <class Wide>
struct EliminationMemory {
  Wide* column;   // of the pivot
  unsigned* key;  // what each row would be as a pivot
};

template <class Shape, class Wide>
class PivotedCholesky {
 public:
  static constexpr int kTileRows = 4, kTileColumns = 8;

  // Tiles are counted along the rows of the lower triangle: (r + 1)^2 / 4 lie before row r, and 4 t
  // + 3 is no square.
  __device__ __forceinline__ explicit PivotedCholesky(int thread)
      : tile_row_(int(sqrtf(4.f * float(thread) + 3.f)) - 1),
        tile_column_(thread - (tile_row_ + 1) * (tile_row_ + 1) / 4),
        pivots_(0) {
    constexpr int kTileRowsOfLargest = Shape::kLargest / kTileRows;
    static_assert((kTileRowsOfLargest + 1) * (kTileRowsOfLargest + 1) / 4 <= Shape::kThreads);
  }

  // S = A + shift I, from both triangles of A.
  __device__ __forceinline__ void fill(const Columns& a, float shift) {
    pivots_ = 0;
#pragma unroll
    for (int c = 0; c < kTileColumns; ++c) {
      float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
      if (has_rows(a.n) && column(c) < a.n) {
        four = *reinterpret_cast<const float4*>(a.data + column(c) * a.pitch + row(0));
      }
      s_[0][c] = Wide(four.x), s_[1][c] = Wide(four.y);
      s_[2][c] = Wide(four.z), s_[3][c] = Wide(four.w);
    }
    add_to_diagonal(a.n, shift);
  }

  __device__ __forceinline__ void clear() {
    pivots_ = 0;
    for_tile([&](int e, int c) { s_[e][c] = Wide(0.f); });
  }

  // S += left_i right_j for a row of the projection: left(i) is read for rows, right(j) for
  // columns.
  template <class Left, class Right>
  __device__ __forceinline__ void add_outer_product(int n, const Left& left, const Right& right) {
    if (!has_rows(n)) return;
    Wide y[kTileColumns];
#pragma unroll
    for (int c = 0; c < kTileColumns; ++c) y[c] = right(column(c));
#pragma unroll
    for (int e = 0; e < kTileRows; ++e) {
      const Wide x = row(e) < n ? left(row(e)) : Wide(0.f);
#pragma unroll
      for (int c = 0; c < kTileColumns; ++c) s_[e][c] = multiply_add(x, y[c], s_[e][c]);
    }
  }

  __device__ __forceinline__ void add_to_diagonal(int n, float shift) {
    for_tile([&](int e, int c) {
      if (row(e) == column(c) && row(e) < n) s_[e][c] = s_[e][c] + Wide(shift);
    });
  }

  // False: a pivot was too small. The matrix is overwritten either way.
  __device__ __forceinline__ bool factor(const Columns& l, const EliminationMemory<Wide>& memory,
                                         const MatrixThreads<Shape>& threads) {
    publish_keys(l.n, memory.key);
    threads.sync();
    for (int step = 0; step < l.n; ++step) {
      const unsigned best = best_key(l.n, memory.key, threads);
      if (best == kTooSmall) {
        threads.sync();
        return false;
      }
      publish_pivot(l.n, int(best & 0xff), memory.column);
      threads.sync();
      const Wide root = inverse_root(memory.column[best & 0xff]), inverse = root * root;
      for (int i = threads.thread; i < l.pitch; i += Shape::kThreads) {
        l.data[step * l.pitch + i] = i < l.n ? float(memory.column[i] * root) : 0.f;
      }
      add_outer_product(
          l.n, [&](int i) { return -memory.column[i] * inverse; },
          [&](int j) { return j < l.n ? memory.column[j] : Wide(0.f); });
      publish_keys(l.n, memory.key);
      threads.sync();
    }
    return true;
  }

 private:
  static constexpr unsigned kTooSmall = 0xffffffffu;

  __device__ __forceinline__ int row(int e) const { return kTileRows * tile_row_ + e; }
  __device__ __forceinline__ int column(int c) const { return kTileColumns * tile_column_ + c; }
  __device__ __forceinline__ bool has_rows(int n) const { return row(0) < n; }

  template <class F>
  __device__ __forceinline__ void for_tile(const F& f) {
#pragma unroll
    for (int e = 0; e < kTileRows; ++e) {
#pragma unroll
      for (int c = 0; c < kTileColumns; ++c) f(e, c);
    }
  }

  // The bits of the diagonal in float32, which order as the numbers do, with the row in the last
  // byte. 0: was a pivot.
  __device__ __forceinline__ void publish_keys(int n, unsigned* key) const {
    if (!has_rows(n) || tile_column_ != tile_row_ / 2) return;
#pragma unroll
    for (int e = 0; e < kTileRows; ++e) {
      const float diagonal = float(choose(tile_row_ & 1, s_[e][4 + e], s_[e][e]));
      const bool was_pivot = pivots_ >> e & 1;
      const unsigned bits = (__float_as_uint(diagonal) & ~0xffu) | unsigned(row(e));
      if (row(e) < n) {
        key[row(e)] = was_pivot ? 0u : diagonal >= kSmallestPivot ? bits : kTooSmall;
      }
    }
  }

  // Diagonals only shrink, so one that is too small now ends the factorisation.
  static __device__ __forceinline__ unsigned best_key(int n, const unsigned* key,
                                                      const MatrixThreads<Shape>& threads) {
    constexpr int kReaders = Shape::kThreads < 32 ? Shape::kThreads : 32;
    unsigned best = 0;
    for (int i = threads.thread % kReaders; i < n; i += kReaders) best = max(best, key[i]);
    return __reduce_max_sync(threads.mask, best);
  }

  // Column k of what is left of S, from the tiles of row k and column k.
  __device__ __forceinline__ void publish_pivot(int n, int k, Wide* to) {
    if (!has_rows(n)) return;
    if (tile_column_ == k / kTileColumns) {
#pragma unroll
      for (int e = 0; e < kTileRows; ++e) {
        Wide value = s_[e][0];
#pragma unroll
        for (int c = 1; c < kTileColumns; ++c) {
          value = choose(c == k % kTileColumns, s_[e][c], value);
        }
        if (row(e) < n) to[row(e)] = pivots_ >> e & 1 ? Wide(0.f) : value;
      }
    } else if (tile_row_ == k / kTileRows) {
#pragma unroll
      for (int c = 0; c < kTileColumns; ++c) {
        Wide value = s_[0][c];
#pragma unroll
        for (int e = 1; e < kTileRows; ++e) value = choose(e == k % kTileRows, s_[e][c], value);
        to[column(c)] = pivots_ >> (kTileRows + c) & 1 ? Wide(0.f) : value;
      }
    }
    if (tile_row_ == k / kTileRows) pivots_ |= 1u << (k % kTileRows);
    if (tile_column_ == k / kTileColumns) pivots_ |= 1u << (kTileRows + k % kTileColumns);
  }

  int tile_row_, tile_column_;
  unsigned pivots_;  // bits of rows and columns of the tile that were pivots
  Wide s_[kTileRows][kTileColumns];
};

}  // namespace kronext::cuda
