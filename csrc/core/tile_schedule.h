// Which block of a CUDA grid makes which output tiles of a ragged list of products.
//
// The work is a line: all tiles of all grids one after another, each as long as its cost (its
// chunks of depth, and its epilogue). The line is cut into one equal piece for each block. A cut
// that falls inside a tile splits it along its depth, so that few large tiles keep a whole device
// busy; the parts of a tile belong to consecutive blocks and are summed in that order, whoever
// comes last. A block then differs from the average by less than one tile.
//
// Only the cuts are stored: a block walks from one to the next. They depend on shapes alone and
// cost O(grids + blocks) to make, whatever the number of tiles.
#pragma once

#include <stdint.h>

#include "csrc/core/host_device.h"

namespace kronext {

// The tiles of one product, row by row.
struct TileGrid {
  int32_t rows, columns;  // tiles along each dimension
  int32_t chunks;         // of depth, in each tile
  int32_t epilogue;       // cost of reading and writing a tile, in chunks
  int32_t lower;          // only the tiles on and below the diagonal
};

// A place on the line.
struct alignas(16) TileCut {
  int32_t grid;
  int32_t row, column;  // of the tile
  int32_t chunk;        // 0: at the beginning of the tile, which is then not split here
  int32_t part;         // of the tile, counted from 0: the part that begins here
  int32_t parts;        // of the tile, in all
  int32_t slot;         // of the first part's partial sums
  int32_t group;        // of the tile among all split tiles
};

struct TileScheduleSize {
  int64_t slots = 0;   // partial tiles of workspace
  int64_t groups = 0;  // split tiles, with an arrival counter each
};

// A part has at least so many chunks: its partial sums are written and read again.
constexpr int64_t kMinPartChunks = 8;
// The last block to arrive reads all parts of a tile.
constexpr int64_t kMaxParts = 32;

KRONEXT_HOST_DEVICE int64_t tile_count(const TileGrid& grid) {
  return grid.lower ? int64_t(grid.rows) * (grid.rows + 1) / 2 : int64_t(grid.rows) * grid.columns;
}

KRONEXT_HOST_DEVICE int64_t tile_cost(const TileGrid& grid) {
  return int64_t(grid.chunks) + grid.epilogue;
}

// The parts that cuts may divide a tile into.
KRONEXT_HOST_DEVICE int64_t most_parts(const TileGrid& grid) {
  const int64_t parts = grid.chunks / kMinPartChunks;
  return parts < 1 ? 1 : parts > kMaxParts ? kMaxParts : parts;
}

KRONEXT_HOST_DEVICE bool same_tile(const TileCut& a, const TileCut& b) {
  return a.grid == b.grid && a.row == b.row && a.column == b.column;
}

// Row and column of tile `number`, counted along the rows of the grid.
KRONEXT_HOST_DEVICE void tile_at(const TileGrid& grid, int64_t number, int32_t& row,
                                 int32_t& column) {
  if (!grid.lower) {
    row = int32_t(number / grid.columns);
    column = int32_t(number % grid.columns);
    return;
  }
  int64_t low = 0, high = int64_t(1) << 31;  // row (row + 1) / 2 <= number
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (middle * (middle + 1) / 2 <= number ? low : high) = middle;
  }
  row = int32_t(low);
  column = int32_t(number - low * (low + 1) / 2);
}

// Cuts the line into `blocks` pieces: block b works from cuts[b] to cuts[b + 1].
// Every grid has at least one tile.
static inline TileScheduleSize cut_tiles(const TileGrid* grids, int64_t count, int64_t blocks,
                                         TileCut* cuts) {
  int64_t total = 0;
  for (int64_t g = 0; g < count; ++g) total += tile_count(grids[g]) * tile_cost(grids[g]);

  TileScheduleSize size;
  int64_t grid = 0, passed = 0;  // grids before this one, and their cost
  int64_t split_from = 0;        // first cut inside the tile of the latest cut
  for (int64_t b = 0; b <= blocks; ++b) {
    const int64_t position = total / blocks * b + total % blocks * b / blocks;
    while (grid < count && position - passed >= tile_count(grids[grid]) * tile_cost(grids[grid])) {
      passed += tile_count(grids[grid]) * tile_cost(grids[grid]);
      ++grid;
    }
    TileCut& cut = cuts[b];
    cut = {int32_t(grid), 0, 0, 0, 0, 1, 0, 0};
    if (grid == count) continue;
    const TileGrid& here = grids[grid];
    int64_t tile = (position - passed) / tile_cost(here);
    const int64_t inside = (position - passed) % tile_cost(here), parts = most_parts(here);
    // To the nearer end of the part that it falls into; the epilogue belongs to the last part.
    int64_t part = here.chunks == 0 ? 0 : inside * parts / here.chunks;
    if (part >= parts) part = parts - 1;
    const int64_t begin = here.chunks * part / parts;
    const int64_t end = part + 1 == parts ? tile_cost(here) : here.chunks * (part + 1) / parts;
    if (2 * inside >= begin + end) ++part;
    if (part == parts) {
      ++tile;
      part = 0;
    }
    if (tile == tile_count(here)) {
      cut.grid = int32_t(grid + 1);
      continue;
    }
    tile_at(here, tile, cut.row, cut.column);
    cut.chunk = int32_t(here.chunks * part / parts);
    if (cut.chunk == 0) continue;
    // Parts are numbered by the cuts that really fall into the tile; equal cuts leave a block idle.
    if (b > 0 && cuts[b - 1].chunk > 0 && same_tile(cuts[b - 1], cut)) {
      const TileCut& before = cuts[b - 1];
      const int32_t is_new = before.chunk < cut.chunk;
      cut.part = before.part + is_new;
      cut.slot = before.slot;
      cut.group = before.group;
      size.slots += is_new;
    } else {
      split_from = b;
      cut.part = 1;
      cut.slot = int32_t(size.slots);
      cut.group = int32_t(size.groups++);
      size.slots += 2;
    }
    for (int64_t c = split_from; c <= b; ++c) cuts[c].parts = cut.part + 1;
  }
  return size;
}

// One tile, or one part of it, as a block meets it on its way between two cuts.
struct TileStep {
  int32_t grid, row, column;
  int32_t first_chunk, last_chunk;
  int32_t part, parts, slot, group;
};

KRONEXT_HOST_DEVICE bool at_end(const TileCut& at, const TileCut& end) {
  return same_tile(at, end) && at.chunk == end.chunk;
}

// Takes the step that begins at `at`, in its grid, and moves `at` behind it.
KRONEXT_HOST_DEVICE TileStep take_step(TileCut& at, const TileCut& end, const TileGrid& grid) {
  const bool begins_split = at.chunk > 0, ends_split = same_tile(at, end);
  TileStep step = {at.grid, at.row, at.column, at.chunk, grid.chunks, 0, 1, 0, 0};
  if (ends_split) {
    step.last_chunk = end.chunk;
    step.parts = end.parts;
    step.slot = end.slot;
    step.group = end.group;
  }
  if (begins_split) {
    step.part = at.part;
    step.parts = at.parts;
    step.slot = at.slot;
    step.group = at.group;
  }
  if (ends_split) {
    at = end;
    return step;
  }
  at.chunk = 0;
  if (++at.column > (grid.lower ? at.row : grid.columns - 1)) {
    at.column = 0;
    ++at.row;
  }
  if (at.row == grid.rows) {
    at.row = 0;
    ++at.grid;
  }
  return step;
}

}  // namespace kronext
