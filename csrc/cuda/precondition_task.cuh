// What a kernel must know of one product, in device memory.
#pragma once

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/operand.h"

namespace kronext::cuda {

// Where the sums of left(x, k) right(y, k) go.
struct Output {
  void* data;
  int64_t stride;     // between its rows, in elements
  int8_t transposed;  // its rows are y, and x runs along them
  int8_t vector;      // its rows can be written in 16-byte pieces
};

struct alignas(16) ProductTask {
  Operand left, right;
  TileGrid grid;
  Output out;
  void* squares;  // sum of squares of each tile, as the tile's values; null: not wanted
};

// Both products of a small matrix: left(x, k) right(y, k) summed over k is z(x, y), and
// z(x, y) second(w, y) summed over y is the output (x, w).
struct alignas(16) FusedTask {
  Operand left, right;
  Operand second;  // data null: z is the output
  Output out;
  float* norm;  // sum of squares of the output; null: not wanted
};

// Adds the squares of the tiles of one output, all of its values' type.
struct NormTask {
  const void* squares;
  void* norm;
  int64_t tiles;
};

}  // namespace kronext::cuda
