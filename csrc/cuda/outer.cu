#include "csrc/cuda/outer.h"

#include <algorithm>
#include <cstring>

#include "csrc/cuda/outer_kernel.cuh"
#include "csrc/cuda/outer_tiles.cuh"

namespace kronext::cuda {
namespace {

// ---- planning
// ------------------------------------------------------------------------------------------

// Reading and writing a tile of the factor, in multiply-adds of the tensor cores that take as long.
constexpr int64_t kEpilogueDepth = 512;
// Small tiles reread their operands more often from shared memory.
constexpr double kSmallTileCost = 1.33;

constexpr int64_t kAlignment = 256;

int64_t align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int32_t tiles_over(int64_t length, int64_t tile) { return int32_t((length + tile - 1) / tile); }

bool is_double(const OuterSide& side) {
  return side.x.dtype == Dtype::kFloat64 || side.factor.dtype == Dtype::kFloat64;
}

// A dimension of length 1 has no step that matters.
int64_t step_of(int64_t stride, int64_t length) { return length > 1 ? stride : 0; }

// The direction in which neighbours are close in memory.
bool runs_down(const Matrix& x) {
  if (x.columns <= 1) return x.rows > 1;
  return x.rows > 1 && x.row_stride < x.column_stride;
}

bool share_x(const OuterSide& a, const OuterSide& b) {
  const Matrix x = a.x.transposed();
  return x.data == b.x.data && x.dtype == b.x.dtype && x.rows == b.x.rows &&
         x.columns == b.x.columns && x.row_stride == b.x.row_stride &&
         x.column_stride == b.x.column_stride && a.decay == b.decay && a.weight == b.weight &&
         a.factor.data != b.factor.data;
}

// What one launch makes: the sides that one arithmetic serves, under one size of tile.
struct Candidate {
  OuterGroup group;
  int64_t blocks = 1;
  double time = 0;  // only to be compared
};

template <class Tile>
void add_side(Tile, const OuterSide* sides, const std::vector<int64_t>& members, size_t& i,
              OuterGroup& group) {
  const OuterSide& side = sides[members[i]];
  int64_t first = members[i], second = -1;
  TileGrid grid = {tiles_over(side.x.rows, Tile::kTile), tiles_over(side.x.columns, Tile::kDepth),
                   int32_t(kEpilogueDepth / Tile::kDepth)};
  const auto fits = [](int64_t length) { return length > 0 && length <= Tile::kTile; };
  if (Tile::kPairs && fits(side.x.rows) && fits(side.x.columns) && i + 1 < members.size() &&
      share_x(side, sides[members[i + 1]])) {
    second = members[++i];
    if (runs_down(side.x)) std::swap(first, second);
    grid.epilogue *= 2;
  }
  if (grid.panels == 0) return;
  group.sides.push_back(first);
  group.second.push_back(second);
  group.grids.push_back(grid);
}

Candidate candidate(OuterKernel kernel, const OuterSide* sides, const std::vector<int64_t>& members,
                    const DeviceShape& device) {
  return with_tile(kernel, [&](auto tile) {
    using Tile = decltype(tile);
    Candidate result;
    result.group.kernel = kernel;
    for (size_t i = 0; i < members.size(); ++i) add_side(tile, sides, members, i, result.group);
    int64_t cost = 0, most_blocks = 0;
    for (const TileGrid& grid : result.group.grids) {
      cost += lower_tiles(grid) * tile_cost(grid);
      most_blocks += lower_tiles(grid) * most_parts(grid);
    }
    const int fitting = device.shared_bytes / (kOuterSharedBytes<Tile> + kReservedSharedBytes);
    const int together = std::max(1, std::min(Tile::kBlocks, fitting));
    result.blocks = std::max<int64_t>(
        1, std::min<int64_t>(most_blocks, int64_t(device.multiprocessors) * together));
    const int64_t sharing = tiles_over(result.blocks, device.multiprocessors);
    const double chunk = double(Tile::kTile) * Tile::kTile * Tile::kDepth;
    result.time = std::max<double>(1, double(cost) / double(result.blocks)) * chunk *
                  double(sharing) * (Tile::kTile < 128 ? kSmallTileCost : 1);
    return result;
  });
}

struct Choice {
  OuterKernel small, large;
};

Choice kernels_for(const OuterSide& side, MatmulPrecision precision) {
  if (is_double(side)) return {OuterKernel::kDouble, OuterKernel::kDouble};
  if (side.x.dtype == Dtype::kBFloat16) {
    return {OuterKernel::kBFloat16Small, OuterKernel::kBFloat16Large};
  }
  if (side.x.dtype == Dtype::kFloat16) {
    return {OuterKernel::kFloat16Small, OuterKernel::kFloat16Large};
  }
  switch (precision) {
    case MatmulPrecision::kMedium:
      return {OuterKernel::kOnePartSmall, OuterKernel::kOnePartLarge};
    case MatmulPrecision::kHigh:
      return {OuterKernel::kTwoPartsSmall, OuterKernel::kTwoPartsLarge};
    case MatmulPrecision::kHighest:
      break;
  }
  return {OuterKernel::kThreePartsSmall, OuterKernel::kThreePartsLarge};
}

// Cuts the work among blocks and gives the group its places in table and workspace.
void place(OuterGroup& group, int64_t blocks, OuterPlan& plan) {
  group.cuts.resize(size_t(blocks) + 1);
  const OuterScheduleSize size = cut_outer_schedule(group.grids.data(), int64_t(group.grids.size()),
                                                    blocks, group.cuts.data());
  group.tasks_at = plan.table_bytes;
  group.cuts_at = align(group.tasks_at + int64_t(group.grids.size() * sizeof(OuterTask)));
  plan.table_bytes = align(group.cuts_at + int64_t(group.cuts.size() * sizeof(OuterCut)));
  const int64_t slot = with_tile(group.kernel, [](auto tile) {
    using Tile = decltype(tile);
    return int64_t(Tile::kSums) * Tile::kThreads * int64_t(sizeof(typename Tile::Value));
  });
  group.partials_at = plan.workspace_bytes;
  group.counters_at = align(group.partials_at + size.slots * slot);
  group.counters_bytes = size.groups * int64_t(sizeof(int));
  plan.workspace_bytes = align(group.counters_at + group.counters_bytes);
}

// ---- the table
// -----------------------------------------------------------------------------------------

bool aligned(const void* pointer, int64_t step_bytes) {
  return uintptr_t(pointer) % 16 == 0 && step_bytes % 16 == 0;
}

int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
}

bool has_vector_rows(const Matrix& factor) {
  return factor.dtype == Dtype::kFloat32 && aligned(factor.data, factor.rows * 4);
}

OuterTask describe(const OuterSide& side, const OuterSide* second, const TileGrid& grid) {
  const Matrix& x = side.x;
  OuterTask task = {};
  task.x = x.data;
  task.row_stride = step_of(x.row_stride, x.rows);
  task.column_stride = step_of(x.column_stride, x.columns);
  task.factor = side.factor.data;
  task.second_factor = second ? second->factor.data : nullptr;
  task.rows = int32_t(x.rows);
  task.columns = int32_t(x.columns);
  task.panels = grid.panels;
  task.chunks = grid.chunks;
  task.dtype = x.dtype;
  task.factor_dtype = side.factor.dtype;
  task.transposed = !second && runs_down(x);
  const int64_t along = task.transposed ? task.row_stride : task.column_stride;
  const int64_t across = task.transposed ? task.column_stride : task.row_stride;
  const int64_t length = task.transposed ? x.rows : x.columns;
  task.vector = (along == 1 || length == 1) && aligned(x.data, across * bytes_of(x.dtype));
  task.factor_vector = has_vector_rows(side.factor);
  task.second_vector = second && has_vector_rows(second->factor);
  task.decay = {side.decay, float(side.decay)};
  task.weight = {side.weight, float(side.weight)};
  return task;
}

}  // namespace

OuterPlan plan_outer(const OuterSide* sides, int64_t count, MatmulPrecision precision,
                     const DeviceShape& device, TileSize tiles) {
  OuterPlan plan;
  std::vector<bool> taken(static_cast<size_t>(count), false);
  for (int64_t i = 0; i < count; ++i) {
    if (taken[size_t(i)]) continue;
    const Choice kernels = kernels_for(sides[i], precision);
    std::vector<int64_t> members;
    for (int64_t j = i; j < count; ++j) {
      if (taken[size_t(j)] || kernels_for(sides[j], precision).small != kernels.small) continue;
      taken[size_t(j)] = true;
      members.push_back(j);
    }
    Candidate small = candidate(kernels.small, sides, members, device);
    Candidate large = candidate(kernels.large, sides, members, device);
    const bool takes_large =
        tiles == TileSize::kFastest ? large.time < small.time : tiles == TileSize::kLarge;
    Candidate& best = takes_large ? large : small;
    if (best.group.grids.empty()) continue;
    place(best.group, best.blocks, plan);
    plan.groups.push_back(std::move(best.group));
  }
  return plan;
}

void fill_outer_table(const OuterPlan& plan, const OuterSide* sides, void* table) {
  char* const bytes = static_cast<char*>(table);
  for (const OuterGroup& group : plan.groups) {
    auto* const tasks = reinterpret_cast<OuterTask*>(bytes + group.tasks_at);
    for (size_t i = 0; i < group.grids.size(); ++i) {
      const int64_t second = group.second[i];
      tasks[i] =
          describe(sides[group.sides[i]], second < 0 ? nullptr : &sides[second], group.grids[i]);
    }
    std::memcpy(bytes + group.cuts_at, group.cuts.data(), group.cuts.size() * sizeof(OuterCut));
  }
}

cudaError_t outer_update(const OuterPlan& plan, const void* table, void* workspace,
                         cudaStream_t stream) {
  const char* const tables = static_cast<const char*>(table);
  char* const space = static_cast<char*>(workspace);
  for (const OuterGroup& group : plan.groups) {
    if (group.counters_bytes > 0) {
      const cudaError_t status =
          cudaMemsetAsync(space + group.counters_at, 0, size_t(group.counters_bytes), stream);
      if (status != cudaSuccess) return status;
    }
    const cudaError_t status = with_tile(group.kernel, [&](auto tile) {
      using Tile = decltype(tile);
      const LaunchShape shape = {int64_t(group.cuts.size()) - 1, Tile::kThreads,
                                 kOuterSharedBytes<Tile>};
      return launch(outer_kernel<Tile>, shape, stream,
                    reinterpret_cast<const OuterTask*>(tables + group.tasks_at),
                    reinterpret_cast<const OuterCut*>(tables + group.cuts_at),
                    reinterpret_cast<typename Tile::Value*>(space + group.partials_at),
                    reinterpret_cast<int*>(space + group.counters_at));
    });
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace kronext::cuda
