#include "csrc/cuda/structure.cuh"

#include <math.h>

namespace kronext::cuda {
namespace {

constexpr int kStrip = 32;  // rows of a block

// A block compares the rows of its strip, up to the diagonal, with the columns that mirror them:
// 32 neighbouring rows share the cache lines of those.
__global__ void __launch_bounds__(kInspectThreads)
    structure_kernel(const InspectTask* tasks, int count, const int* done) {
  if (done && *done) return;
  const InspectTask& task = task_of_block(tasks, count, &InspectTask::first_block);
  const int strip = int(int64_t(blockIdx.x) - task.first_block) * kStrip;
  const auto at = [&](int i, int j) {
    return load_factor<double>(task.data, task.dtype, i * task.row_stride + j * task.column_stride);
  };
  const double first = at(0, 0);
  const int rows = task.dim - strip < kStrip ? task.dim - strip : kStrip;
  bool asymmetric = false, unlike = false;
  for (int row = int(threadIdx.x) / 32; row < rows; row += kInspectThreads / 32) {
    const int i = strip + row;
    for (int j = int(threadIdx.x) % 32; j <= i; j += 32) {
      const double lower = at(i, j), upper = at(j, i), wanted = i == j ? first : 0.0;
      asymmetric |= !(lower == upper);
      unlike |= !(lower == wanted && upper == wanted);
    }
  }
  const unsigned asymmetric_lanes = __ballot_sync(0xffffffffu, asymmetric);
  const unsigned unlike_lanes = __ballot_sync(0xffffffffu, unlike);
  if (threadIdx.x % 32 == 0) {
    if (asymmetric_lanes) atomicAdd(&task.result->asymmetric, 1);
    if (unlike_lanes) atomicAdd(&task.result->unlike_identity, 1);
  }
  if (strip == 0 && threadIdx.x == 0) {
    task.result->scale = 1;
    task.result->identity_scale = first;
  }
}

// One block a matrix, which is symmetric and has dense rows.
__global__ void __launch_bounds__(kInspectThreads)
    direction_kernel(const InspectTask* tasks, int count) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const BlockReduction<kInspectThreads> block{reinterpret_cast<double*>(shared)};
  const InspectTask& task = task_of_block(tasks, count, &InspectTask::first_block);
  const double length =
      task.dtype == Dtype::kFloat64
          ? norm(block, static_cast<const double*>(task.data), int64_t(task.dim) * task.dim)
          : norm(block, static_cast<const float*>(task.data), int64_t(task.dim) * task.dim);
  if (threadIdx.x != 0) return;
  const bool usable = length > 0 && length <= kLargest;
  task.result->unlike_identity = usable;
  task.result->scale = usable ? 1 / length : 1;
  task.result->identity_scale = 1 / sqrt(double(task.dim));
}

}  // namespace

Inspections::Inspections(Inspection kind, int64_t count, Placement& workspace)
    : kind_(kind), results_(workspace.take<Inspected>(count * int64_t(sizeof(Inspected)))) {}

const Inspected* Inspections::add(const Matrix& matrix) {
  if (matrix.rows > 0) {
    tasks_.push_back({matrix.data, matrix.row_stride, matrix.column_stride, results_, blocks_,
                      int32_t(matrix.rows), matrix.dtype});
    blocks_ += kind_ == Inspection::kDirection ? 1 : ceil_divide(matrix.rows, kStrip);
  }
  return results_++;
}

cudaError_t inspect(Inspection kind, const InspectTask* tasks, int64_t count, int64_t blocks,
                    void* results, int64_t matrices, const int* done, cudaStream_t stream) {
  // Also for matrices of size 0, which no block looks at.
  const cudaError_t status =
      cudaMemsetAsync(results, 0, size_t(matrices) * sizeof(Inspected), stream);
  if (status != cudaSuccess || blocks == 0) return status;
  if (kind == Inspection::kStructure) {
    return launch(structure_kernel, {blocks, kInspectThreads, 0}, stream, tasks, int(count), done);
  }
  return launch(direction_kernel,
                {blocks, kInspectThreads, BlockReduction<kInspectThreads>::kSharedBytes}, stream,
                tasks, int(count));
}

}  // namespace kronext::cuda
