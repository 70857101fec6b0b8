// outer_update against float64: every kernel on small lists.
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "csrc/cuda/outer.h"
#include "csrc/cuda/ptx.cuh"
#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

constexpr double kLargestBias = 5e-7;
constexpr double kDecay = 0.75, kWeight = 0.25, kNaN = std::numeric_limits<double>::quiet_NaN();

struct Shape {
  int64_t rows, columns;
  int64_t padding = 0;  // between rows; also shifts the first element
  bool transposed = false;
  bool right = true;  // GT G is wanted too
};

// A gradient with its memory: exactly what may be read, and NaN in the gaps.
class Gradient {
 public:
  Gradient(const Shape& shape, Dtype dtype, double mean, std::mt19937& random)
      : memory_(bytes_of(shape, dtype)), values_(size_t(shape.rows * shape.columns)) {
    const int64_t pitch = (shape.transposed ? shape.rows : shape.columns) + shape.padding;
    char* const data = static_cast<char*>(memory_.data()) + shape.padding * size_of(dtype);
    view = {data,
            dtype,
            shape.rows,
            shape.columns,
            shape.transposed ? 1 : pitch,
            shape.transposed ? pitch : 1};
    std::normal_distribution<double> normal(mean);
    for (int64_t i = 0; i < shape.rows; ++i) {
      for (int64_t j = 0; j < shape.columns; ++j) {
        values_[size_t(i * shape.columns + j)] =
            put(data, dtype, i * view.row_stride + j * view.column_stride, normal(random));
      }
    }
  }

  // Entry (i, j) of G GT, or of GT G.
  double product(bool left, int64_t i, int64_t j) const {
    double sum = 0;
    for (int64_t k = 0; k < (left ? view.columns : view.rows); ++k) {
      sum += left ? value(i, k) * value(j, k) : value(k, i) * value(k, j);
    }
    return sum;
  }

  Matrix view;

 private:
  static int64_t size_of(Dtype dtype) {
    return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2;
  }
  static int64_t bytes_of(const Shape& s, Dtype dtype) {
    const int64_t lines = s.transposed ? s.columns : s.rows,
                  length = s.transposed ? s.rows : s.columns;
    return (s.padding + (lines - 1) * (length + s.padding) + length) * size_of(dtype);
  }

  // Stores a number, and returns what it was rounded to. float16 takes multiples of 1/64 exactly.
  static double put(char* data, Dtype dtype, int64_t at, double number) {
    if (dtype == Dtype::kFloat64) return reinterpret_cast<double*>(data)[at] = number;
    if (dtype == Dtype::kFloat32) return reinterpret_cast<float*>(data)[at] = float(number);
    auto& half = reinterpret_cast<uint16_t*>(data)[at];
    if (dtype == Dtype::kBFloat16) {
      half = cuda::round_to_bfloat16(float(number));
      return cuda::bfloat16_to_float(half);
    }
    const double rounded = std::nearbyint(number * 64) / 64;
    if (rounded == 0) return half = 0;
    int exponent;
    const double fraction = std::frexp(std::fabs(rounded), &exponent);
    half = uint16_t((rounded < 0) << 15 | (exponent + 14) << 10 | (int(fraction * 2048) & 1023));
    return rounded;
  }

  double value(int64_t i, int64_t j) const { return values_[size_t(i * view.columns + j)]; }

  DeviceMemory memory_;
  std::vector<double> values_;
};

struct Case {
  Dtype dtype, factor_dtype;
  MatmulPrecision precision;
  cuda::TileSize tiles;
  double tolerance;
};

std::vector<Case> cases() {
  using enum Dtype;
  using enum MatmulPrecision;
  std::vector<Case> all = {
      {kFloat64, kFloat64, kHighest, cuda::TileSize::kSmall, 1e-14},
      {kBFloat16, kFloat64, kHighest, cuda::TileSize::kSmall, 1e-14},
  };
  for (auto tiles : {cuda::TileSize::kSmall, cuda::TileSize::kLarge}) {
    all.push_back({kBFloat16, kFloat32, kHighest, tiles, 5e-7});
    all.push_back({kFloat16, kFloat32, kHighest, tiles, 5e-7});
    all.push_back({kFloat32, kFloat32, kHighest, tiles, 5e-7});
    all.push_back({kFloat32, kFloat32, kHigh, tiles, 5e-5});
    all.push_back({kFloat32, kFloat32, kMedium, tiles, 2e-2});
  }
  return all;
}

template <class Factor>
class Run {
 public:
  Run(const Case& c, const std::vector<Shape>& shapes, double mean, double decay, double weight)
      : decay_(decay), weight_(weight) {
    std::mt19937 random(1);
    for (const Shape& shape : shapes) {
      gradients_.push_back(std::make_unique<Gradient>(shape, c.dtype, mean, random));
      const Matrix& g = gradients_.back()->view;
      for (bool left : {true, false}) {
        if (!left && !shape.right) continue;
        const int64_t size = left ? g.rows : g.columns;
        factors_.emplace_back(size_t(size * size));
        for (int64_t i = 0; i < size; ++i) {
          for (int64_t j = 0; j < size; ++j) {
            factors_.back()[size_t(i * size + j)] = Factor(j > i ? kNaN : old(i, j));
          }
        }
        made_of_.push_back({gradients_.back().get(), left});
        sides_.push_back({left ? g : g.transposed(),
                          {factors_.back().data(), c.factor_dtype, size, size, size, 1},
                          decay,
                          weight});
      }
    }
  }

  void update(const Case& c, int multiprocessors) {
    const cuda::OuterPlan plan =
        cuda::plan_outer(sides_.data(), int64_t(sides_.size()), c.precision,
                         {multiprocessors, int(kMaxSharedBytes)}, c.tiles);
    DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
    cuda::fill_outer_table(plan, sides_.data(), table.data());
    cuda::outer_update(plan, table.data(), workspace.data(), nullptr);
  }

  // The largest error of an entry, relative to the largest entry; infinite where it is not
  // symmetric.
  double error(size_t side) const {
    const int64_t size = sides_[side].factor.rows;
    double worst = 0, scale = 1;
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const double expected = decay_ * old(i, j) + weight_ * product(side, i, j);
        const double error = std::fabs(double(at(side, i, j)) - expected);
        scale = std::max(scale, std::fabs(expected));
        worst = std::isnan(error) || at(side, i, j) != at(side, j, i)
                    ? std::numeric_limits<double>::infinity()
                    : std::max(worst, error);
      }
    }
    return worst / scale;
  }

  double bias(size_t side) const {
    double sum = 0;
    const int64_t size = sides_[side].factor.rows;
    for (int64_t i = 0; i < size; ++i) {
      const double exact = weight_ * product(side, i, i);
      sum += (double(at(side, i, i)) - exact) / exact;
    }
    return sum / double(size);
  }

  size_t sides() const { return sides_.size(); }
  const OuterSide& side(size_t i) const { return sides_[i]; }

 private:
  static double old(int64_t i, int64_t j) { return double((i * 7 + j * 3) % 11) / 4; }
  double product(size_t side, int64_t i, int64_t j) const {
    return made_of_[side].gradient->product(made_of_[side].left, i, j);
  }
  Factor at(size_t side, int64_t i, int64_t j) const {
    return factors_[side][size_t(i * sides_[side].factor.rows + j)];
  }

  double decay_, weight_;
  std::vector<std::unique_ptr<Gradient>> gradients_;
  std::vector<std::vector<Factor>> factors_;
  struct Product {
    const Gradient* gradient;
    bool left;
  };
  std::vector<Product> made_of_;  // side by side
  std::vector<OuterSide> sides_;
};

template <class Factor>
int check_case(const Case& c, const std::vector<Shape>& shapes, int multiprocessors) {
  Run<Factor> run(c, shapes, 0, kDecay, kWeight);
  run.update(c, multiprocessors);
  int wrong = 0;
  for (size_t side = 0; side < run.sides(); ++side) {
    const double error = run.error(side);
    if (error <= c.tolerance) continue;
    ++wrong;
    const Matrix& x = run.side(side).x;
    std::fprintf(stderr, "x %ld x %ld, dtype %d, precision %d, tiles %d: error %.1e > %.1e\n",
                 long(x.rows), long(x.columns), int(c.dtype), int(c.precision), int(c.tiles), error,
                 c.tolerance);
  }
  return wrong;
}

int check_outer() {
  const std::vector<Shape> ragged = {
      {7, 7}, {33, 72}, {16, 40, 1}, {72, 20, 8}, {20, 33, 3, true}, {64, 48, 0, true}, {140, 5}};
  // Blocks that finish a part of one tile and go on to the next.
  const std::vector<Shape> deep = {{20, 1100, 0, false, false}, {140, 1100, 4, true, false}};
  int wrong = 0;
  for (const Case& c : cases()) {
    for (const auto& [shapes, multiprocessors] : {std::pair(ragged, 2), std::pair(deep, 3)}) {
      wrong += c.factor_dtype == Dtype::kFloat64 ? check_case<double>(c, shapes, multiprocessors)
                                                 : check_case<float>(c, shapes, multiprocessors);
    }
  }
  return wrong;
}

// The relative error of the diagonal's mean over a long sum of positive terms.
int check_bias() {
  double worst = 0;
  for (const Case& c : cases()) {
    if (c.factor_dtype == Dtype::kFloat64 || c.precision != MatmulPrecision::kHighest) continue;
    Run<float> run(c, {{16, 8192, 0, false, false}}, 8, 0, 1);
    run.update(c, 1);
    worst = std::max(worst, std::fabs(run.bias(0)));
  }
  std::fprintf(stderr, "bias %.1e\n", worst);
  return !(worst < kLargestBias);
}

const Check outer("outer", &check_outer), bias("outer-bias", &check_bias);

}  // namespace
}  // namespace kronext::emulator
