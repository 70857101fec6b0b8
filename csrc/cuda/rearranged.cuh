// Both products with the rearrangement of a dense H in one pass over its rows:
//
//   left[i,i'] = sum_jj' H4[i,j,i',j'] R[j,j'],   right[j,j'] = sum_ii' H4[i,j,i',j'] L[i,i']
//
// Layout. Row (i, j) of H is m segments of n values. A block takes columns of H (whole segments, or
// a piece of one where they are long), `kRows` of the rows j, and a slice of the rows i. Each
// thread keeps 16 bytes of columns all the way: its entries of R and its sums of right stay in
// registers, and each value of H that arrives is multiplied twice. For every i the sums of its
// columns go to shared memory, where those of a segment are added to one entry of left; at the end
// the sums of right are added over the segments there.
//
// Blocks leave partial sums in the workspace, and a second kernel adds them in a fixed order in
// float64: nothing depends on which block comes first. Where R (L) is symmetric it makes left
// (right) so: the mean of both entries, the same bits in both.
//
// Bytes: H once; R once a slice of i, L once for every kRows rows and the partial sums, a few
// percent of H, mostly from the second-level cache. Operations: 4 (mn)^2, so the pass runs at the
// speed of memory (two operations a byte of float32, where an H100 has about twenty).
#pragma once

#include <type_traits>

#include "csrc/cuda/structure.cuh"

namespace kronext::cuda {

struct alignas(16) RearrangedTask {
  const void *h, *l, *r;
  int64_t h_row_stride, h_column_stride, l_row_stride, l_column_stride, r_row_stride,
      r_column_stride;  // in elements
  const Inspected *l_inspected, *r_inspected;
  void *left, *right;    // rows contiguous
  void *lefts, *rights;  // partial sums
  int64_t first_block;
  int64_t first_sum_block;
  int32_t m, n;
  int32_t segments, pieces;  // of a block's columns; of a segment (one of them is 1)
  int32_t row_blocks, column_blocks, slices;
  Dtype factor_dtype;
  int8_t vector;  // 16 bytes of a row at a time

  // Parts that an entry of a result is the sum of.
  __host__ __device__ __forceinline__ int left_parts() const { return row_blocks * pieces; }
  __host__ __device__ __forceinline__ int right_parts() const {
    return slices * (column_blocks / pieces);
  }
};

// The power of two of lanes that share a sum of so many terms.
__device__ __forceinline__ int lanes_for(int terms) {
  int lanes = 1;
  while (lanes < terms && lanes < 32) lanes *= 2;
  return lanes;
}

template <Dtype dtype>
struct Element;
template <>
struct Element<Dtype::kFloat64> {
  using Stored = double;
  static __device__ __forceinline__ double value(double x) { return x; }
};
template <>
struct Element<Dtype::kFloat32> {
  using Stored = float;
  static __device__ __forceinline__ float value(float x) { return x; }
};
template <>
struct Element<Dtype::kBFloat16> {
  using Stored = uint16_t;
  static __device__ __forceinline__ float value(uint16_t x) { return bfloat16_to_float(x); }
};
template <>
struct Element<Dtype::kFloat16> {
  using Stored = uint16_t;
  static __device__ __forceinline__ float value(uint16_t x) { return float16_to_float(x); }
};

// What a block holds; sums are of type T.
template <class T, Dtype dtype>
struct RearrangedTile {
  using Value = T;
  using Source = Element<dtype>;
  static constexpr int kThreads = 128, kBlocks = 3;
  static constexpr int kUnit = 16 / int(sizeof(typename Source::Stored));  // columns of a thread
  // As many as registers hold: each takes a number of R, one of right and one of H a column.
  static constexpr int kRows = (sizeof(T) == 8 ? 12 : 24) / kUnit;
  static constexpr int kColumns = kThreads * kUnit;
  static constexpr int kSharedBytes = kRows * kColumns * int(sizeof(T));
};

template <class Tile>
struct RearrangedPass {
  using T = typename Tile::Value;
  using Stored = typename Tile::Source::Stored;
  static constexpr int kThreads = Tile::kThreads, kUnit = Tile::kUnit, kRows = Tile::kRows;
  static constexpr int kColumns = Tile::kColumns;

  struct alignas(16) Unit {
    Stored element[kUnit];
  };

  const RearrangedTask& task;
  T* shared;
  int row_block, piece, group, slice;
  int first_row;      // j
  int first_segment;  // i'
  int width;          // columns of the block
  int64_t first_column;

  __device__ __forceinline__ RearrangedPass(const RearrangedTask& of, unsigned char* memory)
      : task(of), shared(reinterpret_cast<T*>(memory)) {
    int index = int(int64_t(blockIdx.x) - task.first_block);
    const int columns = index % task.column_blocks;
    index /= task.column_blocks;
    row_block = index % task.row_blocks;
    slice = index / task.row_blocks;
    group = columns / task.pieces;
    piece = columns % task.pieces;
    first_row = row_block * kRows;
    first_segment = group * task.segments;
    const int left = task.m - first_segment;
    const int segments = left < task.segments ? left : task.segments;
    const int rest = task.n - piece * kColumns;
    width = task.pieces > 1 ? (rest < kColumns ? rest : kColumns) : segments * task.n;
    first_column = int64_t(first_segment) * task.n + piece * kColumns;
  }

  // Columns of this thread, of which the first `count` exist.
  __device__ __forceinline__ int my_column() const { return int(threadIdx.x) * kUnit; }
  __device__ __forceinline__ int count() const {
    const int left = width - my_column();
    return left < 0 ? 0 : left > kUnit ? kUnit : left;
  }
  __device__ __forceinline__ int segment_of(int column) const {
    return task.pieces > 1 ? 0 : column / task.n;
  }
  __device__ __forceinline__ int within_segment(int column) const {
    return piece * kColumns + (task.pieces > 1 ? column : column % task.n);
  }

  template <bool vector>
  __device__ __forceinline__ void load_row(T (&h)[kUnit], int i, int row, int count) const {
    const Stored* const from = assume_global(static_cast<const Stored*>(task.h)) +
                               (int64_t(i) * task.n + first_row + row) * task.h_row_stride +
                               (first_column + my_column()) * task.h_column_stride;
    Unit unit = {};
    if (first_row + row < task.n) {
      if (vector && count == kUnit) {
        unit = *reinterpret_cast<const Unit*>(from);
      } else {
#pragma unroll
        for (int u = 0; u < kUnit; ++u) {
          if (u < count) unit.element[u] = from[u * task.h_column_stride];
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kUnit; ++u) h[u] = T(Tile::Source::value(unit.element[u]));
  }

  template <bool vector>
  __device__ __forceinline__ void run() {
    const int count = this->count();
    T r[kRows][kUnit], right[kRows][kUnit] = {};
    int segment[kUnit];
#pragma unroll
    for (int u = 0; u < kUnit; ++u) {
      const bool exists = u < count;
      segment[u] = exists ? segment_of(my_column() + u) : 0;
      const int j2 = exists ? within_segment(my_column() + u) : 0;
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        const bool inside = exists && first_row + row < task.n;
        r[row][u] = inside ? load_factor<T>(
                                 task.r, task.factor_dtype,
                                 (first_row + row) * task.r_row_stride + j2 * task.r_column_stride)
                           : T(0);
      }
    }
    const int first = int(int64_t(slice) * task.m / task.slices);
    const int last = int(int64_t(slice + 1) * task.m / task.slices);
    for (int i0 = first; i0 < last; i0 += kRows) {
      const int batch = last - i0 < kRows ? last - i0 : kRows;
#pragma unroll 1
      for (int b = 0; b < batch; ++b) {
        T h[kRows][kUnit], l[kUnit], left[kUnit] = {};
#pragma unroll
        for (int row = 0; row < kRows; ++row) load_row<vector>(h[row], i0 + b, row, count);
#pragma unroll
        for (int u = 0; u < kUnit; ++u) {
          l[u] = u > 0 && segment[u] == segment[u - 1] ? l[u - 1]
                                                       : load_l(i0 + b, first_segment + segment[u]);
        }
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
#pragma unroll
          for (int u = 0; u < kUnit; ++u) {
            left[u] = fma(h[row][u], r[row][u], left[u]);
            right[row][u] = fma(h[row][u], l[u], right[row][u]);
          }
        }
        keep(left, b);
      }
      __syncthreads();
      write_left(i0, batch);
      __syncthreads();
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) keep(right[row], row);
    __syncthreads();
    write_right();
  }

 private:
  __device__ __forceinline__ T load_l(int i, int i2) const {
    return factor(task.l, i * task.l_row_stride + i2 * task.l_column_stride);
  }
  // Sums are float32 only where L and R are.
  __device__ __forceinline__ T factor(const void* data, int64_t index) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return assume_global(static_cast<const float*>(data))[index];
    } else {
      return load_factor<T>(data, task.factor_dtype, index);
    }
  }

  // Row `row` of the shared memory, whole units of this thread.
  __device__ __forceinline__ void keep(const T (&values)[kUnit], int row) const {
    struct alignas(16) Values {
      T value[16 / sizeof(T)];
    };
    constexpr int kAtOnce = 16 / int(sizeof(T));
#pragma unroll
    for (int u = 0; u < kUnit; u += kAtOnce) {
      Values v;
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) v.value[e] = values[u + e];
      *reinterpret_cast<Values*>(shared + row * kColumns + my_column() + u) = v;
    }
  }

  // Adds the columns of each segment: an entry of left for each of the rows i.
  __device__ __forceinline__ void write_left(int i0, int batch) const {
    T* const lefts = assume_global(static_cast<T*>(task.lefts)) +
                     int64_t(row_block * task.pieces + piece) * task.m * task.m;
    const int segments = task.pieces > 1 ? 1 : width / task.n, length = width / segments;
    const int lanes = lanes_for(length), lane = int(threadIdx.x) % lanes;
    const int sums = batch * segments;
    for (int base = 0; base < sums; base += kThreads / lanes) {
      const int sum = base + int(threadIdx.x) / lanes, b = sum / segments, s = sum % segments;
      T value = 0;
      for (int c = lane; sum < sums && c < length; c += lanes) {
        value += shared[b * kColumns + s * length + c];
      }
      value = sum_lanes(value, lanes);
      if (sum < sums && lane == 0) lefts[int64_t(i0 + b) * task.m + first_segment + s] = value;
    }
  }

  // Adds the segments: entries (j, j') of right.
  __device__ __forceinline__ void write_right() const {
    const int groups = task.column_blocks / task.pieces;
    T* const rights = assume_global(static_cast<T*>(task.rights)) +
                      int64_t(slice * groups + group) * task.n * task.n;
    const int segments = task.pieces > 1 ? 1 : width / task.n, length = width / segments;
    const int rows = task.n - first_row < kRows ? task.n - first_row : kRows;
    for (int e = int(threadIdx.x); e < rows * length; e += kThreads) {
      const int row = e / length, c = e % length;
      T value = 0;
      for (int s = 0; s < segments; ++s) value += shared[row * kColumns + s * length + c];
      rights[int64_t(first_row + row) * task.n + piece * kColumns + c] = value;
    }
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    rearranged_kernel(const RearrangedTask* tasks, int count, const int* done) {
  KRONEXT_DYNAMIC_SHARED(shared);
  if (done && *done) return;
  const RearrangedTask& task = task_of_block(tasks, count, &RearrangedTask::first_block);
  RearrangedPass<Tile> pass(task, shared);
  if (task.vector) {
    pass.template run<true>();
  } else {
    pass.template run<false>();
  }
}

constexpr int kRearrangedSumThreads = 256;
constexpr int64_t kRearrangedSumEntries = 1024;  // of a side, for a block

template <class T>
struct RearrangedSum {
  const RearrangedTask& task;

  // Entry e of a side, by the lanes that share it, as the results hold it.
  __device__ __forceinline__ double entry(bool left, int64_t e, int lanes) const {
    const int parts = left ? task.left_parts() : task.right_parts();
    const int64_t size = left ? int64_t(task.m) * task.m : int64_t(task.n) * task.n;
    const T* const from = static_cast<const T*>(left ? task.lefts : task.rights);
    double sum = 0;
    for (int part = int(threadIdx.x) % lanes; part < parts; part += lanes) {
      sum += double(from[part * size + e]);
    }
    return double(T(sum_lanes(sum, lanes)));
  }

  __device__ __forceinline__ void run(bool left, int64_t first, int64_t last) const {
    const int lanes = lanes_for(left ? task.left_parts() : task.right_parts());
    const int dim = left ? task.m : task.n;
    const bool symmetric = (left ? task.r_inspected : task.l_inspected)->symmetric();
    T* const to = static_cast<T*>(left ? task.left : task.right);
    for (int64_t base = first; base < last; base += kRearrangedSumThreads / lanes) {
      // Lanes beyond the end repeat the last entry, because all of a warp take part in its sums.
      const int64_t mine = base + int(threadIdx.x) / lanes, e = mine < last ? mine : last - 1;
      double value = entry(left, e, lanes);
      if (symmetric) value = 0.5 * (value + entry(left, e % dim * dim + e / dim, lanes));
      if (mine < last && int(threadIdx.x) % lanes == 0) to[e] = T(value);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kRearrangedSumThreads)
    rearranged_sum_kernel(const RearrangedTask* tasks, int count, const int* done) {
  if (done && *done) return;
  const RearrangedTask& task = task_of_block(tasks, count, &RearrangedTask::first_sum_block);
  constexpr int64_t kEntries = kRearrangedSumEntries;
  const int64_t lefts = int64_t(task.m) * task.m, rights = int64_t(task.n) * task.n;
  const int64_t blocks_of_left = (lefts + kEntries - 1) / kEntries;
  const int64_t block = int64_t(blockIdx.x) - task.first_sum_block;
  const bool left = block < blocks_of_left;
  const int64_t first = (left ? block : block - blocks_of_left) * kEntries;
  const int64_t size = left ? lefts : rights;
  RearrangedSum<T>{task}.run(left, first, first + kEntries < size ? first + kEntries : size);
}

}  // namespace kronext::cuda
