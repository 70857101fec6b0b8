#include "csrc/cuda/rearranged.cuh"

#include <algorithm>
#include <cstring>

#include "csrc/cuda/placement.h"
#include "csrc/cuda/power_iteration.h"

namespace kronext::cuda {
namespace {

// Blocks of a grid for each multiprocessor: a few waves even out.
constexpr int64_t kWaves = 4;
// A block sums so many rows i in float32 at most.
constexpr int64_t kMostRows = 64;

template <class F>
auto with_pass(Dtype h, Dtype factor, const F& f) {
  const bool wide = factor == Dtype::kFloat64;
  switch (h) {
    case Dtype::kFloat64:
      break;
    case Dtype::kFloat32:
      return wide ? f(RearrangedTile<double, Dtype::kFloat32>{})
                  : f(RearrangedTile<float, Dtype::kFloat32>{});
    case Dtype::kBFloat16:
      return wide ? f(RearrangedTile<double, Dtype::kBFloat16>{})
                  : f(RearrangedTile<float, Dtype::kBFloat16>{});
    case Dtype::kFloat16:
      return wide ? f(RearrangedTile<double, Dtype::kFloat16>{})
                  : f(RearrangedTile<float, Dtype::kFloat16>{});
  }
  return f(RearrangedTile<double, Dtype::kFloat64>{});
}

struct Tables {
  Inspections inspections;
  std::vector<RearrangedTask> products;
  int64_t pass_blocks = 0, sum_blocks = 0;
  int64_t workspace_bytes = 0;
};

// How H is divided among blocks.
template <class Tile>
void divide(Tile, const RearrangedProduct& product, int64_t blocks_wanted, RearrangedTask& task) {
  const int64_t m = product.l.rows, n = product.r.rows;
  task.m = int32_t(m);
  task.n = int32_t(n);
  task.segments = task.pieces = 1;
  if (m * n == 0) return;  // no blocks: the sums have no parts
  const int64_t unit = Tile::kUnit;
  const Matrix& h = product.h;
  const int64_t bytes = 16 / unit;
  task.vector = (h.column_stride == 1 || m * n == 1) && uintptr_t(h.data) % 16 == 0 &&
                h.row_stride * bytes % 16 == 0;
  if (n > Tile::kColumns) {
    task.pieces = int32_t(ceil_divide(n, Tile::kColumns));
    task.column_blocks = int32_t(m * task.pieces);
    task.vector = task.vector && n % unit == 0;
  } else {
    int64_t segments = std::min(m, Tile::kColumns / n);
    // Blocks after the first begin at a multiple of 16 bytes too.
    if (segments < m && segments > unit) segments -= segments % unit;
    task.segments = int32_t(segments);
    task.column_blocks = int32_t(ceil_divide(m, segments));
    task.vector = task.vector && (segments == m || segments * n % unit == 0);
  }
  task.row_blocks = int32_t(ceil_divide(n, Tile::kRows));
  const int64_t slice_blocks = int64_t(task.row_blocks) * task.column_blocks;
  task.slices =
      int32_t(std::clamp(ceil_divide(blocks_wanted, slice_blocks), ceil_divide(m, kMostRows), m));
}

int64_t sum_blocks(const RearrangedTask& task) {
  return ceil_divide(int64_t(task.m) * task.m, kRearrangedSumEntries) +
         ceil_divide(int64_t(task.n) * task.n, kRearrangedSumEntries);
}

Tables build(const RearrangedProduct* products, int64_t count, const DeviceShape& device,
             void* workspace) {
  Placement space(workspace);
  Tables tables{Inspections(Inspection::kStructure, 2 * count, space), {}};
  for (int64_t i = 0; i < count; ++i) {
    const RearrangedProduct& p = products[i];
    RearrangedTask task = {};
    task.h = p.h.data;
    task.l = p.l.data;
    task.r = p.r.data;
    task.h_row_stride = p.h.row_stride;
    task.h_column_stride = p.h.column_stride;
    task.l_row_stride = p.l.row_stride;
    task.l_column_stride = p.l.column_stride;
    task.r_row_stride = p.r.row_stride;
    task.r_column_stride = p.r.column_stride;
    task.l_inspected = tables.inspections.add(p.l);
    task.r_inspected = tables.inspections.add(p.r);
    task.left = p.left.data;
    task.right = p.right.data;
    task.factor_dtype = p.l.dtype;
    with_pass(p.h.dtype, p.l.dtype, [&](auto tile) {
      using Tile = decltype(tile);
      divide(tile, p, ceil_divide(kWaves * device.multiprocessors, count), task);
      const int64_t size = sizeof(typename Tile::Value), m = task.m, n = task.n;
      task.lefts = space.take(task.left_parts() * m * m * size);
      task.rights = space.take(task.right_parts() * n * n * size);
    });
    task.first_block = tables.pass_blocks;
    task.first_sum_block = tables.sum_blocks;
    tables.pass_blocks += int64_t(task.row_blocks) * task.column_blocks * task.slices;
    tables.sum_blocks += sum_blocks(task);
    tables.products.push_back(task);
  }
  tables.workspace_bytes = space.bytes();
  return tables;
}

}  // namespace

RearrangedPlan plan_rearranged(const RearrangedProduct* products, int64_t count,
                               const DeviceShape& device) {
  const Tables tables = build(products, count, device, nullptr);
  RearrangedPlan plan = {};
  plan.device = device;
  plan.inspections = int64_t(tables.inspections.tasks().size());
  plan.inspect_blocks = tables.inspections.blocks();
  plan.products = count;
  plan.pass_blocks = tables.pass_blocks;
  plan.sum_blocks = tables.sum_blocks;
  if (count > 0) {
    plan.h_dtype = products[0].h.dtype;
    plan.factor_dtype = products[0].l.dtype;
  }
  plan.table_bytes = align(plan.inspections * int64_t(sizeof(InspectTask))) +
                     align(count * int64_t(sizeof(RearrangedTask)));
  plan.workspace_bytes = tables.workspace_bytes;
  return plan;
}

void fill_rearranged_table(const RearrangedPlan& plan, const RearrangedProduct* products,
                           void* workspace, void* table) {
  const Tables tables = build(products, plan.products, plan.device, workspace);
  Placement places(table);
  put(tables.inspections.tasks(), places);
  put(tables.products, places);
}

cudaError_t rearranged_matvec(const RearrangedPlan& plan, const void* table, void* workspace,
                              const int* done, cudaStream_t stream) {
  Placement places(const_cast<void*>(table));
  const auto* inspections = get<InspectTask>(plan.inspections, places);
  const auto* products = get<RearrangedTask>(plan.products, places);
  cudaError_t status = inspect(Inspection::kStructure, inspections, plan.inspections,
                               plan.inspect_blocks, workspace, 2 * plan.products, done, stream);
  if (status != cudaSuccess) return status;
  return with_pass(plan.h_dtype, plan.factor_dtype, [&](auto tile) {
    using Tile = decltype(tile);
    if (plan.pass_blocks > 0) {
      status =
          launch(rearranged_kernel<Tile>, {plan.pass_blocks, Tile::kThreads, Tile::kSharedBytes},
                 stream, products, int(plan.products), done);
    }
    if (status != cudaSuccess || plan.sum_blocks == 0) return status;
    return launch(rearranged_sum_kernel<typename Tile::Value>,
                  {plan.sum_blocks, kRearrangedSumThreads, 0}, stream, products, int(plan.products),
                  done);
  });
}

}  // namespace kronext::cuda
