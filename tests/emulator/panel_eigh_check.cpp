// The panel eigensolver against what an eigendecomposition must be: a ragged list with a warm
// start, a shift and a failure.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "csrc/cuda/panel_eigh.h"
#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"
#include "tests/emulator/spectral_case.h"

namespace kronext::emulator {
namespace {

constexpr double kLargestError = 5e-6;  // 2 units for each of 20 sweeps

std::vector<SpectralCase> problems() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<SpectralCase> all;
  all.push_back(make_case("indefinite", 5, [&](int, int) { return normal(random); }));
  all.push_back(make_case("smooth", 70, [](int i, int j) {
    return float(std::exp(-0.1 * (i - j) * (i - j)) + (i == j ? 1e-2 : 0));
  }));
  all.push_back(make_case("ones", 33, [](int, int) { return 1.f; }));
  all.push_back(make_case("NaN", 40, [](int, int) { return NAN; }));
  all.back().failure = kNonFinite;
  all.push_back(make_case("several parts", 130, [&](int i, int j) {
    return i == j ? float(1 + i % 7) : 1e-3f * normal(random);
  }));
  all.push_back(make_warm_case("warm", 66, [&] { return normal(random); }));
  return all;
}

// Shared memory for the pairs of panels of all these matrices, and for two pairs.
constexpr cuda::DeviceShape kDevices[] = {{1, int(kMaxSharedBytes), false}, {1, 70 * 1024, true}};

int check_panel_eigh() {
  int wrong = 0;
  for (const cuda::DeviceShape& device : kDevices) {
    const std::vector<SpectralCase> list = problems();
    std::vector<cuda::SpectralTask> tasks;
    for (const SpectralCase& problem : list) tasks.push_back(problem.task());
    const cuda::PanelEighPlan plan =
        cuda::plan_panel_eigh(tasks.data(), int64_t(tasks.size()), device);
    DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
    cuda::fill_panel_eigh_table(plan, tasks.data(), table.data());
    if (cuda::panel_eigh(plan, table.data(), workspace.data(), kSpectralOptions, nullptr) !=
        cudaSuccess) {
      ++wrong;
    }
    for (const SpectralCase& problem : list) {
      const double error = problem.error();
      if (error <= kLargestError) continue;
      ++wrong;
      std::fprintf(stderr, "%s: error %.1e > %.1e\n", problem.name.c_str(), error, kLargestError);
    }
  }
  return wrong;
}

const Check check("panel_eigh", &check_panel_eigh);

}  // namespace
}  // namespace kronext::emulator
