#include "csrc/cuda/congruence.cuh"

#include <type_traits>

#include "csrc/cuda/congruence_plan.h"
#include "csrc/cuda/congruence_tiles.cuh"
#include "csrc/cuda/launch.cuh"

namespace kronext::cuda {

KroneckerPlan plan_kronecker_steps(const WeightedStep* steps, int64_t count, Inspection inspection,
                                   MatmulPrecision precision, const DeviceShape& device,
                                   int64_t round_bytes) {
  KroneckerPlan plan = {};
  plan.inspection = inspection;
  plan.precision = precision;
  plan.device = device;
  plan.round_bytes = round_bytes;
  plan.steps = count;
  const CongruencePlanner planner(steps, count, plan, nullptr);
  plan.inspections = int64_t(planner.inspections().tasks().size());
  plan.inspect_blocks = planner.inspections().blocks();
  plan.products = int64_t(planner.products().size());
  plan.sums = int64_t(planner.sums().size());
  plan.launches = planner.launches();
  plan.workspace_bytes = planner.workspace_bytes();
  Placement table;
  get<InspectTask>(plan.inspections, table);
  get<CongruenceTask>(plan.products, table);
  get<CongruenceSumTask>(plan.sums, table);
  plan.table_bytes = table.bytes();
  return plan;
}

void fill_kronecker_table(const KroneckerPlan& plan, const WeightedStep* steps, void* workspace,
                          void* table) {
  const CongruencePlanner planner(steps, plan.steps, plan, workspace);
  Placement places(table);
  put(planner.inspections().tasks(), places);
  put(planner.products(), places);
  put(planner.sums(), places);
}

cudaError_t kronecker_steps(const KroneckerPlan& plan, const void* table, void* workspace,
                            const int* done, cudaStream_t stream) {
  Placement places(const_cast<void*>(table));
  const auto* const inspections = get<InspectTask>(plan.inspections, places);
  const auto* const products = get<CongruenceTask>(plan.products, places);
  const auto* const sums = get<CongruenceSumTask>(plan.sums, places);
  cudaError_t status = inspect(plan.inspection, inspections, plan.inspections, plan.inspect_blocks,
                               workspace, 2 * plan.steps, done, stream);
  for (const CongruenceLaunch& l : plan.launches) {
    if (status != cudaSuccess) return status;
    if (l.blocks == 0) continue;
    status = with_congruence_tile(l.kernel, [&](auto tile) {
      using Tile = decltype(tile);
      if (l.sums) {
        return launch(congruence_sum_kernel<typename Tile::Value>,
                      {l.blocks, CongruenceSum::kThreads, CongruenceSum::kSharedBytes}, stream,
                      sums + l.first_task, int(l.tasks), done);
      }
      return launch(congruence_kernel<Tile>, {l.blocks, Tile::kThreads, Tile::kSharedBytes}, stream,
                    products + l.first_task, int(l.tasks), done);
    });
  }
  return status;
}

}  // namespace kronext::cuda
