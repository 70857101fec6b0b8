#include "csrc/cuda/panel_eigh.h"

#include "csrc/cuda/panel_cholesky.cuh"
#include "csrc/cuda/panel_results.cuh"
#include "csrc/cuda/panel_start.cuh"
#include "csrc/cuda/panel_sweep.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"
#include "tests/emulator/spectral_tuple.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;

std::vector<KernelShape> kernels() {
  using namespace cuda;
  std::vector<KernelShape> shapes;
  const auto add = [&](const std::string& name, const std::string& symbol, int shared_bytes) {
    shapes.push_back({"panel_eigh", name, symbol, kTileThreads, shared_bytes, 2});
  };
  const auto add_wide = [&](const std::string& name, const std::string& kernel, int shared_bytes) {
    add(name + " float64", kernel + "<double>", shared_bytes);
    add(name + " two floats", kernel + "<kronext::TwoFloat>", shared_bytes);
  };
  add("measure", "measure_kernel(", 0);
  add("basis defect", "basis_defect_kernel(", kTileBytes<float>);
  add("mend basis", "mend_basis_kernel(", kTileBytes<float>);
  add_wide("multiply basis", "multiply_basis_kernel", kTileBytes<float>);
  add_wide("project", "project_kernel", kTileBytes<double>);
  add_wide("eliminate", "eliminate_kernel", kEliminateBytes<double>);
  add("orient", "orient_kernel(", kTileBytes<float>);
  add("resident pair", "resident_pair_kernel(", resident_bytes(pairs_of(256)));
  add("gram", "gram_kernel(", kGramBytes);
  add("update", "update_kernel(", kTileBytes<float>);
  add_wide("form", "form_kernel", kTileBytes<double>);
  add("spectrum", "spectrum_kernel(", kSpectrumBytes);
  add("vectors", "vectors_kernel(", 0);
  add("root", "root_kernel(", kTileBytes<float>);
  return shapes;
}

// Returns for each matrix how many shifts failed and how many sweeps had work, and how many
// matrices were left out.
std::pair<std::vector<std::pair<int, int>>, int64_t> panel_eigh(
    const std::vector<SpectralTuple>& list, double root, double eps, double relative_eps,
    bool keep_failed, int multiprocessors, int shared_bytes, bool slow_double) {
  const std::vector<cuda::SpectralTask> tasks = spectral_tasks(list);
  const cuda::PanelEighPlan plan = cuda::plan_panel_eigh(
      tasks.data(), int64_t(tasks.size()), {multiprocessors, shared_bytes, slow_double});
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_panel_eigh_table(plan, tasks.data(), table.data());
  const cuda::SpectralOptions options = {{root, eps, relative_eps, undamped_cutoff<float>(0)},
                                         keep_failed};
  if (cuda::panel_eigh(plan, table.data(), workspace.data(), options, nullptr) != cudaSuccess) {
    throw Error("panel_eigh: the launch failed");
  }
  std::vector<std::pair<int, int>> work(tasks.size());
  const auto* state = static_cast<const cuda::PanelState*>(workspace.data());
  for (const int64_t i : plan.members) {
    int sweeps = 0;
    for (const unsigned cosine : state->cosine) sweeps += cosine != 0;
    work[size_t(i)] = {state->failed_shifts, sweeps};
    ++state;
  }
  return {work, int64_t(plan.left_out.size())};
}

// Up to how many pairs a matrix of the list has them in shared memory, for a device.
int resident_pairs(const std::vector<int>& sizes, int multiprocessors, int shared_bytes) {
  std::vector<cuda::SpectralTask> tasks(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) tasks[i].n = sizes[i];
  return cuda::plan_panel_eigh(tasks.data(), int64_t(tasks.size()), {multiprocessors, shared_bytes})
      .resident_pairs;
}

void define(py::module_& m) {
  m.def("panel_eigh", &panel_eigh);
  m.def("resident_pairs", &resident_pairs);
}

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
