// How the tiles of a product are cut into strips, the units of work that threads take.
//
// The output of a product of two packed operands is a grid of square tiles. A strip is one row
// panel times a run of column panels: its row panel stays in the first-level cache while the column
// panels stream past, and the runs are as wide as the second-level cache holds, so consecutive row
// panels find their columns there.
#pragma once

#include <stdint.h>

namespace kronext {

struct Strip {
  int64_t row;           // row panel
  int64_t first_column;  // column panels [first_column, last_column)
  int64_t last_column;
};

constexpr int64_t kMaxStripTiles = 16;
constexpr int64_t kStripCacheBytes = 768 * 1024;

// Column panels a strip may hold when one panel takes `panel_bytes`.
static inline int64_t strip_width(int64_t panel_bytes) {
  const int64_t fitting = kStripCacheBytes / (panel_bytes > 0 ? panel_bytes : 1);
  return fitting < 4 ? 4 : fitting > kMaxStripTiles ? kMaxStripTiles : fitting;
}

// The strips that cover the tiles on or below the diagonal of a panels x panels grid, each tile
// once. Strip numbers run down the rows of one run of columns before the next run begins.
static inline int64_t lower_strip_count(int64_t panels, int64_t width) {
  int64_t count = 0;
  for (int64_t first = 0; first < panels; first += width) count += panels - first;
  return count;
}

static inline Strip lower_strip(int64_t panels, int64_t width, int64_t number) {
  int64_t first = 0;
  for (; number >= panels - first; first += width) number -= panels - first;
  const int64_t row = first + number;
  return {row, first, first + width < row + 1 ? first + width : row + 1};
}

}  // namespace kronext
