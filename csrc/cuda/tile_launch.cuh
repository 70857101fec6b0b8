// How a planned group of tiles starts.
#pragma once

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/tile_plan.h"

namespace kronext::cuda {

template <class Tile, class Task>
using TileKernel = void (*)(const Task* tasks, const TileCut* cuts, typename Tile::Value* partials,
                            int* counters);

template <class Tile, class Task>
cudaError_t launch_tiles(TileKernel<Tile, Task> kernel, const TileGroup& group, int shared_bytes,
                         const void* table, void* workspace, cudaStream_t stream) {
  const char* const tables = static_cast<const char*>(table);
  char* const space = static_cast<char*>(workspace);
  if (group.counters_bytes > 0) {
    const cudaError_t status =
        cudaMemsetAsync(space + group.counters_at, 0, size_t(group.counters_bytes), stream);
    if (status != cudaSuccess) return status;
  }
  const LaunchShape shape = {int64_t(group.cuts.size()) - 1, Tile::kThreads, shared_bytes};
  return launch(kernel, shape, stream, reinterpret_cast<const Task*>(tables + group.tasks_at),
                reinterpret_cast<const TileCut*>(tables + group.cuts_at),
                reinterpret_cast<typename Tile::Value*>(space + group.partials_at),
                reinterpret_cast<int*>(space + group.counters_at));
}

}  // namespace kronext::cuda
