#include "csrc/cuda/precondition.h"

#include "csrc/cuda/precondition_kernel.cuh"
#include "csrc/cuda/precondition_tiles.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;
using cuda::ProductKernel;
using cuda::ProductTiles;

std::string name_of(const ProductKernel& kernel) {
  if (kernel.g == Dtype::kFloat64) return "float64";
  const std::string g = kernel.g == Dtype::kFloat32    ? "float32"
                        : kernel.g == Dtype::kBFloat16 ? "bfloat16"
                                                       : "float16";
  const std::string precision = kernel.precision == MatmulPrecision::kHighest ? "highest"
                                : kernel.precision == MatmulPrecision::kHigh  ? "high"
                                                                              : "medium";
  const std::string tiles = kernel.tiles == ProductTiles::kFused   ? "fused"
                            : kernel.tiles == ProductTiles::kSmall ? "small"
                                                                   : "large";
  return g + " " + precision + " " + tiles;
}

KernelShape product_shape(const ProductKernel& kernel) {
  return cuda::with_product_tile(kernel, [&](auto tile) {
    using Tile = decltype(tile);
    return KernelShape{"precondition",
                       name_of(kernel),
                       "product_kernel<" + py::type_id<Tile>() + ">",
                       Tile::kThreads,
                       cuda::kProductSharedBytes<Tile>,
                       Tile::kBlocks,
                       {{"tile", Tile::kTile}, {"depth", Tile::kDepth}}};
  });
}

KernelShape fused_shape(const ProductKernel& kernel) {
  return cuda::with_fused_tiles(kernel, [&](auto first, auto second) {
    using First = decltype(first);
    using Second = decltype(second);
    return KernelShape{"precondition",
                       name_of(kernel),
                       "fused_kernel<" + py::type_id<First>() + ", " + py::type_id<Second>() + ">",
                       First::kThreads,
                       cuda::FusedTile<First, Second>::kSharedBytes,
                       First::kBlocks,
                       {{"tile", First::kTile}, {"depth", First::kDepth}}};
  });
}

std::vector<KernelShape> kernels() {
  std::vector<KernelShape> shapes;
  for (const Dtype g : {Dtype::kBFloat16, Dtype::kFloat16, Dtype::kFloat32}) {
    for (const MatmulPrecision precision :
         {MatmulPrecision::kMedium, MatmulPrecision::kHigh, MatmulPrecision::kHighest}) {
      shapes.push_back(fused_shape({g, precision, ProductTiles::kFused}));
      shapes.push_back(product_shape({g, precision, ProductTiles::kSmall}));
      shapes.push_back(product_shape({g, precision, ProductTiles::kLarge}));
    }
  }
  shapes.push_back(product_shape({Dtype::kFloat64, {}, {}}));
  shapes.push_back({"precondition", "norms", "norm_kernel<float>", cuda::kNormThreads, 0, 1});
  shapes.push_back(
      {"precondition", "norms of float64", "norm_kernel<double>", cuda::kNormThreads, 0, 1});
  return shapes;
}

using OptionalMatrix = std::optional<MatrixTuple>;

// Returns the kernels that were launched, and the number of tiles split in depth.
std::pair<std::vector<std::string>, int64_t> precondition(
    const std::vector<std::tuple<MatrixTuple, OptionalMatrix, OptionalMatrix, MatrixTuple>>& list,
    MatmulPrecision precision, int multiprocessors, cuda::TileSize tiles, uintptr_t norms) {
  std::vector<PreconditionProblem> problems;
  for (const auto& [g, left, right, out] : list) {
    problems.push_back({matrix(g), left ? matrix(*left) : Matrix{},
                        right ? matrix(*right) : Matrix{}, matrix(out)});
  }
  const cuda::PreconditionPlan plan =
      cuda::plan_precondition(problems.data(), int64_t(problems.size()), precision,
                              {multiprocessors, int(kMaxSharedBytes)}, norms != 0, tiles);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_precondition_table(plan, problems.data(), reinterpret_cast<void*>(norms),
                                workspace.data(), table.data());
  if (cuda::precondition(plan, table.data(), workspace.data(), nullptr) != cudaSuccess) {
    throw Error("precondition: the launch failed");
  }
  std::vector<std::string> launched;
  int64_t split_tiles = 0;
  for (const auto& group : plan.fused) launched.push_back(name_of(group.kernel));
  for (const auto& group : plan.groups) {
    launched.push_back(name_of(group.kernel));
    split_tiles += group.counters_bytes / int64_t(sizeof(int));
  }
  return {launched, split_tiles};
}

void define(py::module_& m) { m.def("precondition", &precondition); }

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
