#include "csrc/cuda/inverse_root.h"

#include <algorithm>
#include <numeric>

#include "csrc/cuda/resident_kernels.cuh"
#include "csrc/cuda/tile_plan.h"

namespace kronext::cuda {
namespace {

bool fits(int n, bool warm, const DeviceShape& device) {
  return n <= Resident160::kLargest &&
         ResidentLayout(n).bytes(warm) + kReservedSharedBytes <= device.shared_bytes;
}

ResidentSize size_for(int n) {
  using enum ResidentSize;
  return n <= 16 ? k16 : n <= 32 ? k32 : n <= 64 ? k64 : n <= 128 ? k128 : k160;
}

// A warm start that does not fit is left out: a basis changes the cost only.
ResidentKernel kernel_for(const SpectralTask& task, const DeviceShape& device) {
  return {size_for(task.n), task.basis && fits(task.n, true, device), device.slow_double};
}

// Padding that would be more than the matrix itself is worth a launch of its own, unless registers
// limit the blocks of a multiprocessor before shared memory does.
bool wasteful(int bytes, int padded_bytes) {
  constexpr int kHarmless = 8 * 1024;
  return padded_bytes > kHarmless && 2 * bytes < padded_bytes;
}

}  // namespace

InverseRootPlan plan_inverse_root(const SpectralTask* tasks, int64_t count,
                                  const DeviceShape& device) {
  InverseRootPlan plan;
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const bool a_warm = kernel_for(tasks[a], device).warm,
               b_warm = kernel_for(tasks[b], device).warm;
    return a_warm != b_warm ? a_warm : tasks[a].n > tasks[b].n;
  });
  for (const int64_t i : order) {
    const ResidentKernel kernel = kernel_for(tasks[i], device);
    const int bytes = ResidentLayout(tasks[i].n).bytes(kernel.warm);
    if (!fits(tasks[i].n, kernel.warm, device)) {
      plan.large.push_back(i);
      continue;
    }
    if (plan.groups.empty() || plan.groups.back().kernel != kernel ||
        wasteful(bytes, plan.groups.back().matrix_bytes)) {
      plan.groups.push_back({kernel, {}, 0, bytes});
    }
    plan.groups.back().members.push_back(i);
  }
  for (InverseRootGroup& group : plan.groups) {
    group.tasks_at = plan.table_bytes;
    plan.table_bytes =
        align(plan.table_bytes + int64_t(group.members.size() * sizeof(SpectralTask)));
  }
  return plan;
}

void fill_inverse_root_table(const InverseRootPlan& plan, const SpectralTask* tasks, void* table) {
  for (const InverseRootGroup& group : plan.groups) {
    auto* to = reinterpret_cast<SpectralTask*>(static_cast<char*>(table) + group.tasks_at);
    for (const int64_t i : group.members) *to++ = tasks[i];
  }
}

cudaError_t inverse_root(const InverseRootPlan& plan, const void* table,
                         const SpectralOptions& options, cudaStream_t stream) {
  for (const InverseRootGroup& group : plan.groups) {
    const auto* tasks =
        reinterpret_cast<const SpectralTask*>(static_cast<const char*>(table) + group.tasks_at);
    const int count = int(group.members.size());
    const cudaError_t status = with_resident_kernel(group.kernel, [&](auto shape, auto kernel) {
      using Shape = decltype(shape);
      const LaunchShape launched = {(count + Shape::kMatrices - 1) / Shape::kMatrices,
                                    Shape::kBlockThreads, group.matrix_bytes * Shape::kMatrices};
      return launch(kernel, launched, stream, tasks, count, group.matrix_bytes, options);
    });
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace kronext::cuda
