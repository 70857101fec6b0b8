// C <- decay C + weight X XT for a ragged list of sides (csrc/core/outer.h), on a stream.
//
// A caller plans once for the shapes of its list, then for each call fills the table, copies it to
// the device and launches. Nothing here allocates, synchronises or looks at device data, so all of
// it may be captured into a CUDA graph (from pinned memory that lives as long as the graph).
//
// One launch serves all sides of one arithmetic:
//   bfloat16, float16   tensor cores, products exact, float32 sums
//   float32             tensor cores on bfloat16 parts of each number (matmul_precision.h); with
//                       two parts x is rounded to 16 bits, its Gram matrix stays positive
//                       semi-definite
//   float64             ordinary units; also where only x or only the factor is float64
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "csrc/core/matmul_precision.h"
#include "csrc/core/outer.h"
#include "csrc/cuda/tile_plan.h"

namespace kronext::cuda {

// The kernels that are built.
enum class OuterKernel {
  kBFloat16Small,
  kBFloat16Large,
  kFloat16Small,
  kFloat16Large,
  kOnePartSmall,
  kOnePartLarge,
  kTwoPartsSmall,
  kTwoPartsLarge,
  kThreePartsSmall,
  kThreePartsLarge,
  kDouble,
};

struct OuterGroup : TileGroup {
  OuterKernel kernel;
  std::vector<int64_t> sides;   // one for each tile grid
  std::vector<int64_t> second;  // the side that shares its x, or -1
};

struct OuterPlan {
  std::vector<OuterGroup> groups;  // one launch each
  int64_t table_bytes = 0;
  int64_t workspace_bytes = 0;
};

// Reads dtypes, sizes and strides, and which neighbours in the list share their memory: a small
// gradient whose two sides follow each other is read once for both.
OuterPlan plan_outer(const OuterSide* sides, int64_t count, MatmulPrecision precision,
                     const DeviceShape& device, TileSize tiles = TileSize::kFastest);

// Writes plan.table_bytes to `table`, host memory aligned to 16 bytes.
void fill_outer_table(const OuterPlan& plan, const OuterSide* sides, void* table);

// `table` and `workspace` are device memory, aligned to 256 bytes.
cudaError_t outer_update(const OuterPlan& plan, const void* table, void* workspace,
                         cudaStream_t stream);

}  // namespace kronext::cuda
