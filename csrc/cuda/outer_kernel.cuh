// The kernel around a tile: the epilogue that blends with the factor and writes both triangles.
//
// Bytes: each panel of X is read once for each tile that it takes part in, from the second-level
// cache after the first time; a factor is read in its lower triangle and written once. Operations:
// rows^2 columns multiply-adds a side (half of the full product), times the number of products of
// parts.
#pragma once

#include <type_traits>

#include "csrc/core/tile_schedule.h"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/outer_task.cuh"
#include "csrc/cuda/ptx.cuh"
#include "csrc/cuda/tile_visits.cuh"
#include "csrc/cuda/tile_walk.cuh"

namespace kronext::cuda {

template <class T>
__device__ __forceinline__ T blend(T sum, T old, T decay, T weight) {
  return decay == T(0) ? weight * sum : fma(decay, old, weight * sum);
}

template <class Tile, class Factor>
struct Epilogue {
  using Value = typename Tile::Value;
  static constexpr int kTile = Tile::kTile;

  Value* tile;
  Factor* factor;
  int size, row, column;  // of the factor; its entry at the tile's corner
  bool diagonal;
  Value decay, weight;

  __device__ __forceinline__ bool is_inside(int r, int c) const {
    return row + r < size && column + c < size;
  }

  // decay * factor + weight * sum, into the tile and (off the diagonal) the lower triangle of the
  // factor.
  __device__ __forceinline__ void write_rows() const {
    visit_rows<Tile>([&](int r, int c) {
      if (!is_inside(r, c) || (diagonal && c > r)) return;
      Factor* const at = factor + int64_t(row + r) * size + column + c;
      Value& sum = tile[Tile::tile_index(r, c)];
      sum = blend(sum, decay == Value(0) ? Value(0) : Value(*at), decay, weight);
      if (!diagonal) *at = Factor(sum);
    });
  }

  // Row c of the mirror is column c of the tile; on the diagonal that is the whole tile, from its
  // lower half.
  __device__ __forceinline__ void write_mirror() const {
    visit_columns<Tile>([&](int r, int c) {
      if (!is_inside(r, c)) return;
      factor[int64_t(column + c) * size + row + r] = Factor(mirrored(r, c));
    });
  }

  // The same four numbers at a time, where the rows of the factor are aligned to 16 bytes.
  __device__ __forceinline__ void write_vector_rows() const {
    visit_row_vectors<Tile>([&](int r, int c) {
      if (!is_inside(r, c) || (diagonal && c > r)) return;
      auto* const at = reinterpret_cast<float4*>(factor + int64_t(row + r) * size + column + c);
      auto* const in_tile = reinterpret_cast<float4*>(tile + Tile::tile_index(r, c));
      const float4 sum = *in_tile, old = decay == 0 ? make_float4(0, 0, 0, 0) : *at;
      const float4 value =
          make_float4(blend(sum.x, old.x, decay, weight), blend(sum.y, old.y, decay, weight),
                      blend(sum.z, old.z, decay, weight), blend(sum.w, old.w, decay, weight));
      *in_tile = value;
      if (!diagonal) *at = value;
    });
  }

  __device__ __forceinline__ void write_vector_mirror() const {
    visit_column_vectors<Tile>([&](int r, int c) {
      if (!is_inside(r, c)) return;
      *reinterpret_cast<float4*>(factor + int64_t(column + c) * size + row + r) =
          make_float4(mirrored(r, c), mirrored(r + 1, c), mirrored(r + 2, c), mirrored(r + 3, c));
    });
  }

  __device__ __forceinline__ Value mirrored(int r, int c) const {
    return tile[diagonal && r < c ? Tile::tile_index(c, r) : Tile::tile_index(r, c)];
  }

  __device__ __forceinline__ void write(bool vector) const {
    if constexpr (std::is_same_v<Value, float>) {
      if (vector) {
        write_vector_rows();
        __syncthreads();
        write_vector_mirror();
        return;
      }
    }
    write_rows();
    __syncthreads();
    write_mirror();
  }
};

// Writes the sums of a tile: of X XT, or of XT X into the second factor.
template <class Tile>
__device__ __forceinline__ void finish_tile(const typename Tile::Sums& sums, unsigned char* shared,
                                            const OuterTask& task, const TileStep& step,
                                            bool second) {
  using Value = typename Tile::Value;
  Value* const tile = reinterpret_cast<Value*>(shared);
  __syncthreads();  // the operands that lie there have been read
  Tile::spill(sums, tile);
  __syncthreads();
  const auto write = [&](auto* factor, bool vector) {
    using Factor = std::remove_pointer_t<decltype(factor)>;
    const Epilogue<Tile, Factor> epilogue{tile,
                                          factor,
                                          second ? task.x.k_count : task.x.x_count,
                                          step.row * Tile::kTile,
                                          step.column * Tile::kTile,
                                          step.row == step.column,
                                          task.decay.as<Value>(),
                                          task.weight.as<Value>()};
    epilogue.write(vector);
  };
  void* const factor = second ? task.second_factor : task.factor;
  if constexpr (std::is_same_v<Value, double>) {
    if (task.factor_dtype == Dtype::kFloat64) {
      write(assume_global(static_cast<double*>(factor)), false);
      return;
    }
  }
  write(assume_global(static_cast<float*>(factor)),
        second ? task.second_vector : task.factor_vector);
}

template <class Tile>
constexpr int kOuterSharedBytes = Tile::kSharedBytes + int(sizeof(BlockState));

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    outer_kernel(const OuterTask* tasks, const TileCut* cuts, typename Tile::Value* partials,
                 int* counters) {
  KRONEXT_DYNAMIC_SHARED(shared);
  BlockState& state = *reinterpret_cast<BlockState*>(shared + Tile::kSharedBytes);
  begin_walk(state, cuts);
  while (next_step(state, tasks)) {
    const TileStep& step = state.step;
    const OuterTask& task = tasks[step.grid];
    const bool pair = Tile::kPairs && task.second_factor != nullptr;
    if constexpr (Tile::kPairs) {
      if (pair) Tile::load_pair(shared, task.x);
    }
#pragma unroll 1
    for (int side = 0; side <= int(pair); ++side) {
      typename Tile::Sums sums = {};
      if (!pair) {
        Tile::accumulate_square(sums, shared, task.x, step);
        if (step.parts > 1 && !sum_parts<Tile>(sums, state, partials, counters)) break;
      } else if constexpr (Tile::kPairs) {
        Tile::multiply_pair(sums, shared, side == 1);
      }
      finish_tile<Tile>(sums, shared, task, step, side == 1);
    }
  }
}

}  // namespace kronext::cuda
