#include "csrc/cuda/precondition.h"

#include <utility>

#include "csrc/cuda/precondition_kernel.cuh"
#include "csrc/cuda/precondition_tiles.cuh"
#include "csrc/cuda/tile_launch.cuh"

namespace kronext::cuda {
namespace {

// ---- planning -----------------------------------------------------------------------------------

// Rows of an intermediate begin at multiples of 16 bytes.
int64_t pitch_of(int64_t length) { return (length + 3) / 4 * 4; }

bool is_double(const PreconditionProblem& p) { return p.out.dtype == Dtype::kFloat64; }

bool is_empty(const PreconditionProblem& p) { return p.g.rows == 0 || p.g.columns == 0; }

bool is_fused(const PreconditionProblem& p, TileSize tiles) {
  return tiles == TileSize::kFastest && !is_double(p) && !is_empty(p) &&
         p.g.rows <= FusedShape::kTile && p.g.columns <= FusedShape::kTile;
}

// The longer side goes first: both orders have m n (m + n) multiply-adds, and products with a G of
// 16 bits are the cheaper ones.
bool left_first(const PreconditionProblem& p) {
  return p.left.data && (!p.right.data || p.g.rows >= p.g.columns);
}

struct ProductSize {
  int64_t x, y, k;
};

ProductSize size_of(const Product& product, const PreconditionProblem& p) {
  return product.by_left ? ProductSize{p.g.rows, p.g.columns, p.g.rows}
                         : ProductSize{p.g.columns, p.g.rows, p.g.columns};
}

Dtype operand_dtype(const Product& product, const PreconditionProblem& p) {
  if (is_double(p)) return Dtype::kFloat64;
  return product.first ? p.g.dtype : Dtype::kFloat32;
}

ProductGroup make_group(const ProductKernel& kernel, const std::vector<Product>& products,
                        const PreconditionProblem* problems, const DeviceShape& device,
                        TileEstimate& estimated) {
  ProductGroup group;
  group.kernel = kernel;
  group.products = products;
  with_product_tile(kernel, [&](auto tile) {
    using Tile = decltype(tile);
    for (const Product& product : products) {
      const ProductSize size = size_of(product, problems[product.problem]);
      group.grids.push_back({tiles_over(size.x, Tile::kTile), tiles_over(size.y, Tile::kTile),
                             tiles_over(size.k, Tile::kDepth),
                             int32_t(kEpilogueDepth / Tile::kDepth), false});
    }
    estimated = estimate<Tile>(group.grids, kProductSharedBytes<Tile>, device);
  });
  return group;
}

// Plans the products of one launch, under the size of tile that suits them.
void add_group(Dtype g, MatmulPrecision precision, const std::vector<Product>& products,
               const PreconditionProblem* problems, const DeviceShape& device, TileSize tiles,
               PreconditionPlan& plan) {
  TileEstimate small_estimate, large_estimate;
  ProductGroup small =
      make_group({g, precision, ProductTiles::kSmall}, products, problems, device, small_estimate);
  ProductGroup large =
      make_group({g, precision, ProductTiles::kLarge}, products, problems, device, large_estimate);
  const bool takes_large = tiles == TileSize::kFastest ? large_estimate.time < small_estimate.time
                                                       : tiles == TileSize::kLarge;
  ProductGroup& best = takes_large ? large : small;
  with_product_tile(best.kernel, [&](auto tile) {
    place<decltype(tile), ProductTask>(best,
                                       takes_large ? large_estimate.blocks : small_estimate.blocks,
                                       plan.table_bytes, plan.workspace_bytes);
  });
  for (size_t i = 0; i < products.size(); ++i) {
    if (products[i].last) plan.tiles[size_t(products[i].problem)] = tile_count(best.grids[i]);
  }
  plan.groups.push_back(std::move(best));
}

constexpr Dtype kArithmetics[] = {Dtype::kFloat64, Dtype::kFloat32, Dtype::kBFloat16,
                                  Dtype::kFloat16};

void plan_fused(const PreconditionProblem* problems, int64_t count, MatmulPrecision precision,
                TileSize tiles, PreconditionPlan& plan) {
  for (const Dtype g : kArithmetics) {
    FusedGroup group = {{g, precision, ProductTiles::kFused}, {}, plan.table_bytes};
    for (int64_t i = 0; i < count; ++i) {
      if (is_fused(problems[i], tiles) && problems[i].g.dtype == g) group.problems.push_back(i);
    }
    if (group.problems.empty()) continue;
    plan.table_bytes = align(plan.table_bytes + int64_t(group.problems.size() * sizeof(FusedTask)));
    plan.fused.push_back(std::move(group));
  }
}

// ---- the table ----------------------------------------------------------------------------------

Operand factor_of(const PreconditionProblem& p, bool by_left) {
  return make_operand(by_left ? p.left : p.right.transposed());
}

Operand gradient_of(const PreconditionProblem& p, bool by_left) {
  return make_operand(by_left ? p.g.transposed() : p.g);
}

Output output_of(const PreconditionProblem& p, bool transposed) {
  const bool vector = p.out.dtype == Dtype::kFloat32 && p.out.columns % 4 == 0 &&
                      has_aligned_rows(p.out.data, p.out.row_stride * 4);
  return {p.out.data, p.out.row_stride, transposed, vector};
}

FusedTask describe(const PreconditionProblem& p, float* norm) {
  const bool by_left = p.left.data != nullptr;
  FusedTask task = {};
  task.left = factor_of(p, by_left);
  task.right = gradient_of(p, by_left);
  if (by_left && p.right.data) task.second = factor_of(p, false);
  task.out = output_of(p, !by_left);
  task.norm = norm;
  return task;
}

ProductTask describe(const Product& product, const PreconditionProblem& p, const TileGrid& grid,
                     void* intermediate, void* squares) {
  const ProductSize size = size_of(product, p);
  ProductTask task = {};
  task.left = factor_of(p, product.by_left);
  task.grid = grid;
  if (product.first) {
    task.right = gradient_of(p, product.by_left);
  } else {
    const int64_t pitch = pitch_of(size.k);
    task.right = make_operand({intermediate, p.out.dtype, size.y, size.k, pitch, 1}, false);
  }
  if (product.last) {
    task.out = output_of(p, !product.by_left);
    task.squares = squares;
  } else {
    // Vectors that reach beyond a row end in its padding.
    task.out = {intermediate, pitch_of(size.y), false, p.out.dtype == Dtype::kFloat32};
  }
  return task;
}

// ---- norms --------------------------------------------------------------------------------------

// One warp adds the squares of the tiles of one output.
template <class Value>
__global__ void __launch_bounds__(kNormThreads) norm_kernel(const NormTask* tasks, int64_t count) {
  const int64_t number = int64_t(blockIdx.x) * (kNormThreads / 32) + threadIdx.x / 32;
  if (number >= count) return;
  const NormTask& task = tasks[number];
  const Value* const squares = static_cast<const Value*>(task.squares);
  Value sum = 0;
  for (int64_t i = threadIdx.x % 32; i < task.tiles; i += 32) sum += squares[i];
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(~0u, sum, bits);
  if (threadIdx.x % 32 == 0) *static_cast<Value*>(task.norm) = sum;
}

}  // namespace

PreconditionPlan plan_precondition(const PreconditionProblem* problems, int64_t count,
                                   MatmulPrecision precision, const DeviceShape& device, bool norms,
                                   TileSize tiles) {
  PreconditionPlan plan;
  plan.norms = norms;
  plan.intermediate_at.resize(size_t(count));
  plan.squares_at.resize(size_t(count));
  plan.tiles.resize(size_t(count));
  plan_fused(problems, count, precision, tiles, plan);
  for (const bool first : {true, false}) {
    for (const Dtype g : kArithmetics) {
      std::vector<Product> products;
      for (int64_t i = 0; i < count; ++i) {
        const PreconditionProblem& p = problems[i];
        const bool both = p.left.data && p.right.data;
        if (is_empty(p) || is_fused(p, tiles) || (!first && !both)) continue;
        const Product product = {i, left_first(p) == first, first, !first || !both};
        if (operand_dtype(product, p) == g) products.push_back(product);
      }
      if (!products.empty()) add_group(g, precision, products, problems, device, tiles, plan);
    }
  }
  for (const ProductGroup& group : plan.groups) {
    for (const Product& product : group.products) {
      if (product.last) continue;
      const PreconditionProblem& p = problems[product.problem];
      const ProductSize size = size_of(product, p);
      plan.intermediate_at[size_t(product.problem)] = plan.workspace_bytes;
      plan.workspace_bytes =
          align(plan.workspace_bytes + size.x * pitch_of(size.y) * bytes_of(p.out.dtype));
    }
  }
  if (!norms) return plan;
  plan.double_norms = count > 0 && is_double(problems[0]);
  plan.norms_at = plan.table_bytes;
  for (int64_t i = 0; i < count; ++i) {
    if (is_fused(problems[i], tiles)) continue;
    plan.squares_at[size_t(i)] = plan.workspace_bytes;
    plan.workspace_bytes =
        align(plan.workspace_bytes + plan.tiles[size_t(i)] * bytes_of(problems[i].out.dtype));
    ++plan.norm_count;
  }
  plan.table_bytes = align(plan.table_bytes + plan.norm_count * int64_t(sizeof(NormTask)));
  return plan;
}

void fill_precondition_table(const PreconditionPlan& plan, const PreconditionProblem* problems,
                             void* norms, void* workspace, void* table) {
  char* const bytes = static_cast<char*>(table);
  char* const space = static_cast<char*>(workspace);
  const auto squares_of = [&](int64_t i) {
    return plan.norms ? space + plan.squares_at[size_t(i)] : nullptr;
  };
  const auto norm_of = [&](int64_t i) {
    return static_cast<char*>(norms) + i * int64_t(plan.double_norms ? 8 : 4);
  };
  std::vector<bool> fused(plan.tiles.size(), false);
  for (const FusedGroup& group : plan.fused) {
    auto* task = reinterpret_cast<FusedTask*>(bytes + group.tasks_at);
    for (const int64_t i : group.problems) {
      float* const norm = plan.norms ? reinterpret_cast<float*>(norm_of(i)) : nullptr;
      *task++ = describe(problems[i], norm);
      fused[size_t(i)] = true;
    }
  }
  for (const ProductGroup& group : plan.groups) {
    auto* const tasks = reinterpret_cast<ProductTask*>(bytes + group.tasks_at);
    for (size_t i = 0; i < group.products.size(); ++i) {
      const Product& product = group.products[i];
      tasks[i] = describe(product, problems[product.problem], group.grids[i],
                          space + plan.intermediate_at[size_t(product.problem)],
                          squares_of(product.problem));
    }
    fill_cuts(group, table);
  }
  if (!plan.norms) return;
  auto* task = reinterpret_cast<NormTask*>(bytes + plan.norms_at);
  for (size_t i = 0; i < fused.size(); ++i) {
    if (!fused[i]) *task++ = {squares_of(int64_t(i)), norm_of(int64_t(i)), plan.tiles[i]};
  }
}

cudaError_t precondition(const PreconditionPlan& plan, const void* table, void* workspace,
                         cudaStream_t stream) {
  const char* const tables = static_cast<const char*>(table);
  for (const FusedGroup& group : plan.fused) {
    const cudaError_t status = with_fused_tiles(group.kernel, [&](auto first, auto second) {
      using First = decltype(first);
      using Second = decltype(second);
      const LaunchShape shape = {int64_t(group.problems.size()), First::kThreads,
                                 FusedTile<First, Second>::kSharedBytes};
      return launch(fused_kernel<First, Second>, shape, stream,
                    reinterpret_cast<const FusedTask*>(tables + group.tasks_at));
    });
    if (status != cudaSuccess) return status;
  }
  for (const ProductGroup& group : plan.groups) {
    const cudaError_t status = with_product_tile(group.kernel, [&](auto tile) {
      using Tile = decltype(tile);
      return launch_tiles<Tile>(product_kernel<Tile>, group, kProductSharedBytes<Tile>, table,
                                workspace, stream);
    });
    if (status != cudaSuccess) return status;
  }
  if (plan.norm_count == 0) return cudaSuccess;
  constexpr int64_t kTogether = kNormThreads / 32;
  const LaunchShape shape = {(plan.norm_count + kTogether - 1) / kTogether, kNormThreads, 0};
  return launch(plan.double_norms ? norm_kernel<double> : norm_kernel<float>, shape, stream,
                reinterpret_cast<const NormTask*>(tables + plan.norms_at), plan.norm_count);
}

}  // namespace kronext::cuda
