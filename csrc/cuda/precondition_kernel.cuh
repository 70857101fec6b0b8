// One product of a large matrix, tile by tile: left G, or right with what that has left.
//
// Every product has a factor as its left operand: G right is made as its transpose, rightT GT, and
// written transposed. So one kernel serves both sides.
//
// Bytes: each panel of an operand is read once for each tile that it takes part in, from the
// second-level cache after the first time; the output is written once. Operations: x y k
// multiply-adds, times the number of products of parts.
#pragma once

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/product_output.cuh"
#include "csrc/cuda/tile_walk.cuh"

namespace kronext::cuda {

template <class Tile>
constexpr int kProductSharedBytes =
    Tile::kSharedBytes + kMaxWarps * int(sizeof(typename Tile::Value)) + int(sizeof(BlockState));

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    product_kernel(const ProductTask* tasks, const TileCut* cuts, typename Tile::Value* partials,
                   int* counters) {
  using Value = typename Tile::Value;
  KRONEXT_DYNAMIC_SHARED(shared);
  Value* const tile = reinterpret_cast<Value*>(shared);
  Value* const warps = reinterpret_cast<Value*>(shared + Tile::kSharedBytes);
  BlockState& state = *reinterpret_cast<BlockState*>(warps + kMaxWarps);
  begin_walk(state, cuts);
  while (next_step(state, tasks)) {
    const TileStep& step = state.step;
    const ProductTask& task = tasks[step.grid];
    typename Tile::Sums sums = {};
    Tile::accumulate(sums, shared, task.left, task.right, step);
    if (step.parts > 1 && !sum_parts<Tile>(sums, state, partials, counters)) continue;
    if (task.squares) square_warps<Tile>(sums, warps);
    __syncthreads();  // the operands that lie there have been read
    Tile::spill(sums, tile);
    __syncthreads();
    write_tile<Tile>(tile, task.out, step.row * Tile::kTile, step.column * Tile::kTile,
                     task.left.x_count, task.right.x_count);
    if (task.squares && threadIdx.x == 0) {
      static_cast<Value*>(task.squares)[int64_t(step.row) * task.grid.columns + step.column] =
          sum_warps<Tile>(warps);
    }
  }
}

constexpr int kNormThreads = 128;  // of norm_kernel

}  // namespace kronext::cuda
