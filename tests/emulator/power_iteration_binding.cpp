#include "csrc/cuda/power_iteration.h"

#include "csrc/cuda/rearranged.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;

cuda::DeviceShape device(int multiprocessors) { return {multiprocessors, int(kMaxSharedBytes)}; }

void succeed(cudaError_t status) {
  if (status != cudaSuccess) throw Error("power_iteration: a launch failed");
}

// H, L, R, left, right for each product.
void rearranged_matvec(const std::vector<std::array<MatrixTuple, 5>>& list, int multiprocessors) {
  std::vector<RearrangedProduct> products;
  for (const auto& [h, l, r, left, right] : list) {
    products.push_back(
        {matrix(h), matrix(l), matrix(r), matrix(left), matrix(right), false, false});
  }
  const cuda::RearrangedPlan plan =
      cuda::plan_rearranged(products.data(), int64_t(products.size()), device(multiprocessors));
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_rearranged_table(plan, products.data(), workspace.data(), table.data());
  succeed(cuda::rearranged_matvec(plan, table.data(), workspace.data(), nullptr, nullptr));
}

std::vector<KernelShape> kernels() { return {}; }

void define(py::module_& m) { m.def("rearranged_matvec", &rearranged_matvec); }

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
