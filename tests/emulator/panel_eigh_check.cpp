// The panel eigensolver against what an eigendecomposition must be: a ragged list with a warm
// start, a shift and a failure.
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "csrc/cuda/panel_eigh.h"
#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

constexpr double kRoot = 4, kEps = 1e-3;
constexpr double kLargestError = 5e-6;  // 2 units for each of 20 sweeps

// A matrix with the memory of everything that is asked for: exactly as long as it may be.
class Problem {
 public:
  Problem(std::string name, int n) : name(std::move(name)), n_(n) {
    for (const int64_t numbers : {n * n, n, n * n, n * n, n * n, 1}) {
      memory_.push_back(std::make_unique<DeviceMemory>(numbers * int64_t(sizeof(float))));
    }
  }

  float* matrix() const { return at(0); }
  float* values() const { return at(1); }
  float* vectors() const { return at(2); }
  float* root() const { return at(3); }
  float* basis() const { return at(4); }
  int info() const { return *static_cast<int32_t*>(memory_[5]->data()); }

  cuda::SpectralTask task() const {
    const auto info = static_cast<int32_t*>(memory_[5]->data());
    return {matrix(), n_, warm ? basis() : nullptr, values(), vectors(), root(), info, n_};
  }

  // sum_i x_ri x_ci weight_i over rows r and c of the eigenvectors.
  template <class Weight>
  double form(int r, int c, const Weight& weight) const {
    double sum = 0;
    for (int i = 0; i < n_; ++i) {
      sum += double(vectors()[r * n_ + i]) * double(vectors()[c * n_ + i]) * weight(i);
    }
    return sum;
  }

  // The largest error of an entry of QT Q, of A and of the root, each relative to its largest.
  double error() const {
    if (info() != failure) return INFINITY;
    double worst = 0;
    for (int k = 0; k + 1 < n_; ++k) {
      if (values()[k] > values()[k + 1]) return INFINITY;
    }
    const double largest = std::fabs(values()[n_ - 1]);
    const auto gain = [&](int i) {
      return std::pow(std::max(double(values()[i]), 0.) + kEps, -1 / kRoot);
    };
    for (int r = 0; r < n_; ++r) {
      for (int c = 0; c <= r; ++c) {
        const double identity = form(r, c, [](int) { return 1.; }) - (r == c);
        const double a = form(r, c, [&](int i) { return double(values()[i]); });
        const double a_error = failure ? 0 : (a - double(matrix()[r * n_ + c])) / largest;
        const double x = failure ? r == c : form(r, c, gain);
        const double x_error = (x - double(root()[r * n_ + c])) / (failure ? 1 : gain(0));
        for (const double e : {identity, a_error, x_error}) {
          if (!(std::fabs(e) <= worst)) worst = std::fabs(e);
        }
        if (root()[r * n_ + c] != root()[c * n_ + r]) return INFINITY;
      }
    }
    return worst;
  }

  std::string name;
  bool warm = false;
  int failure = 0;

 private:
  float* at(size_t i) const { return static_cast<float*>(memory_[i]->data()); }

  int n_;
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
};

// The upper triangle stays NaN.
template <class Entry>
Problem make(const char* name, int n, const Entry& entry) {
  Problem problem(name, n);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) problem.matrix()[i * n + j] = entry(i, j);
  }
  return problem;
}

std::vector<Problem> problems() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<Problem> all;
  all.push_back(make("indefinite", 5, [&](int, int) { return normal(random); }));
  all.push_back(make("smooth", 70, [](int i, int j) {
    return float(std::exp(-0.1 * (i - j) * (i - j)) + (i == j ? 1e-2 : 0));
  }));
  all.push_back(make("ones", 33, [](int, int) { return 1.f; }));
  all.push_back(make("NaN", 40, [](int, int) { return NAN; }));
  all.back().failure = kNonFinite;
  all.push_back(make("several parts", 130, [&](int i, int j) {
    return i == j ? float(1 + i % 7) : 1e-3f * normal(random);
  }));
  // The eigenvectors of second differences are sines; these are off by a little.
  const int n = 66;
  all.push_back(make("warm", n, [&](int i, int j) {
    return (i == j ? 2.f : i - j == 1 ? -1.f : 0.f) + 1e-3f * normal(random);
  }));
  all.back().warm = true;
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n; ++k) {
      const double sine = std::sin(M_PI * (i + 1) * (k + 1) / (n + 1));
      all.back().basis()[i * n + k] =
          float(std::sqrt(2. / (n + 1)) * sine) + 3e-6f * normal(random);
    }
  }
  return all;
}

int check_panel_eigh() {
  int wrong = 0;
  for (const bool slow_double : {false, true}) {
    const std::vector<Problem> list = problems();
    std::vector<cuda::SpectralTask> tasks;
    for (const Problem& problem : list) tasks.push_back(problem.task());
    const cuda::PanelEighPlan plan = cuda::plan_panel_eigh(tasks.data(), int64_t(tasks.size()),
                                                           {1, int(kMaxSharedBytes), slow_double});
    DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
    cuda::fill_panel_eigh_table(plan, tasks.data(), table.data());
    const cuda::SpectralOptions options = {{kRoot, kEps, 0, 0}, false};
    if (cuda::panel_eigh(plan, table.data(), workspace.data(), options, nullptr) != cudaSuccess) {
      ++wrong;
    }
    for (const Problem& problem : list) {
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
