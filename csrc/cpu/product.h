// Products of packed panels: the one micro-kernel behind outer, precondition and power_iteration.
//
//   tile[r][c] = sum_k left[k][r] right[k][c],   0 <= r, c < kPanel<T>
//
// A step of the depth is kRows broadcasts of the left panel against two vectors of the right one,
// so kRows * 2 accumulators stay in registers and every loaded value is used at least kRows times.
// The depth is cut into chunks whose two panel pieces fit the first-level cache; chunks are summed
// separately before they are added up, which also halves the rounding error of a long sum. A step
// costs 2 * kPanel^2 operations, and the order of summation depends on the depth alone: the same
// element comes out bit for bit the same whichever tile, strip or thread makes it.
#pragma once

#include "csrc/core/strips.h"
#include "csrc/cpu/pack.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T>
constexpr int kTileSize = kPanel<T> * kPanel<T>;
constexpr int kRows = kVectorRegisters == 32 ? 8 : 4;
template <class T>
constexpr int64_t kChunk = 96 * 16 / kLanes<T> * int64_t(sizeof(float)) / int64_t(sizeof(T));

// The values of a panel, and what their products are summed in.
template <class P>
struct PanelValue {
  using Sum = P;
  static KRONEXT_INLINE Vector<P> multiply_add(Vector<P> a, Vector<P> b, Vector<P> sum) {
    return sum + a * b;
  }
};
template <class P>
using Sum = typename PanelValue<P>::Sum;

template <class P, int kVectors>
KRONEXT_INLINE void multiply_rows(const P* left, const P* right, int64_t depth, bool accumulate,
                                  Sum<P>* tile, int64_t stride) {
  constexpr int kW = kPanel<P>, kL = kLanes<P>;
  Vector<Sum<P>> sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, left += kW, right += kW) {
    Vector<P> value[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) value[v] = load(right + v * kL);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector<P> factor = splat(left[r]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = PanelValue<P>::multiply_add(factor, value[v], sum[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Sum<P>* out = tile + r * stride + v * kL;
      store(out, accumulate ? load(out) + sum[r][v] : sum[r][v]);
    }
  }
}

// One tile, whose rows lie `stride` values apart; rows and columns past the given counts may stay
// unwritten.
template <class P>
void multiply_tile(const P* left, const P* right, int64_t depth, int rows, int columns,
                   bool accumulate, Sum<P>* tile, int64_t stride = kPanel<P>) {
  if (columns > kLanes<P>) {
    for (int r = 0; r < rows; r += kRows) {
      multiply_rows<P, 2>(left + r, right, depth, accumulate, tile + r * stride, stride);
    }
  } else {
    for (int r = 0; r < rows; r += kRows) {
      multiply_rows<P, 1>(left + r, right, depth, accumulate, tile + r * stride, stride);
    }
  }
}

// The lower triangle of the tile of a panel against itself; the rest is left as it is where that
// saves work.
template <class P>
void multiply_diagonal_tile(const P* panel, int64_t depth, int rows, bool accumulate,
                            Sum<P>* tile) {
  for (int r = 0; r < rows; r += kRows) {
    multiply_tile(panel + r, panel, depth, kRows, r + kRows, accumulate, tile + r * kPanel<P>);
  }
}

template <class T>
void scale_tile(T* tile, int rows, T factor) {
  for (T* at = tile; at < tile + rows * kPanel<T>; at += kLanes<T>) store(at, factor * load(at));
}

// Calls chunk(begin, count) for each chunk of the depth, at least once.
template <class P, class Chunk>
KRONEXT_INLINE void for_chunks(int64_t depth, const Chunk& chunk) {
  const int64_t chunks = maximum<int64_t>(1, ceil_divide(depth, kChunk<P>));
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t begin = i * depth / chunks;
    chunk(begin, (i + 1) * depth / chunks - begin);
  }
}

// Consecutive panels of an operand, `stride` values apart; the last one has `last_extent` rows (or
// columns).
template <class P>
struct PanelRun {
  const P* first;
  int64_t stride;
  int64_t count;
  int last_extent;

  int extent(int64_t panel) const { return panel + 1 < count ? kPanel<P> : last_extent; }
};

// The tiles of row panels against column panels: tile (r, c) is written to tiles + (r *
// columns.count + c) * kTileSize<P>. Several row panels share each piece of the column panels while
// it is in the second-level cache.
template <class P>
void multiply_block(const PanelRun<P>& rows, const PanelRun<P>& columns, int64_t depth,
                    bool accumulate, Sum<P>* tiles) {
  for_chunks<P>(depth, [&](int64_t begin, int64_t count) {
    Sum<P>* tile = tiles;
    for (int64_t r = 0; r < rows.count; ++r) {
      for (int64_t c = 0; c < columns.count; ++c, tile += kTileSize<P>) {
        multiply_tile(rows.first + r * rows.stride + begin * kPanel<P>,
                      columns.first + c * columns.stride + begin * kPanel<P>, count, rows.extent(r),
                      columns.extent(c), accumulate || begin > 0, tile);
      }
    }
  });
}

// The tiles of one row panel against `count` column panels that lie `stride` values apart; the last
// one has `last_columns` columns. Tile t is written to tiles + t * kTileSize<P>.
template <class P>
void multiply_strip(const P* left, const P* right, int64_t stride, int64_t depth, int64_t count,
                    int rows, int last_columns, bool accumulate, Sum<P>* tiles) {
  multiply_block<P>({left, 0, 1, rows}, {right, stride, count, last_columns}, depth, accumulate,
                    tiles);
}

// The tiles of a strip on or below the diagonal of X XT, whose row panel has `rows` rows. On the
// diagonal the square above it stays unwritten. fetch(column) is called before each tile is begun,
// so that what its epilogue needs can come meanwhile.
template <class P, class Fetch>
void multiply_lower_strip(const P* panels, int64_t stride, int64_t depth, const Strip& strip,
                          int rows, const Fetch& fetch, Sum<P>* tiles) {
  const P* left = panels + strip.row * stride;
  for_chunks<P>(depth, [&](int64_t begin, int64_t count) {
    Sum<P>* tile = tiles;
    for (int64_t c = strip.first_column; c < strip.last_column; ++c, tile += kTileSize<P>) {
      if (begin == 0) fetch(c);
      const P* right = panels + c * stride + begin * kPanel<P>;
      if (c == strip.row) {
        multiply_diagonal_tile(right, count, rows, begin > 0, tile);
      } else {
        multiply_tile(left + begin * kPanel<P>, right, count, rows, kPanel<P>, begin > 0, tile);
      }
    }
  });
}

// Rows (or columns) of panel `index` of a side with `extent` of them.
template <class T>
KRONEXT_INLINE int panel_extent(int64_t extent, int64_t index) {
  return int(minimum<int64_t>(kPanel<T>, extent - index * kPanel<T>));
}

}  // namespace kronext::cpu::KRONEXT_CPU
