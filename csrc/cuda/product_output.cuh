// The epilogue of a product: sums go through shared memory, where a tile lies whole, into rows of
// the output (or of its transpose); and the sum of their squares, in an order that never changes.
#pragma once

#include <type_traits>

#include "csrc/cuda/precondition_task.cuh"
#include "csrc/cuda/ptx.cuh"
#include "csrc/cuda/tile_visits.cuh"

namespace kronext::cuda {

// Writes the part of a tile that lies inside the x_count x y_count output, from (x, y).
template <class Tile>
__device__ __forceinline__ void write_tile(const typename Tile::Value* tile, const Output& out,
                                           int x, int y, int x_count, int y_count) {
  using Value = typename Tile::Value;
  Value* const data = assume_global(static_cast<Value*>(out.data));
  const auto is_inside = [&](int r, int c) { return x + r < x_count && y + c < y_count; };
  const auto value = [&](int r, int c) { return tile[Tile::tile_index(r, c)]; };
  if constexpr (std::is_same_v<Value, float>) {
    if (out.vector && !out.transposed) {
      visit_row_vectors<Tile>([&](int r, int c) {
        if (!is_inside(r, c)) return;
        *reinterpret_cast<float4*>(data + int64_t(x + r) * out.stride + y + c) =
            *reinterpret_cast<const float4*>(tile + Tile::tile_index(r, c));
      });
      return;
    }
    if (out.vector) {
      visit_column_vectors<Tile>([&](int r, int c) {
        if (!is_inside(r, c)) return;
        *reinterpret_cast<float4*>(data + int64_t(y + c) * out.stride + x + r) =
            make_float4(value(r, c), value(r + 1, c), value(r + 2, c), value(r + 3, c));
      });
      return;
    }
  }
  if (out.transposed) {
    visit_columns<Tile>([&](int r, int c) {
      if (is_inside(r, c)) data[int64_t(y + c) * out.stride + x + r] = value(r, c);
    });
  } else {
    visit_rows<Tile>([&](int r, int c) {
      if (is_inside(r, c)) data[int64_t(x + r) * out.stride + y + c] = value(r, c);
    });
  }
}

constexpr int kMaxWarps = 8;

// Leaves the sum of the squares of each warp's sums. Rims are zeros.
template <class Tile>
__device__ __forceinline__ void square_warps(const typename Tile::Sums& sums,
                                             typename Tile::Value* warps) {
  using Value = typename Tile::Value;
  static_assert(Tile::kThreads <= 32 * kMaxWarps);
  const Value* const flat = reinterpret_cast<const Value*>(&sums);
  Value square = 0;
#pragma unroll
  for (int e = 0; e < Tile::kSums; ++e) square = fma(flat[e], flat[e], square);
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) square += __shfl_xor_sync(~0u, square, bits);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = square;
}

// The sum of what the warps of a tile have left, behind a barrier.
template <class Tile>
__device__ __forceinline__ typename Tile::Value sum_warps(const typename Tile::Value* warps) {
  typename Tile::Value sum = 0;
#pragma unroll
  for (int warp = 0; warp < Tile::kThreads / 32; ++warp) sum += warps[warp];
  return sum;
}

}  // namespace kronext::cuda
