#include "csrc/cuda/kronecker_basis.h"

#include <algorithm>
#include <limits>

#include "csrc/cuda/kronecker_basis.cuh"
#include "csrc/cuda/operand.h"
#include "csrc/cuda/placement.h"

namespace kronext::cuda {
namespace {

// Every angle is less than that.
constexpr double kNoTolerance = std::numeric_limits<double>::infinity();

template <class F>
auto with_float(Dtype dtype, const F& f) {
  return dtype == Dtype::kFloat64 ? f(double{}) : f(float{});
}

// Scratch of one block of orthonormalise_kernel, and of one of triples_kernel.
int64_t inside_bytes(const Iterates& shape) { return align(shape.rank * int64_t(sizeof(double))); }
int64_t small_bytes(const Iterates& shape) {
  return align((2 * shape.rank + 1) * shape.rank * int64_t(sizeof(double)));
}
int64_t rows_bytes(const Iterates& shape) {
  return align(shape.rank * kBasisThreads * int64_t(sizeof(double)));
}
int64_t sines_bytes(const Iterates& shape) {
  return align(2 * shape.count * int64_t(sizeof(double)));
}

}  // namespace

BasesPlan plan_bases(const Iterates& iterates) {
  const int64_t count = iterates.count;
  BasesPlan plan = {};
  plan.shape = iterates;
  plan.table_bytes = std::max(align(2 * count * int64_t(sizeof(BasisTask))),
                              align(count * int64_t(sizeof(TriplesTask))));
  plan.workspace_bytes = std::max(sines_bytes(iterates) + 2 * count * inside_bytes(iterates),
                                  count * (small_bytes(iterates) + rows_bytes(iterates)));
  return plan;
}

void fill_orthonormalise_table(const BasesPlan& plan, const Iterates& iterates,
                               const Iterates& previous, void* workspace, void* table) {
  const Iterates& shape = plan.shape;
  Placement space(workspace);
  auto* sines = space.take<double>(sines_bytes(shape));
  std::vector<BasisTask> tasks;
  for (int64_t i = 0; i < shape.count; ++i) {
    for (bool left : {true, false}) {
      const int64_t dim = left ? shape.m : shape.n, size = dim * dim;
      const int64_t offset = i * shape.rank * size * bytes_of(shape.dtype);
      const auto at = [&](const Iterates& of) {
        return static_cast<char*>(left ? of.left : of.right) + offset;
      };
      tasks.push_back({at(iterates), at(previous), space.take<double>(inside_bytes(shape)), sines++,
                       size, int32_t(shape.rank)});
    }
  }
  Placement places(table);
  put(tasks, places);
}

cudaError_t orthonormalise(const BasesPlan& plan, const void* table, void* workspace,
                           double* turned, double tolerance, int* done, cudaStream_t stream) {
  const int64_t count = plan.shape.count;
  if (count == 0) return cudaSuccess;
  const auto* const sines = static_cast<const double*>(workspace);
  const cudaError_t status = with_float(plan.shape.dtype, [&](auto zero) {
    return launch(orthonormalise_kernel<decltype(zero)>,
                  {2 * count, kBasisThreads, BasisBlock::kSharedBytes}, stream,
                  static_cast<const BasisTask*>(table), done);
  });
  if (status != cudaSuccess) return status;
  return launch(turned_kernel<kBasisThreads>, {1, kBasisThreads, BasisBlock::kSharedBytes}, stream,
                sines, turned, count, tolerance, done);
}

cudaError_t orthonormalise(const BasesPlan& plan, const void* table, void* workspace,
                           double* turned, cudaStream_t stream) {
  return orthonormalise(plan, table, workspace, turned, kNoTolerance, nullptr, stream);
}

void fill_triples_table(const BasesPlan& plan, const Iterates& iterates, const Triples& triples,
                        void* workspace, void* table) {
  const Iterates& shape = plan.shape;
  const int64_t bytes = bytes_of(shape.dtype);
  const int64_t left = shape.rank * shape.m * shape.m * bytes;
  const int64_t right = shape.rank * shape.n * shape.n * bytes;
  const auto at = [](void* first, int64_t offset) { return static_cast<char*>(first) + offset; };
  Placement space(workspace);
  std::vector<TriplesTask> tasks;
  for (int64_t i = 0; i < shape.count; ++i) {
    tasks.push_back({at(iterates.left, i * left), at(iterates.right, i * right),
                     at(triples.image, i * left), at(triples.sigma, i * shape.rank * bytes),
                     triples.info + i, triples.turned + i, space.take<double>(small_bytes(shape)),
                     space.take<double>(rows_bytes(shape)), int32_t(shape.m), int32_t(shape.n),
                     int32_t(shape.rank)});
  }
  Placement places(table);
  put(tasks, places);
}

cudaError_t singular_triples(const BasesPlan& plan, const void* table,
                             std::optional<double> tolerance, cudaStream_t stream) {
  if (plan.shape.count == 0) return cudaSuccess;
  return with_float(plan.shape.dtype, [&](auto zero) {
    return launch(triples_kernel<decltype(zero)>,
                  {plan.shape.count, kBasisThreads, BasisBlock::kSharedBytes}, stream,
                  static_cast<const TriplesTask*>(table), tolerance.value_or(kNoTolerance));
  });
}

}  // namespace kronext::cuda
