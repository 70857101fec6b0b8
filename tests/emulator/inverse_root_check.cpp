// The resident eigensolvers against what an eigendecomposition must be: a ragged list with every
// kernel in it, warm starts, shifts and a failure.
#include "csrc/cuda/inverse_root.h"

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "tests/emulator/check.h"
#include "tests/emulator/runtime/emulator.h"
#include "tests/emulator/spectral_case.h"

namespace kronext::emulator {
namespace {

constexpr double kLargestError = 3e-6;

std::vector<SpectralCase> cases() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto noise = [&] { return normal(random); };
  const auto smooth = [](int i, int j) {
    return float(std::exp(-0.1 * (i - j) * (i - j)) + (i == j ? 1e-2 : 0));
  };
  const auto dominant = [&](int i, int j) { return i == j ? float(1 + i % 7) : 1e-3f * noise(); };
  const auto one = [](int, int) { return 1.f; };
  std::vector<SpectralCase> all;
  all.push_back(make_case("indefinite 5", 5, [&](int, int) { return noise(); }));
  all.push_back(make_case("smooth 11", 11, smooth));
  all.push_back(make_case("NaN 14", 14, [](int, int) { return NAN; }));
  all.back().failure = kNonFinite;
  all.push_back(make_case("ones 16", 16, one));
  all.push_back(make_warm_case("warm 13", 13, noise));
  all.push_back(make_case("smooth 27", 27, smooth));
  all.push_back(make_case("ones 20", 20, one));
  all.push_back(make_warm_case("warm 30", 30, noise));
  all.push_back(make_case("smooth 43", 43, smooth));
  all.push_back(make_warm_case("warm 38", 38, noise));
  all.push_back(make_case("dominant 66", 66, dominant));
  all.push_back(make_warm_case("warm 70", 70, noise));
  all.push_back(make_case("dominant 131", 131, dominant));
  return all;
}

int check_inverse_root() {
  int wrong = 0;
  for (const bool slow_double : {false, true}) {
    const std::vector<SpectralCase> list = cases();
    std::vector<cuda::SpectralTask> tasks;
    for (const SpectralCase& c : list) tasks.push_back(c.task());
    const cuda::InverseRootPlan plan = cuda::plan_inverse_root(
        tasks.data(), int64_t(tasks.size()), {1, int(kMaxSharedBytes), slow_double});
    DeviceMemory table(plan.table_bytes);
    cuda::fill_inverse_root_table(plan, tasks.data(), table.data());
    if (cuda::inverse_root(plan, table.data(), kSpectralOptions, nullptr) != cudaSuccess) ++wrong;
    for (const SpectralCase& c : list) {
      const double error = c.error();
      if (error <= kLargestError) continue;
      ++wrong;
      std::fprintf(stderr, "%s: error %.1e > %.1e\n", c.name.c_str(), error, kLargestError);
    }
  }
  return wrong;
}

const Check check("inverse_root", &check_inverse_root);

}  // namespace
}  // namespace kronext::emulator
