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

template <class T, int kVectors>
KRONEXT_INLINE void multiply_rows(const T* left, const T* right, int64_t depth, bool accumulate,
                                  T* tile, int64_t stride) {
  constexpr int kW = kPanel<T>, kL = kLanes<T>;
  Vector<T> sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, left += kW, right += kW) {
    Vector<T> value[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) value[v] = load(right + v * kL);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector<T> factor = splat(left[r]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] += factor * value[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      T* out = tile + r * stride + v * kL;
      store(out, accumulate ? load(out) + sum[r][v] : sum[r][v]);
    }
  }
}

// One tile, whose rows lie `stride` values apart; rows and columns past the given counts may stay
// unwritten.
template <class T>
void multiply_tile(const T* left, const T* right, int64_t depth, int rows, int columns,
                   bool accumulate, T* tile, int64_t stride = kPanel<T>) {
  if (columns > kLanes<T>) {
    for (int r = 0; r < rows; r += kRows) {
      multiply_rows<T, 2>(left + r, right, depth, accumulate, tile + r * stride, stride);
    }
  } else {
    for (int r = 0; r < rows; r += kRows) {
      multiply_rows<T, 1>(left + r, right, depth, accumulate, tile + r * stride, stride);
    }
  }
}

// Consecutive panels of an operand, `stride` values apart; the last one has `last_extent` rows (or
// columns).
template <class T>
struct PanelRun {
  const T* first;
  int64_t stride;
  int64_t count;
  int last_extent;

  int extent(int64_t panel) const { return panel + 1 < count ? kPanel<T> : last_extent; }
};

// The tiles of row panels against column panels: tile (r, c) is written to tiles + (r *
// columns.count + c) * kTileSize<T>. Several row panels share each piece of the column panels while
// it is in the second-level cache.
template <class T>
void multiply_block(const PanelRun<T>& rows, const PanelRun<T>& columns, int64_t depth,
                    bool accumulate, T* tiles) {
  const int64_t chunks = maximum<int64_t>(1, ceil_divide(depth, kChunk<T>));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t begin = chunk * depth / chunks, end = (chunk + 1) * depth / chunks;
    T* tile = tiles;
    for (int64_t r = 0; r < rows.count; ++r) {
      for (int64_t c = 0; c < columns.count; ++c, tile += kTileSize<T>) {
        multiply_tile(rows.first + r * rows.stride + begin * kPanel<T>,
                      columns.first + c * columns.stride + begin * kPanel<T>, end - begin,
                      rows.extent(r), columns.extent(c), accumulate || chunk > 0, tile);
      }
    }
  }
}

// The tiles of one row panel against `count` column panels that lie `stride` values apart; the last
// one has `last_columns` columns. Tile t is written to tiles + t * kTileSize<T>.
template <class T>
void multiply_strip(const T* left, const T* right, int64_t stride, int64_t depth, int64_t count,
                    int rows, int last_columns, bool accumulate, T* tiles) {
  multiply_block<T>({left, 0, 1, rows}, {right, stride, count, last_columns}, depth, accumulate,
                    tiles);
}

// The lower triangle of a tile on the diagonal of X XT, by the same sums as any other; the rest of
// the tile is left as it is where that saves work.
template <class T>
void multiply_diagonal_tile(const T* panel, int64_t depth, int rows, T* tile) {
  const int64_t chunks = maximum<int64_t>(1, ceil_divide(depth, kChunk<T>));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t begin = chunk * depth / chunks, end = (chunk + 1) * depth / chunks;
    const T* piece = panel + begin * kPanel<T>;
    for (int r = 0; r < rows; r += kRows) {
      multiply_tile(piece + r, piece, end - begin, kRows, r + kRows, chunk > 0,
                    tile + r * kPanel<T>);
    }
  }
}

// Rows (or columns) of panel `index` of a side with `extent` of them.
template <class T>
KRONEXT_INLINE int panel_extent(int64_t extent, int64_t index) {
  return int(minimum<int64_t>(kPanel<T>, extent - index * kPanel<T>));
}

}  // namespace kronext::cpu::KRONEXT_CPU
