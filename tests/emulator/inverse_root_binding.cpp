#include "csrc/cuda/inverse_root.h"

#include "csrc/cuda/resident_kernels.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"
#include "tests/emulator/spectral_tuple.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;

std::string name_of(const cuda::ResidentKernel& kernel) {
  const int largest =
      cuda::with_resident_shape(kernel.size, [](auto shape) { return decltype(shape)::kLargest; });
  return std::string(kernel.two_floats ? "two floats" : "float64") +
         (kernel.warm ? " warm " : " cold ") + std::to_string(largest);
}

std::vector<cuda::ResidentKernel> all_kernels() {
  using enum cuda::ResidentSize;
  std::vector<cuda::ResidentKernel> kernels;
  for (const bool two_floats : {false, true}) {
    for (const bool warm : {false, true}) {
      for (const auto size : {k16, k32, k64, k128, k160}) {
        kernels.push_back({size, warm, two_floats});
      }
    }
  }
  return kernels;
}

// The most rows that a kernel serves on every architecture: those with the least shared memory have
// 100 KB.
int rows_everywhere(int largest, bool warm, int matrices) {
  constexpr int kLeastSharedBytes = 100 * 1024 - cuda::kReservedSharedBytes;
  while (cuda::ResidentLayout(largest).bytes(warm) * matrices > kLeastSharedBytes) --largest;
  return largest;
}

std::vector<KernelShape> kernels() {
  std::vector<KernelShape> shapes;
  for (const cuda::ResidentKernel& kernel : all_kernels()) {
    cuda::with_resident_shape(kernel.size, [&](auto shape) {
      using Shape = decltype(shape);
      const std::string symbol = "resident_eigh_kernel<" + py::type_id<Shape>() + ", " +
                                 (kernel.two_floats ? "kronext::TwoFloat" : "double") + ", " +
                                 (kernel.warm ? "true" : "false") + ">";
      const int rows = rows_everywhere(Shape::kLargest, kernel.warm, Shape::kMatrices);
      shapes.push_back({"inverse_root",
                        name_of(kernel),
                        symbol,
                        Shape::kBlockThreads,
                        cuda::ResidentLayout(rows).bytes(kernel.warm) * Shape::kMatrices,
                        Shape::kBlocks,
                        {{"rows", Shape::kLargest}}});
    });
  }
  return shapes;
}

// Returns the kernels that were launched, each with its number of matrices, and the number that no
// kernel takes.
std::pair<std::vector<std::pair<std::string, int64_t>>, int64_t> inverse_root(
    const std::vector<SpectralTuple>& list, double root, double eps, double relative_eps,
    bool keep_failed, int shared_bytes, bool slow_double) {
  const std::vector<cuda::SpectralTask> tasks = spectral_tasks(list);
  const cuda::InverseRootPlan plan =
      cuda::plan_inverse_root(tasks.data(), int64_t(tasks.size()), {1, shared_bytes, slow_double});
  DeviceMemory table(plan.table_bytes);
  cuda::fill_inverse_root_table(plan, tasks.data(), table.data());
  const cuda::SpectralOptions options = {{root, eps, relative_eps, undamped_cutoff<float>(0)},
                                         keep_failed};
  if (cuda::inverse_root(plan, table.data(), options, nullptr) != cudaSuccess) {
    throw Error("inverse_root: the launch failed");
  }
  std::vector<std::pair<std::string, int64_t>> launched;
  for (const auto& group : plan.groups) {
    launched.emplace_back(name_of(group.kernel), int64_t(group.members.size()));
  }
  return {launched, int64_t(plan.large.size())};
}

void define(py::module_& m) { m.def("inverse_root", &inverse_root); }

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
