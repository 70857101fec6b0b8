// How a launch of persistent blocks over tiles is planned: what every op made of products shares.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/device_shape.h"

namespace kronext::cuda {

// Small tiles waste less on small matrices, large ones read shared memory less often.
enum class TileSize { kFastest, kSmall, kLarge };

// One launch: the tiles of a list of products, and its places in table and workspace.
struct TileGroup {
  std::vector<TileGrid> grids;
  std::vector<TileCut> cuts;
  int64_t tasks_at, cuts_at;         // bytes into the table
  int64_t partials_at, counters_at;  // bytes into the workspace
  int64_t counters_bytes;
};

// Reading and writing a tile, in multiply-adds of the tensor cores that take as long.
constexpr int64_t kEpilogueDepth = 512;
// Small tiles reread their operands more often from shared memory.
constexpr double kSmallTileCost = 1.33;

constexpr int64_t kAlignment = 256;

inline int64_t align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

inline int32_t tiles_over(int64_t length, int64_t tile) {
  return int32_t((length + tile - 1) / tile);
}

struct TileEstimate {
  int64_t blocks;
  double time;  // only to be compared
};

// What the grids cost when they are made of such tiles.
template <class Tile>
TileEstimate estimate(const std::vector<TileGrid>& grids, int shared_bytes,
                      const DeviceShape& device) {
  int64_t cost = 0, most_blocks = 0;
  for (const TileGrid& grid : grids) {
    cost += tile_count(grid) * tile_cost(grid);
    most_blocks += tile_count(grid) * most_parts(grid);
  }
  const int fitting = device.shared_bytes / (shared_bytes + kReservedSharedBytes);
  const int together = std::max(1, std::min(Tile::kBlocks, fitting));
  const int64_t blocks = std::max<int64_t>(
      1, std::min<int64_t>(most_blocks, int64_t(device.multiprocessors) * together));
  const double chunk = double(Tile::kTile) * Tile::kTile * Tile::kDepth;
  return {blocks, std::max<double>(1, double(cost) / double(blocks)) * chunk *
                      double(tiles_over(blocks, device.multiprocessors)) *
                      (Tile::kTile < 128 ? kSmallTileCost : 1)};
}

// Cuts the work among blocks and gives the group its places, behind those of the groups before it.
template <class Tile, class Task>
void place(TileGroup& group, int64_t blocks, int64_t& table_bytes, int64_t& workspace_bytes) {
  group.cuts.resize(size_t(blocks) + 1);
  const TileScheduleSize size =
      cut_tiles(group.grids.data(), int64_t(group.grids.size()), blocks, group.cuts.data());
  group.tasks_at = table_bytes;
  group.cuts_at = align(group.tasks_at + int64_t(group.grids.size() * sizeof(Task)));
  table_bytes = align(group.cuts_at + int64_t(group.cuts.size() * sizeof(TileCut)));
  const int64_t slot =
      int64_t(Tile::kSums) * Tile::kThreads * int64_t(sizeof(typename Tile::Value));
  group.partials_at = workspace_bytes;
  group.counters_at = align(group.partials_at + size.slots * slot);
  group.counters_bytes = size.groups * int64_t(sizeof(int));
  workspace_bytes = align(group.counters_at + group.counters_bytes);
}

inline void fill_cuts(const TileGroup& group, void* table) {
  std::memcpy(static_cast<char*>(table) + group.cuts_at, group.cuts.data(),
              group.cuts.size() * sizeof(TileCut));
}

}  // namespace kronext::cuda
