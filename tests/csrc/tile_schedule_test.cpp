// Every tile is made exactly once along its whole depth, the parts of a split tile know each other,
// and no block has more than one tile beyond its share.
#include "csrc/core/tile_schedule.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "tests/csrc/expect.h"

using namespace kronext;
using Tile = std::tuple<int, int, int>;

// Walks all blocks as the kernel does; returns the steps of each tile and the cost of each block.
static std::map<Tile, std::vector<TileStep>> walk(const std::vector<TileGrid>& grids,
                                                  const std::vector<TileCut>& cuts,
                                                  std::vector<int64_t>& costs) {
  std::map<Tile, std::vector<TileStep>> tiles;
  for (size_t block = 0; block + 1 < cuts.size(); ++block) {
    int64_t cost = 0;
    TileCut at = cuts[block];
    while (!at_end(at, cuts[block + 1])) {
      const TileGrid& grid = grids.at(size_t(at.grid));
      const TileStep step = take_step(at, cuts[block + 1], grid);
      cost +=
          step.last_chunk - step.first_chunk + (step.part + 1 == step.parts ? grid.epilogue : 0);
      tiles[{step.grid, step.row, step.column}].push_back(step);
    }
    costs.push_back(cost);
  }
  return tiles;
}

static void check_tile(const Tile& tile, const TileGrid& grid, std::vector<TileStep> steps,
                       std::set<int>& slots, std::set<int>& groups) {
  const auto [number, row, column] = tile;
  std::sort(steps.begin(), steps.end(),
            [](const TileStep& a, const TileStep& b) { return a.part < b.part; });
  int chunk = 0;
  for (size_t part = 0; part < steps.size(); ++part) {
    const TileStep& step = steps[part];
    EXPECT(step.first_chunk == chunk && step.part == int(part) && step.parts == int(steps.size()),
           "grid %d tile (%d, %d): part %zu begins at chunk %d of %d as part %d of %d", number, row,
           column, part, step.first_chunk, chunk, step.part, step.parts);
    chunk = step.last_chunk;
    if (steps.size() == 1) continue;
    EXPECT(step.last_chunk - step.first_chunk >= kMinPartChunks, "grid %d: a part of %d chunks",
           number, step.last_chunk - step.first_chunk);
    EXPECT(step.group == steps[0].group && step.slot == steps[0].slot, "grid %d: parts disagree",
           number);
    EXPECT(slots.insert(step.slot + step.part).second, "slot %d is used twice",
           step.slot + step.part);
  }
  EXPECT(chunk == grid.chunks, "grid %d tile (%d, %d) ends at chunk %d of %d", number, row, column,
         chunk, grid.chunks);
  if (steps.size() > 1) {
    EXPECT(groups.insert(steps[0].group).second, "group %d is used twice", steps[0].group);
  }
}

static void check_schedule(const std::vector<TileGrid>& grids, int64_t blocks) {
  std::vector<TileCut> cuts(size_t(blocks) + 1);
  const TileScheduleSize size = cut_tiles(grids.data(), int64_t(grids.size()), blocks, cuts.data());
  std::vector<int64_t> costs;
  const auto tiles = walk(grids, cuts, costs);

  size_t expected = 0;
  int64_t total = 0, longest_tile = 0;
  for (const TileGrid& grid : grids) {
    expected += size_t(tile_count(grid));
    total += tile_count(grid) * tile_cost(grid);
    longest_tile = std::max(longest_tile, tile_cost(grid));
  }
  EXPECT(tiles.size() == expected, "%zu tiles of %zu are made", tiles.size(), expected);
  std::set<int> slots, groups;
  for (const auto& [tile, steps] : tiles) {
    const auto [grid, row, column] = tile;
    const TileGrid& g = grids[size_t(grid)];
    EXPECT(row < g.rows && column < (g.lower ? row + 1 : g.columns), "grid %d has no tile (%d, %d)",
           grid, row, column);
    check_tile(tile, grids[size_t(grid)], steps, slots, groups);
  }
  EXPECT(int64_t(slots.size()) == size.slots && int64_t(groups.size()) == size.groups,
         "%zu slots of %ld, %zu groups of %ld", slots.size(), long(size.slots), groups.size(),
         long(size.groups));
  for (int64_t cost : costs) {
    EXPECT(cost <= total / blocks + longest_tile,
           "a block costs %ld, the average is %ld, a tile %ld", long(cost), long(total / blocks),
           long(longest_tile));
  }
}

int main() {
  std::mt19937 random(1);
  const auto below = [&](uint32_t n) { return int32_t(random() % n); };
  for (int round = 0; round < 2000; ++round) {
    std::vector<TileGrid> grids(size_t(below(6)));
    for (TileGrid& grid : grids) {
      const auto panels = [&] { return 1 + (below(3) ? below(4) : below(30)); };
      grid = {panels(), panels(), below(3) ? below(20) : below(600), 1 + below(40), below(2)};
    }
    check_schedule(grids, 1 + below(200));
  }
  // One long tile on many blocks, and a thousand tiny ones.
  check_schedule({{1, 1, 4096, 20, 1}}, 132);
  check_schedule(std::vector<TileGrid>(1000, {1, 1, 1, 16, 0}), 396);
  for (int64_t number = 0; number < 5000; ++number) {
    int32_t row, column;
    tile_at({100, 100, 1, 1, 1}, number, row, column);
    EXPECT(column <= row && int64_t(row) * (row + 1) / 2 + column == number, "tile %ld is (%d, %d)",
           long(number), row, column);
  }
  return failures != 0;
}
