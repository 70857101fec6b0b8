// out <- left G right, either factor absent, for a ragged list (csrc/core/precondition.h), on a
// stream.
//
// A caller plans once for the shapes of its list, then for each call fills the table, copies it to
// the device and launches. Nothing here allocates, synchronises or looks at device data, so all of
// it may be captured into a CUDA graph (from pinned memory that lives as long as the graph).
//
// A matrix of at most 64 x 64 takes one block, which makes both products. Others take two rounds
// of tiles, with what the first product leaves in the workspace. One launch serves all matrices of
// one arithmetic:
//   bfloat16            one part, exact
//   float16             two bfloat16 parts, exact
//   float32, factors    bfloat16 parts (matmul_precision.h)
//   float64             ordinary units; also where only one operand is float64
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "csrc/core/matmul_precision.h"
#include "csrc/core/precondition.h"
#include "csrc/cuda/tile_plan.h"

namespace kronext::cuda {

enum class ProductTiles { kFused, kSmall, kLarge };

// A kernel that is built. In float64 precision and tiles mean nothing.
struct ProductKernel {
  Dtype g;  // of the operand that is no factor
  MatmulPrecision precision;
  ProductTiles tiles;
};

struct FusedGroup {
  ProductKernel kernel;
  std::vector<int64_t> problems;
  int64_t tasks_at;  // bytes into the table
};

struct Product {
  int64_t problem;
  bool by_left;  // the factor is left; else right, and the transpose of the product is made
  bool first;    // the other operand is G; else what the first product has left
  bool last;     // makes the output; else the intermediate
};

struct ProductGroup : TileGroup {
  ProductKernel kernel;
  std::vector<Product> products;  // one for each tile grid
};

struct PreconditionPlan {
  std::vector<FusedGroup> fused;                     // one launch each
  std::vector<ProductGroup> groups;                  // likewise, first products first
  std::vector<int64_t> intermediate_at, squares_at;  // of each problem: bytes into the workspace
  std::vector<int64_t> tiles;  // of the output of each problem; 0 where it is fused or empty
  bool norms = false, double_norms = false;
  int64_t norms_at = 0, norm_count = 0;  // bytes into the table; problems that are not fused
  int64_t table_bytes = 0;
  int64_t workspace_bytes = 0;
};

// Reads dtypes, sizes and strides. kSmall and kLarge fuse nothing. With norms all outputs are of
// one dtype.
PreconditionPlan plan_precondition(const PreconditionProblem* problems, int64_t count,
                                   MatmulPrecision precision, const DeviceShape& device,
                                   bool norms = false, TileSize tiles = TileSize::kFastest);

// Writes plan.table_bytes to `table`, host memory aligned to 16 bytes. `workspace` is that of the
// launch. `norms`, where the plan has them, is device memory for the sum of squares of each output,
// of their dtype.
void fill_precondition_table(const PreconditionPlan& plan, const PreconditionProblem* problems,
                             void* norms, void* workspace, void* table);

// `table` and `workspace` are device memory, aligned to 256 bytes.
cudaError_t precondition(const PreconditionPlan& plan, const void* table, void* workspace,
                         cudaStream_t stream);

}  // namespace kronext::cuda
