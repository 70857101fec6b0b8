// How a block walks over a finished tile in shared memory to write it out: along the rows of the
// output, one number or four neighbours at a time, without conflicts of banks.
#pragma once

#include <cuda_runtime.h>

namespace kronext::cuda {

// visit(row, column), neighbouring threads along a row of the tile.
template <class Tile, class Visit>
__device__ __forceinline__ void visit_rows(const Visit& visit) {
  for (int i = int(threadIdx.x); i < Tile::kTile * Tile::kTile; i += Tile::kThreads) {
    visit(i / Tile::kTile, i % Tile::kTile);
  }
}

// The same along a column.
template <class Tile, class Visit>
__device__ __forceinline__ void visit_columns(const Visit& visit) {
  visit_rows<Tile>([&](int column, int row) { visit(row, column); });
}

// Four neighbours of a row from (row, column).
template <class Tile, class Visit>
__device__ __forceinline__ void visit_row_vectors(const Visit& visit) {
  constexpr int kVectors = Tile::kTile / 4;  // in a row
  for (int i = int(threadIdx.x); i < Tile::kTile * kVectors; i += Tile::kThreads) {
    visit(i / kVectors, i % kVectors * 4);
  }
}

// Four neighbours of a column from (row, column). A warp takes 4 columns of 32 rows, which no two
// lanes find in one bank.
template <class Tile, class Visit>
__device__ __forceinline__ void visit_column_vectors(const Visit& visit) {
  constexpr int kVectors = Tile::kTile / 4;
  for (int i = int(threadIdx.x); i < Tile::kTile * kVectors; i += Tile::kThreads) {
    const int warp = i / 32, lane = i % 32;
    visit(warp / kVectors * 32 + lane / 4 * 4, warp % kVectors * 4 + lane % 4);
  }
}

}  // namespace kronext::cuda
