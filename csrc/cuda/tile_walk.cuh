// How a persistent block goes from tile to tile (csrc/core/tile_schedule.h), and how the parts of a
// split tile become one.
//
// Blocks share only the partial sums and counters of split tiles: the schedule gives every other
// tile to one block. No block waits for another.
#pragma once

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/ptx.cuh"

namespace kronext::cuda {

// Where a block is on its way. In shared memory, because the loops need the registers.
struct BlockState {
  TileCut at, end;
  TileStep step;
  int done;
  int arrived_before;  // parts of a split tile
};

__device__ __forceinline__ void begin_walk(BlockState& state, const TileCut* cuts) {
  if (threadIdx.x != 0) return;
  state.at = cuts[blockIdx.x];
  state.end = cuts[blockIdx.x + 1];
}

// Takes the block's next step; false at the end of its way.
template <class Task>
__device__ __forceinline__ bool next_step(BlockState& state, const Task* tasks) {
  __syncthreads();  // all are done with the last step
  if (threadIdx.x == 0) {
    state.done = at_end(state.at, state.end);
    if (!state.done) state.step = take_step(state.at, state.end, tasks[state.at.grid].grid);
  }
  __syncthreads();
  return !state.done;
}

// Leaves this part's sums in the workspace. True for the block that arrives last, which then holds
// the sum of all parts, added in their order whoever it is: the counter decides who adds, never in
// what order.
template <class Tile>
__device__ __forceinline__ bool sum_parts(typename Tile::Sums& sums, BlockState& state,
                                          typename Tile::Value* partials, int* counters) {
  using Value = typename Tile::Value;
  constexpr int kPart = Tile::kSums * Tile::kThreads;
  Value* const flat = reinterpret_cast<Value*>(&sums);
  const TileStep& step = state.step;
  Value* const mine = partials + int64_t(step.slot + step.part) * kPart + threadIdx.x;
#pragma unroll
  for (int e = 0; e < Tile::kSums; ++e) mine[e * Tile::kThreads] = flat[e];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) state.arrived_before = atomicAdd(counters + step.group, 1);
  __syncthreads();
  if (state.arrived_before != step.parts - 1) return false;
  __threadfence();
#pragma unroll
  for (int e = 0; e < Tile::kSums; ++e) flat[e] = Value(0);
  for (int part = 0; part < step.parts; ++part) {
    const Value* const from = partials + int64_t(step.slot + part) * kPart + threadIdx.x;
#pragma unroll
    for (int e = 0; e < Tile::kSums; ++e) flat[e] += load_through_l2(from + e * Tile::kThreads);
  }
  return true;
}

}  // namespace kronext::cuda
