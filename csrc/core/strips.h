// How the tiles of a product are cut into strips, the units of work that threads take.
//
// The output of a product of two packed operands is a grid of square tiles. A strip is one row panel
// times a run of column panels: its row panel stays in the first-level cache while the column panels
// stream past, and the runs are as wide as the second-level cache holds, so consecutive row panels
// find their columns there.
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

// Visits every tile of a rows x columns grid once.
template <class Visitor>
void for_each_strip(int64_t rows, int64_t columns, int64_t width, const Visitor& visit) {
  for (int64_t first = 0; first < columns; first += width) {
    const int64_t last = first + width < columns ? first + width : columns;
    for (int64_t row = 0; row < rows; ++row) visit(Strip{row, first, last});
  }
}

// Visits every tile on or below the diagonal of a panels x panels grid once.
template <class Visitor>
void for_each_lower_strip(int64_t panels, int64_t width, const Visitor& visit) {
  for (int64_t first = 0; first < panels; first += width) {
    for (int64_t row = first; row < panels; ++row) {
      const int64_t last = first + width < row + 1 ? first + width : row + 1;
      visit(Strip{row, first, last});
    }
  }
}

}  // namespace kronext
