// A matrix for the eigensolvers with memory of its own, and how wrong its results are.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "csrc/cuda/spectral_task.h"
#include "tests/emulator/device_memory.h"

namespace kronext::emulator {

constexpr cuda::SpectralOptions kSpectralOptions = {{4, 1e-3, 0, 0}, false};

// A matrix with the memory of everything that is asked for: exactly as long as it may be.
class SpectralCase {
 public:
  SpectralCase(std::string name, int n) : name(std::move(name)), n_(n) {
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
      return std::pow(std::max(double(values()[i]), 0.) + kSpectralOptions.damping.eps,
                      -1 / kSpectralOptions.damping.root);
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
SpectralCase make_case(const char* name, int n, const Entry& entry) {
  SpectralCase problem(name, n);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) problem.matrix()[i * n + j] = entry(i, j);
  }
  return problem;
}

// The second differences of n points, off by a little, and the sines that are their eigenvectors,
// as far from orthogonal as a basis may be by half.
template <class Noise>
SpectralCase make_warm_case(const char* name, int n, const Noise& noise) {
  SpectralCase problem = make_case(name, n, [&](int i, int j) {
    return (i == j ? 2.f : i - j == 1 ? -1.f : 0.f) + 1e-3f * noise();
  });
  problem.warm = true;
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n; ++k) {
      const double sine = std::sin(M_PI * (i + 1) * (k + 1) / (n + 1));
      problem.basis()[i * n + k] =
          float(std::sqrt(2. / (n + 1)) * sine) + 3e-4f / float(n) * noise();
    }
  }
  return problem;
}

}  // namespace kronext::emulator
