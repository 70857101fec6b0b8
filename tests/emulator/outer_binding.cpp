#include "csrc/cuda/outer.h"

#include "csrc/cuda/outer_kernel.cuh"
#include "csrc/cuda/outer_tiles.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;

const std::map<cuda::OuterKernel, std::string>& kernel_names() {
  using enum cuda::OuterKernel;
  static const std::map<cuda::OuterKernel, std::string> names = {
      {kBFloat16Small, "bfloat16 small"},
      {kBFloat16Large, "bfloat16 large"},
      {kFloat16Small, "float16 small"},
      {kFloat16Large, "float16 large"},
      {kOnePartSmall, "float32 medium small"},
      {kOnePartLarge, "float32 medium large"},
      {kTwoPartsSmall, "float32 high small"},
      {kTwoPartsLarge, "float32 high large"},
      {kThreePartsSmall, "float32 highest small"},
      {kThreePartsLarge, "float32 highest large"},
      {kDouble, "float64"},
  };
  return names;
}

std::vector<KernelShape> kernels() {
  std::vector<KernelShape> shapes;
  for (const auto& [kernel, name] : kernel_names()) {
    cuda::with_tile(kernel, [&, &name = name](auto tile) {
      using Tile = decltype(tile);
      shapes.push_back({"outer",
                        name,
                        "outer_kernel<" + py::type_id<Tile>() + ">",
                        Tile::kThreads,
                        cuda::kOuterSharedBytes<Tile>,
                        Tile::kBlocks,
                        {{"tile", Tile::kTile}, {"depth", Tile::kDepth}}});
    });
  }
  return shapes;
}

// Returns the kernels that were launched, and the number of tiles split in depth.
std::pair<std::vector<std::string>, int64_t> outer_update(
    const std::vector<std::tuple<MatrixTuple, MatrixTuple, double, double>>& list,
    MatmulPrecision precision, int multiprocessors, cuda::TileSize tiles) {
  std::vector<OuterSide> sides;
  for (const auto& [x, factor, decay, weight] : list) {
    sides.push_back({matrix(x), matrix(factor), decay, weight});
  }
  const cuda::OuterPlan plan = cuda::plan_outer(sides.data(), int64_t(sides.size()), precision,
                                                {multiprocessors, int(kMaxSharedBytes)}, tiles);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_outer_table(plan, sides.data(), table.data());
  if (cuda::outer_update(plan, table.data(), workspace.data(), nullptr) != cudaSuccess) {
    throw Error("outer_update: the launch failed");
  }
  std::vector<std::string> launched;
  int64_t split_tiles = 0;
  for (const auto& group : plan.groups) {
    launched.push_back(kernel_names().at(group.kernel));
    split_tiles += group.counters_bytes / int64_t(sizeof(int));
  }
  return {launched, split_tiles};
}

void define(py::module_& m) {
  py::enum_<MatmulPrecision>(m, "MatmulPrecision")
      .value("highest", MatmulPrecision::kHighest)
      .value("high", MatmulPrecision::kHigh)
      .value("medium", MatmulPrecision::kMedium);
  py::enum_<cuda::TileSize>(m, "TileSize")
      .value("fastest", cuda::TileSize::kFastest)
      .value("small", cuda::TileSize::kSmall)
      .value("large", cuda::TileSize::kLarge);
  m.def("outer_update", &outer_update);
}

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
