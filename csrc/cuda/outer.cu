#include "csrc/cuda/outer.h"

#include <utility>

#include "csrc/cuda/outer_kernel.cuh"
#include "csrc/cuda/outer_tiles.cuh"
#include "csrc/cuda/tile_launch.cuh"

namespace kronext::cuda {
namespace {

// ---- planning -----------------------------------------------------------------------------------

bool is_double(const OuterSide& side) {
  return side.x.dtype == Dtype::kFloat64 || side.factor.dtype == Dtype::kFloat64;
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
  const int32_t panels = tiles_over(side.x.rows, Tile::kTile);
  TileGrid grid = {panels, panels, tiles_over(side.x.columns, Tile::kDepth),
                   int32_t(kEpilogueDepth / Tile::kDepth), true};
  const auto fits = [](int64_t length) { return length > 0 && length <= Tile::kTile; };
  if (Tile::kPairs && fits(side.x.rows) && fits(side.x.columns) && i + 1 < members.size() &&
      share_x(side, sides[members[i + 1]])) {
    second = members[++i];
    if (runs_down(side.x)) std::swap(first, second);
    grid.epilogue *= 2;
  }
  if (panels == 0) return;
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
    const TileEstimate e = estimate<Tile>(result.group.grids, kOuterSharedBytes<Tile>, device);
    result.blocks = e.blocks;
    result.time = e.time;
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

// ---- the table ----------------------------------------------------------------------------------

bool has_vector_rows(const Matrix& factor) {
  return factor.dtype == Dtype::kFloat32 && has_aligned_rows(factor.data, factor.rows * 4);
}

OuterTask describe(const OuterSide& side, const OuterSide* second, const TileGrid& grid) {
  OuterTask task = {};
  // Of a pair, the side that runs along its rows comes first.
  task.x = make_operand(side.x, !second && runs_down(side.x));
  task.grid = grid;
  task.factor = side.factor.data;
  task.second_factor = second ? second->factor.data : nullptr;
  task.factor_dtype = side.factor.dtype;
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
    with_tile(best.group.kernel, [&](auto tile) {
      place<decltype(tile), OuterTask>(best.group, best.blocks, plan.table_bytes,
                                       plan.workspace_bytes);
    });
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
    fill_cuts(group, table);
  }
}

cudaError_t outer_update(const OuterPlan& plan, const void* table, void* workspace,
                         cudaStream_t stream) {
  for (const OuterGroup& group : plan.groups) {
    const cudaError_t status = with_tile(group.kernel, [&](auto tile) {
      using Tile = decltype(tile);
      return launch_tiles<Tile>(outer_kernel<Tile>, group, kOuterSharedBytes<Tile>, table,
                                workspace, stream);
    });
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace kronext::cuda
