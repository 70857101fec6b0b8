// The kernels of power iteration against float64: products from samples and from a dense H, and
// singular triples that are known.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "csrc/cuda/operand.h"
#include "csrc/cuda/power_iteration.h"
#include "csrc/cuda/ptx.cuh"
#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

constexpr cuda::DeviceShape kDevice = {2, int(kMaxSharedBytes)};

// A matrix with memory of exactly its size.
class Numbers {
 public:
  Numbers(Dtype dtype, int64_t rows, int64_t columns)
      : memory_(rows * columns * bytes_of(dtype)),
        matrix{memory_.data(), dtype, rows, columns, columns, 1} {}

  void fill(std::mt19937& random, bool symmetric = false) {
    std::uniform_int_distribution<int> digits(-16, 16);
    for (int64_t i = 0; i < matrix.rows; ++i) {
      for (int64_t j = 0; j < matrix.columns; ++j) {
        set(i, j, symmetric && j < i ? at(j, i) : digits(random) / 8.0);
      }
    }
  }
  double at(int64_t i, int64_t j) const {
    const int64_t e = i * matrix.columns + j;
    switch (matrix.dtype) {
      case Dtype::kFloat64:
        return static_cast<const double*>(matrix.data)[e];
      case Dtype::kFloat32:
        return static_cast<const float*>(matrix.data)[e];
      case Dtype::kBFloat16:
        return cuda::bfloat16_to_float(static_cast<const uint16_t*>(matrix.data)[e]);
      case Dtype::kFloat16:
        break;
    }
    return cuda::float16_to_float(static_cast<const uint16_t*>(matrix.data)[e]);
  }
  // The 16-bit formats hold eighths up to 2 exactly.
  void set(int64_t i, int64_t j, double number) {
    const int64_t e = i * matrix.columns + j;
    if (matrix.dtype == Dtype::kFloat64) {
      static_cast<double*>(matrix.data)[e] = number;
    } else if (matrix.dtype == Dtype::kFloat32) {
      static_cast<float*>(matrix.data)[e] = float(number);
    } else if (matrix.dtype == Dtype::kBFloat16) {
      static_cast<uint16_t*>(matrix.data)[e] = cuda::round_to_bfloat16(float(number));
    } else {
      int exponent = -14;
      const double fraction = std::frexp(std::fabs(number), &exponent);
      const int bits = number == 0 ? 0 : (exponent + 14) << 10 | (int(fraction * 2048) & 1023);
      static_cast<uint16_t*>(matrix.data)[e] = uint16_t((number < 0) << 15 | bits);
    }
  }

 private:
  DeviceMemory memory_;

 public:
  const Matrix matrix;
};

struct Difference {
  double worst = 0, scale = 1;

  void compare(double result, double expected) {
    const double error = std::fabs(result - expected);
    scale = std::max(scale, std::fabs(expected));
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  // Entry (i, j) of a result; where it must be symmetric its mirror has the same bits.
  void compare(const Numbers& result, int64_t i, int64_t j, double expected, bool symmetric) {
    compare(symmetric && result.at(i, j) != result.at(j, i) ? NAN : result.at(i, j), expected);
  }
};

int report(const char* what, Dtype dtype, const Difference& difference, double tolerance) {
  if (difference.worst <= tolerance * difference.scale) return 0;
  std::fprintf(stderr, "%s, dtype %d: error %.1e > %.1e\n", what, int(dtype),
               difference.worst / difference.scale, tolerance);
  return 1;
}

// ---- products from samples ---------------------------------------------------------------------

struct StepCase {
  int64_t samples, positions, m, n;  // positions 0: whole samples
  bool symmetric;
  int64_t round_bytes;
};

int check_step(const StepCase& c, Dtype dtype, MatmulPrecision precision, double tolerance) {
  std::mt19937 random(1);
  const int64_t rows = c.positions ? c.positions : c.m;
  const Dtype wide = dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
  Numbers g(dtype, c.samples * rows, c.positions ? c.m : c.n);
  Numbers a(dtype, c.samples * c.positions, c.n);
  Numbers l(wide, c.m, c.m), r(wide, c.n, c.n), left(wide, c.m, c.m), right(wide, c.n, c.n);
  Numbers weights(Dtype::kFloat32, c.samples, 1);
  for (Numbers* numbers : {&g, &a, &weights}) numbers->fill(random);
  for (Numbers* numbers : {&l, &r}) numbers->fill(random, c.symmetric);

  WeightedStep step;
  Matrix first = g.matrix, first_a = a.matrix;
  first.rows = first_a.rows = rows;
  step.step = {{first, first_a, c.positions > 0, rows * first.columns, rows * first_a.columns,
                c.samples, nullptr},
               {r.matrix, left.matrix, Structure::kGeneral, 1},
               {l.matrix, right.matrix, Structure::kGeneral, 1},
               0,
               0.5};
  step.weights = weights.matrix.data;
  step.weights_stride = 1;
  const cuda::KroneckerPlan plan = cuda::plan_kronecker_steps(&step, 1, Inspection::kStructure,
                                                              precision, kDevice, c.round_bytes);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_kronecker_table(plan, &step, workspace.data(), table.data());
  cuda::kronecker_steps(plan, table.data(), workspace.data(), nullptr, nullptr);

  Difference left_error, right_error;
  std::vector<double> sums_left(size_t(c.m * c.m)), sums_right(size_t(c.n * c.n));
  for (int64_t s = 0; s < c.samples; ++s) {
    std::vector<double> sample(size_t(c.m * c.n));
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double& entry = sample[size_t(i * c.n + j)];
        if (!c.positions) entry = g.at(s * c.m + i, j);
        for (int64_t t = s * c.positions; t < (s + 1) * c.positions; ++t) {
          entry += g.at(t, i) * a.at(t, j);
        }
      }
    }
    const double weight = 0.5 * weights.at(s, 0);
    // Through G R and L G, entry by entry.
    std::vector<double> gr(sample.size()), lg(sample.size());
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        for (int64_t k = 0; k < c.n; ++k)
          gr[size_t(i * c.n + j)] += sample[size_t(i * c.n + k)] * r.at(k, j);
        for (int64_t k = 0; k < c.m; ++k)
          lg[size_t(i * c.n + j)] += l.at(i, k) * sample[size_t(k * c.n + j)];
      }
    }
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t k = 0; k < c.m; ++k) {
        for (int64_t j = 0; j < c.n; ++j) {
          sums_left[size_t(i * c.m + k)] +=
              weight * gr[size_t(i * c.n + j)] * sample[size_t(k * c.n + j)];
        }
      }
    }
    for (int64_t j = 0; j < c.n; ++j) {
      for (int64_t k = 0; k < c.n; ++k) {
        for (int64_t i = 0; i < c.m; ++i) {
          sums_right[size_t(j * c.n + k)] +=
              weight * sample[size_t(i * c.n + j)] * lg[size_t(i * c.n + k)];
        }
      }
    }
  }
  for (int64_t e = 0; e < c.m * c.m; ++e)
    left_error.compare(left, e / c.m, e % c.m, sums_left[size_t(e)], c.symmetric);
  for (int64_t e = 0; e < c.n * c.n; ++e)
    right_error.compare(right, e / c.n, e % c.n, sums_right[size_t(e)], c.symmetric);
  return report("left of samples", dtype, left_error, tolerance) +
         report("right of samples", dtype, right_error, tolerance);
}

// ---- products with a dense H -------------------------------------------------------------------

int check_dense(Dtype dtype, Dtype factor, int64_t m, int64_t n, bool symmetric) {
  std::mt19937 random(2);
  const Dtype wide = dtype == Dtype::kFloat64 ? Dtype::kFloat64 : factor;
  Numbers h(dtype, m * n, m * n), l(factor, m, m), r(factor, n, n), left(wide, m, m),
      right(wide, n, n);
  h.fill(random, true);
  for (Numbers* numbers : {&l, &r}) numbers->fill(random, symmetric);
  const RearrangedProduct product = {h.matrix,     l.matrix, r.matrix, left.matrix,
                                     right.matrix, false,    false};
  const cuda::RearrangedPlan plan = cuda::plan_rearranged(&product, 1, kDevice);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_rearranged_table(plan, &product, workspace.data(), table.data());
  cuda::rearranged_matvec(plan, table.data(), workspace.data(), nullptr, nullptr);

  Difference left_error, right_error;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t k = 0; k < m; ++k) {
      double sum = 0;
      for (int64_t e = 0; e < n * n; ++e) {
        sum += h.at(i * n + e / n, k * n + e % n) * r.at(e / n, e % n);
      }
      left_error.compare(left, i, k, sum, symmetric);
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t k = 0; k < n; ++k) {
      double sum = 0;
      for (int64_t e = 0; e < m * m; ++e) {
        sum += h.at(e / m * n + j, e % m * n + k) * l.at(e / m, e % m);
      }
      right_error.compare(right, j, k, sum, symmetric);
    }
  }
  const double tolerance = wide == Dtype::kFloat64 ? 1e-14 : 5e-7;
  return report("left of H", dtype, left_error, tolerance) +
         report("right of H", dtype, right_error, tolerance);
}

// ---- power iteration ---------------------------------------------------------------------------

// H = 3 U1 (x) V1 + U2 (x) V2 with orthonormal diagonal U and V.
int check_triples(Dtype dtype) {
  constexpr int64_t kM = 3, kN = 4, kRank = 2;
  const double u[kRank][kM] = {{1 / sqrt(3.0), 1 / sqrt(3.0), 1 / sqrt(3.0)},
                               {1 / sqrt(2.0), -1 / sqrt(2.0), 0}};
  const double v[kRank][kN] = {{0.5, 0.5, 0.5, 0.5}, {0.5, 0.5, -0.5, -0.5}};
  const double sigmas[kRank] = {3, 1};
  Numbers h(dtype, kM * kN, kM * kN);
  for (int64_t e = 0; e < kM * kN * kM * kN; ++e) {
    const int64_t i = e / (kM * kN), j = e % (kM * kN);
    double entry = 0;
    for (int k = 0; i == j && k < kRank; ++k) entry += sigmas[k] * u[k][i / kN] * v[k][i % kN];
    h.set(i, j, entry);
  }
  std::mt19937 random(3);
  Numbers start_left(dtype, kRank, kM * kM), start_right(dtype, kRank, kN * kN);
  Numbers left(dtype, kRank, kM * kM), right(dtype, kRank, kN * kN), sigma(dtype, 1, kRank);
  for (Numbers* numbers : {&start_left, &start_right}) numbers->fill(random);
  int32_t info = -1;
  const cuda::Iteration iteration{
      {start_left.matrix.data, start_right.matrix.data, dtype, 1, kRank, kM, kN},
      {left.matrix.data, right.matrix.data, dtype, 1, kRank, kM, kN},
      sigma.matrix.data,
      &info,
      {},
      {h.matrix}};
  const cuda::IterationPlan plan =
      cuda::plan_power_iteration(iteration, 4, 1e-5, MatmulPrecision::kHighest, kDevice);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_power_iteration_table(plan, iteration, workspace.data(), table.data());
  cuda::power_iteration(plan, iteration, table.data(), workspace.data(), nullptr);

  Difference error;
  error.compare(info, 0);
  for (int64_t k = 0; k < kRank; ++k) {
    error.compare(sigma.at(0, k), sigmas[k]);
    // Up to the sign that both factors share.
    const double sign = left.at(k, 0) * u[k][0] < 0 ? -1 : 1;
    for (int64_t e = 0; e < kM * kM; ++e) {
      error.compare(sign * left.at(k, e), e % (kM + 1) == 0 ? u[k][e / kM] : 0);
    }
    for (int64_t e = 0; e < kN * kN; ++e) {
      error.compare(sign * right.at(k, e), e % (kN + 1) == 0 ? v[k][e / kN] : 0);
    }
  }
  return report("singular triples", dtype, error, 2e-5);
}

int check_power_iteration() {
  using enum Dtype;
  using enum MatmulPrecision;
  // Few threads: for a sanitizer each of them is dear.
  const StepCase whole = {3, 0, 7, 20, true, cuda::kRoundBytes};
  const StepCase blocks = {23, 3, 40, 33, true, cuda::kRoundBytes};
  const StepCase rounds = {3, 0, 70, 9, false, 5000}, formed = {2, 40, 9, 12, false, 5000};
  int wrong = check_step(rounds, kFloat64, kHighest, 1e-14) +
              check_step(formed, kFloat64, kHighest, 1e-14) +
              check_step(rounds, kFloat32, kHigh, 1e-4) +
              check_step(whole, kFloat32, kMedium, 3e-2);
  for (Dtype dtype : {kFloat32, kBFloat16, kFloat16}) {
    for (const StepCase& c : {whole, blocks, formed}) wrong += check_step(c, dtype, kHighest, 1e-6);
  }
  wrong += check_dense(kFloat64, kFloat64, 5, 6, false);
  for (Dtype dtype : {kFloat32, kBFloat16, kFloat16}) {
    wrong += check_dense(dtype, kFloat32, 5, 6, true) + check_dense(dtype, kFloat64, 5, 6, true);
  }
  wrong += check_dense(kFloat64, kFloat64, 130, 2, false);
  wrong += check_dense(kFloat32, kFloat32, 1, 530, true);
  return wrong + check_triples(kFloat64) + check_triples(kFloat32);
}

const Check power_iteration("power_iteration", &check_power_iteration);

}  // namespace
}  // namespace kronext::emulator
