#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "csrc/cuda/precondition.h"
#include "csrc/cuda/ptx.cuh"
#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

constexpr int64_t kPadding = 8;  // elements between rows

// A matrix in memory that ends where it ends, with NaN between its rows.
class Owned {
 public:
  Owned(int64_t rows, int64_t columns, Dtype dtype, bool down, int64_t padding)
      : pitch_((down ? rows : columns) + padding),
        memory_((((down ? columns : rows) - 1) * pitch_ + pitch_ - padding) * bytes_of(dtype)),
        view{memory_.data(), dtype, rows, columns, down ? 1 : pitch_, down ? pitch_ : 1} {}

  // Small integers, which every dtype holds exactly.
  void fill(std::mt19937& random) {
    for (int64_t i = 0; i < view.rows; ++i) {
      for (int64_t j = 0; j < view.columns; ++j) put(at(i, j), float(int(random() % 9) - 4));
    }
  }

  double value(int64_t i, int64_t j) const {
    switch (view.dtype) {
      case Dtype::kFloat64:
        return static_cast<const double*>(view.data)[at(i, j)];
      case Dtype::kFloat32:
        return static_cast<const float*>(view.data)[at(i, j)];
      case Dtype::kBFloat16:
        return cuda::bfloat16_to_float(static_cast<const uint16_t*>(view.data)[at(i, j)]);
      case Dtype::kFloat16:
        break;
    }
    return cuda::float16_to_float(static_cast<const uint16_t*>(view.data)[at(i, j)]);
  }

 private:
  int64_t pitch_;
  DeviceMemory memory_;

 public:
  Matrix view;

 private:
  int64_t at(int64_t i, int64_t j) const { return i * view.row_stride + j * view.column_stride; }

  void put(int64_t index, float number) {
    if (view.dtype == Dtype::kFloat64) {
      static_cast<double*>(view.data)[index] = double(number);
    } else if (view.dtype == Dtype::kFloat32) {
      static_cast<float*>(view.data)[index] = number;
    } else if (view.dtype == Dtype::kBFloat16) {
      static_cast<uint16_t*>(view.data)[index] = cuda::round_to_bfloat16(number);
    } else {
      static constexpr uint16_t kFloat16[] = {0, 0x3c00, 0x4000, 0x4200, 0x4400};  // 0 to 4
      const int magnitude = int(std::fabs(number));
      static_cast<uint16_t*>(view.data)[index] =
          uint16_t(kFloat16[magnitude] | (number < 0 ? 0x8000 : 0));
    }
  }
};

struct Shape {
  int64_t rows, columns;
  bool left = true, right = true;
  bool g_down = false, factors_down = false;  // whether columns lie together in memory
  int64_t padding = 0;
};

struct Problem {
  Owned g, left, right, out;
  bool has_left, has_right;

  Problem(const Shape& s, Dtype dtype, Dtype factor_dtype, std::mt19937& random)
      : g(s.rows, s.columns, dtype, s.g_down, s.padding),
        left(s.rows, s.rows, factor_dtype, s.factors_down, s.padding),
        right(s.columns, s.columns, factor_dtype, s.factors_down, s.padding),
        out(s.rows, s.columns, dtype == Dtype::kFloat64 ? dtype : factor_dtype, false, s.padding),
        has_left(s.left),
        has_right(s.right) {
    for (Owned* matrix : {&g, &left, &right}) matrix->fill(random);
  }

  PreconditionProblem problem() const {
    return {g.view, has_left ? left.view : Matrix{}, has_right ? right.view : Matrix{}, out.view};
  }

  // Integers all the way, so the output and the sum of its squares must be exact and nearly so.
  bool is_right(double norm) const {
    const int64_t m = g.view.rows, n = g.view.columns;
    std::vector<double> z(size_t(m * n));
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double& sum = z[size_t(i * n + j)] = has_left ? 0 : g.value(i, j);
        for (int64_t k = 0; has_left && k < m; ++k) sum += left.value(i, k) * g.value(k, j);
      }
    }
    double squares = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = has_right ? 0 : z[size_t(i * n + j)];
        for (int64_t k = 0; has_right && k < n; ++k) {
          sum += z[size_t(i * n + k)] * right.value(k, j);
        }
        if (out.value(i, j) != sum) return false;
        squares += sum * sum;
      }
    }
    return std::fabs(norm - squares) <= 1e-5 * squares;
  }
};

struct Case {
  Dtype dtype, factor_dtype;
  cuda::TileSize tiles;
};

// At full precision the parts hold every integer that a product may leave in between.
int check_case(const Case& c, const std::vector<Shape>& shapes, int multiprocessors) {
  std::mt19937 random(1);
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<PreconditionProblem> list;
  for (const Shape& shape : shapes) {
    problems.push_back(std::make_unique<Problem>(shape, c.dtype, c.factor_dtype, random));
    list.push_back(problems.back()->problem());
  }
  const cuda::PreconditionPlan plan =
      cuda::plan_precondition(list.data(), int64_t(list.size()), MatmulPrecision::kHighest,
                              {multiprocessors, int(kMaxSharedBytes)}, true, c.tiles);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  std::vector<double> memory(list.size());
  float* const norms = reinterpret_cast<float*>(memory.data());
  cuda::fill_precondition_table(plan, list.data(), norms, workspace.data(), table.data());
  cuda::precondition(plan, table.data(), workspace.data(), nullptr);
  int wrong = 0;
  for (size_t i = 0; i < problems.size(); ++i) {
    const bool is_double = list[i].out.dtype == Dtype::kFloat64;
    if (problems[i]->is_right(is_double ? memory[i] : double(norms[i]))) continue;
    ++wrong;
    std::fprintf(stderr, "%ld x %ld, dtype %d, tiles %d is wrong\n", long(shapes[i].rows),
                 long(shapes[i].columns), int(c.dtype), int(c.tiles));
  }
  return wrong;
}

int check_precondition() {
  const std::vector<Shape> small = {{7, 7},
                                    {33, 60},
                                    {16, 40, true, false},
                                    {20, 12, false, true, false, false, kPadding},
                                    {64, 33, true, true, true, true},
                                    {24, 24, true, true, false, true, 1}};
  const std::vector<Shape> ragged = {{70, 33, true, true, false, true},
                                     {12, 150, true, true, true},
                                     {140, 20, true, true, false, false, kPadding},
                                     {20, 72, false, true, false, false, 1},
                                     {9, 300, false, true}};
  using enum Dtype;
  int wrong = 0;
  for (const Dtype dtype : {kBFloat16, kFloat16, kFloat32}) {
    wrong += check_case({dtype, kFloat32, cuda::TileSize::kFastest}, small, 1);
    for (const auto tiles : {cuda::TileSize::kSmall, cuda::TileSize::kLarge}) {
      for (const int multiprocessors : {1, 20}) {
        wrong += check_case({dtype, kFloat32, tiles}, ragged, multiprocessors);
      }
    }
  }
  wrong += check_case({kFloat64, kFloat32, cuda::TileSize::kFastest}, small, 2);
  wrong += check_case({kFloat16, kFloat64, cuda::TileSize::kFastest}, small, 2);
  return wrong;
}

const Check precondition("precondition", &check_precondition);

}  // namespace
}  // namespace kronext::emulator
