// The two kernels that sums of congruences are made of: C = sum_s w_s X_s B X_sT for both sides of
// a KroneckerStep (csrc/core/power_iteration.h).
//
// congruence_kernel: one tile of one output of a product for each block,
//
//   out(x, y) = w sum_k left(x, k) right(y, k)
//
// whose k runs through many matrices: through a whole sample for each output, or through many
// samples, where an output is the part of the sum that a fixed range of chunks gives. So every
// step of the way is this product, with other operands (congruence.cu):
//
//   G_s = D_sT A_s         factored samples that are formed
//   T_s = w_s X_s B        for each sample; a copy where B is found to be the identity
//   C   = sum_s T_s X_sT   one long sum over the samples and their depth
//
// and where few positions of factored samples make it cheaper, without forming G_s,
//
//   P_s = A_s B,  M_s = w_s P_s A_sT,  T_s = D_sT M_s,  C = sum_s T_s D_s.
//
// congruence_sum_kernel adds the parts of C in their order, in float64, so the error does not grow
// with the number of samples and results repeat bit for bit; it blends with the old matrix, and
// mirrors the lower triangle where B is symmetric: then the product has made no other tiles.
//
// Operations of a side with samples of dim x depth: dim depth^2 multiply-adds for T_s (none where B
// is the identity) and dim^2 depth for C (half of it where B is symmetric), times the products of
// parts. Bytes: X_s twice, T_s written and read once, the parts of C (one for each 2048 of depth or
// less) likewise.
#pragma once

#include "csrc/cuda/operand.h"
#include "csrc/cuda/structure.cuh"
#include "csrc/cuda/tile_visits.cuh"

namespace kronext::cuda {

struct alignas(16) CongruenceTask {
  SampledOperand left, right;
  void* out;                               // of the kernel's type of value
  int64_t x_stride, y_stride, out_stride;  // in elements; from one output to the next
  const void* weights;                     // w, or null
  int64_t weights_stride;
  const Inspected* inner;     // the right operand, where that is B; or null
  const Inspected* mirrored;  // B, where tiles above the diagonal are not needed if it is symmetric
  int64_t first_block;
  int32_t outputs;
  int32_t chunks, all_chunks;  // of k, for each output and in all
  int32_t x_tiles, y_tiles;
  int32_t positions;  // of a sample, where an output serves many: entries between samples are zero
  Dtype weights_dtype;
};

template <class Value>
__device__ __forceinline__ Value load_entry(const Operand& operand, int x, int k) {
  const void* const data = operand.data;
  const int64_t at = x * operand.x_stride + k * operand.k_stride;
  switch (operand.dtype) {
    case Dtype::kFloat64:
      return Value(static_cast<const double*>(data)[at]);
    case Dtype::kFloat32:
      return Value(static_cast<const float*>(data)[at]);
    case Dtype::kBFloat16:
      return Value(bfloat16_to_float(static_cast<const uint16_t*>(data)[at]));
    case Dtype::kFloat16:
      break;
  }
  return Value(float16_to_float(static_cast<const uint16_t*>(data)[at]));
}

// What a block makes.
template <class Tile>
struct CongruenceTile {
  using Value = typename Tile::Value;

  const CongruenceTask& task;
  int output, row, column;  // of tiles

  __device__ __forceinline__ explicit CongruenceTile(const CongruenceTask& of) : task(of) {
    const int64_t index = int64_t(blockIdx.x) - task.first_block;
    column = int(index % task.y_tiles);
    row = int(index / task.y_tiles % task.x_tiles);
    output = int(index / task.y_tiles / task.x_tiles);
  }

  __device__ __forceinline__ bool unneeded() const {
    return row > column && task.mirrored && task.mirrored->symmetric();
  }

  __device__ __forceinline__ void run(unsigned char* shared) const {
    Value* const tile = reinterpret_cast<Value*>(shared);
    const bool copies = task.inner && task.inner->identity();
    if (!copies) {
      typename Tile::Sums sums = {};
      TileStep step = {};
      step.row = row;
      step.column = column;
      step.first_chunk = output * task.chunks;
      step.last_chunk = step.first_chunk + task.chunks < task.all_chunks
                            ? step.first_chunk + task.chunks
                            : task.all_chunks;
      Tile::accumulate(sums, shared, task.left, task.right, step);
      __syncthreads();  // the operands that lie there have been read
      Tile::spill(sums, tile);
    }
    __syncthreads();
    write(tile, copies);
  }

 private:
  // Neighbouring threads write what is close in memory.
  __device__ __forceinline__ void write(const Value* tile, bool copies) const {
    int chunk = output * task.chunks;
    const Operand& left = matrix_of(task.left, chunk);
    Value* const out = assume_global(static_cast<Value*>(task.out)) + output * task.out_stride;
    const Value scale =
        !task.inner ? Value(1) : Value(copies ? task.inner->identity_scale : task.inner->scale);
    const auto entry = [&](int r, int c) {
      const int x = row * Tile::kTile + r, y = column * Tile::kTile + c;
      if (x >= task.left.x_count || y >= task.right.x_count) return;
      const Value sum = copies ? load_entry<Value>(left, x, y) : tile[Tile::tile_index(r, c)];
      out[x * task.x_stride + y * task.y_stride] = scale * weighted(sum, x, y);
    };
    if (task.x_stride < task.y_stride) {
      visit_columns<Tile>(entry);
    } else {
      visit_rows<Tile>(entry);
    }
  }

  __device__ __forceinline__ Value weighted(Value sum, int x, int y) const {
    int64_t sample = output;
    if (task.positions > 0) {
      if (x / task.positions != y / task.positions) return Value(0);
      sample = int64_t(output) * (task.left.x_count / task.positions) + x / task.positions;
    }
    if (!task.weights) return sum;
    return sum * load_factor<Value>(task.weights, task.weights_dtype, sample * task.weights_stride);
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    congruence_kernel(const CongruenceTask* tasks, int count, const int* done) {
  KRONEXT_DYNAMIC_SHARED(shared);
  if (done && *done) return;
  const CongruenceTile<Tile> tile(task_of_block(tasks, count, &CongruenceTask::first_block));
  if (!tile.unneeded()) tile.run(shared);
}

struct CongruenceSumTask {
  const void* parts;  // of the type of value that the products have
  int64_t pitch;      // from one row of a part to the next
  double* sums;       // of the parts of earlier groups of samples
  void* out;
  int64_t out_stride;
  double decay, weight;
  const Inspected* inner;
  int64_t first_block;
  int32_t dim, count;
  Dtype out_dtype;
  int8_t first, last;  // group of samples
};

struct CongruenceSum {
  static constexpr int kThreads = 256, kTile = 32, kRows = kTile * kTile / kThreads;
  static constexpr int kPitch = kTile + 1;
  static constexpr int kSharedBytes = kTile * kPitch * int(sizeof(double));
};

// A block takes a tile, and its mirror too where B is symmetric.
template <class Value, class Out>
__device__ __forceinline__ void sum_parts_of_tile(const CongruenceSumTask& task, double* tile) {
  constexpr int kTile = CongruenceSum::kTile, kPitch = CongruenceSum::kPitch;
  const int tiles = (task.dim + kTile - 1) / kTile;
  const int index = int(int64_t(blockIdx.x) - task.first_block);
  const int row = index / tiles * kTile, column = index % tiles * kTile;
  const bool symmetric = task.inner->symmetric();
  if (symmetric && column > row) return;
  const auto* const parts = static_cast<const Value*>(task.parts);
  Out* const out = static_cast<Out*>(task.out);
  const int c = int(threadIdx.x) % kTile, first = int(threadIdx.x) / kTile;
  constexpr int kStep = CongruenceSum::kThreads / kTile;
  for (int r = first; r < kTile; r += kStep) {
    const int i = row + r, j = column + c;
    if (i >= task.dim || j >= task.dim || (symmetric && j > i)) continue;
    double sum = task.first ? 0 : task.sums[int64_t(i) * task.dim + j];
    for (int part = 0; part < task.count; ++part) {
      sum += double(parts[(int64_t(part) * task.dim + i) * task.pitch + j]);
    }
    if (!task.last) task.sums[int64_t(i) * task.dim + j] = sum;
    sum *= task.weight;
    if (task.last && task.decay != 0) sum += task.decay * double(out[i * task.out_stride + j]);
    tile[r * kPitch + c] = sum;
  }
  if (!task.last) return;
  __syncthreads();
  for (int r = first; r < kTile; r += kStep) {
    const bool above = symmetric && column + c > row + r;
    if (row + r < task.dim && column + c < task.dim) {
      out[(row + r) * task.out_stride + column + c] =
          Out(above ? tile[c * kPitch + r] : tile[r * kPitch + c]);
    }
    if (symmetric && row != column && column + r < task.dim && row + c < task.dim) {
      out[(column + r) * task.out_stride + row + c] = Out(tile[c * kPitch + r]);
    }
  }
}

template <class Value>
__global__ void __launch_bounds__(CongruenceSum::kThreads)
    congruence_sum_kernel(const CongruenceSumTask* tasks, int count, const int* done) {
  KRONEXT_DYNAMIC_SHARED(shared);
  if (done && *done) return;
  const CongruenceSumTask& task = task_of_block(tasks, count, &CongruenceSumTask::first_block);
  double* const tile = reinterpret_cast<double*>(shared);
  if (task.out_dtype == Dtype::kFloat64) {
    sum_parts_of_tile<Value, double>(task, tile);
  } else {
    sum_parts_of_tile<Value, float>(task, tile);
  }
}

}  // namespace kronext::cuda
