// _emulator: the emulated kernels, for pytest.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "csrc/cuda/outer.h"
#include "csrc/cuda/outer_kernel.cuh"
#include "csrc/cuda/outer_tiles.cuh"
#include "tests/emulator/bugs.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/instructions.h"
#include "tests/emulator/runtime/emulator.h"

namespace py = pybind11;
using namespace kronext::emulator;

namespace {

const std::map<kronext::cuda::OuterKernel, std::string>& kernel_names() {
  using enum kronext::cuda::OuterKernel;
  static const std::map<kronext::cuda::OuterKernel, std::string> names = {
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

struct KernelShape {
  std::string name, tile;
  int threads, shared_bytes, blocks, tile_size, depth;
};

// The kernels of outer_update as they are launched: `tile` is the type that they are made of.
std::vector<KernelShape> outer_kernels() {
  std::vector<KernelShape> shapes;
  for (const auto& [kernel, name] : kernel_names()) {
    kronext::cuda::with_tile(kernel, [&, &name = name](auto tile) {
      using Tile = decltype(tile);
      shapes.push_back({name, py::type_id<Tile>(), Tile::kThreads,
                        kronext::cuda::kOuterSharedBytes<Tile>, Tile::kBlocks, Tile::kTile,
                        Tile::kDepth});
    });
  }
  return shapes;
}

using MatrixTuple = std::tuple<uintptr_t, kronext::Dtype, int64_t, int64_t, int64_t, int64_t>;

kronext::Matrix matrix(const MatrixTuple& t) {
  const auto& [data, dtype, rows, columns, row_stride, column_stride] = t;
  return {reinterpret_cast<void*>(data), dtype, rows, columns, row_stride, column_stride};
}

// Returns the kernels that were launched, and the number of tiles split in depth.
std::pair<std::vector<std::string>, int64_t> outer_update(
    const std::vector<std::tuple<MatrixTuple, MatrixTuple, double, double>>& list,
    kronext::cuda::MatmulPrecision precision, int multiprocessors, kronext::cuda::TileSize tiles) {
  std::vector<kronext::OuterSide> sides;
  for (const auto& [x, factor, decay, weight] : list) {
    sides.push_back({matrix(x), matrix(factor), decay, weight});
  }
  const kronext::cuda::OuterPlan plan =
      kronext::cuda::plan_outer(sides.data(), int64_t(sides.size()), precision,
                                {multiprocessors, int(kMaxSharedBytes)}, tiles);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  kronext::cuda::fill_outer_table(plan, sides.data(), table.data());
  if (kronext::cuda::outer_update(plan, table.data(), workspace.data(), nullptr) != cudaSuccess) {
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

}  // namespace

PYBIND11_MODULE(_emulator, m) {
  m.doc() = "kronext's CUDA kernels, executed on the CPU";
  py::register_exception<Error>(m, "EmulatorError", PyExc_RuntimeError);

  py::enum_<Order>(m, "Order")
      .value("FORWARD", Order::kForward)
      .value("REVERSE", Order::kReverse)
      .value("RANDOM", Order::kRandom);
  m.def(
      "set_schedule", [](Order order, uint64_t seed) { schedule() = {order, seed}; },
      py::arg("order"), py::arg("seed") = 0);

  py::enum_<kronext::Dtype>(m, "Dtype")
      .value("float64", kronext::Dtype::kFloat64)
      .value("float32", kronext::Dtype::kFloat32)
      .value("bfloat16", kronext::Dtype::kBFloat16)
      .value("float16", kronext::Dtype::kFloat16);
  py::enum_<kronext::cuda::MatmulPrecision>(m, "MatmulPrecision")
      .value("highest", kronext::cuda::MatmulPrecision::kHighest)
      .value("high", kronext::cuda::MatmulPrecision::kHigh)
      .value("medium", kronext::cuda::MatmulPrecision::kMedium);
  py::enum_<kronext::cuda::TileSize>(m, "TileSize")
      .value("fastest", kronext::cuda::TileSize::kFastest)
      .value("small", kronext::cuda::TileSize::kSmall)
      .value("large", kronext::cuda::TileSize::kLarge);
  m.def("outer_update", &outer_update);
  py::class_<KernelShape>(m, "KernelShape")
      .def_readonly("name", &KernelShape::name)
      .def_readonly("tile", &KernelShape::tile)
      .def_readonly("threads", &KernelShape::threads)
      .def_readonly("shared_bytes", &KernelShape::shared_bytes)
      .def_readonly("blocks", &KernelShape::blocks)
      .def_readonly("tile_size", &KernelShape::tile_size)
      .def_readonly("depth", &KernelShape::depth);
  m.def("outer_kernels", &outer_kernels);

  m.def("bug_names", &bug_names);
  m.def("run_bug", &run_bug);

  m.def("run_mma", &run_mma);
  m.def("run_ldmatrix", &run_ldmatrix);
  m.def("run_copy_async", &run_copy_async);
  m.def("run_pack_bfloat16", &run_pack_bfloat16);
  m.def("run_half_to_float", &run_half_to_float);
  m.def("run_shuffle", &run_shuffle);
  m.def("run_ballot", &run_ballot);
}
