// Deflation of diag(d) + rho z z^T, of which two solved halves of a tridiagonal matrix are merged.
//
// A column (an eigenvector of one of the halves) whose z is negligible is an eigenvector already,
// and of two columns with nearly equal d one rotation makes one such. What remains has distinct
// poles and weights that matter. Columns are numbered as they lie, the upper half's first.
#pragma once

#include "csrc/cpu/eigh_lanes.h"

namespace kronext::cpu::KRONEXT_CPU {

// The halves in which a column has entries; rotations across the halves fill both.
enum ColumnHalves : uint8_t { kUpperHalf = 1, kLowerHalf = 2, kBothHalves = 3 };

// Columns x and y become c x + s y and c y - s x.
struct ColumnRotation {
  int32_t x, y;
  double c, s;
};

struct Deflation {
  int64_t upper, columns;  // of the upper half, of both
  double rho;

  // By column.
  double *values, *z;
  double *first, *last;  // rows of the eigenvectors
  ColumnHalves* halves;

  int32_t *kept, *deflated;  // columns, ascending by value
  ColumnRotation* rotations;
  int64_t kept_count = 0, deflated_count = 0, rotation_count = 0;
  double scale = 1;  // a power of two: with values and rho divided by it nothing exceeds 1

  // `order` is room for the columns.
  void run(int32_t* order);

 private:
  // Largest perturbation, in units of the scale.
  static constexpr double kTolerance = 8 * FloatFormat<double>::kRoundoff;

  void merge_order(int32_t* order) const;
  void find_scale();
  void rotate(int32_t x, int32_t y);
  void deflate(int32_t column);
};

inline void Deflation::merge_order(int32_t* order) const {
  int64_t a = 0, b = upper;
  for (int64_t i = 0; i < columns; ++i) {
    const bool from_upper = b == columns || (a < upper && values[a] <= values[b]);
    order[i] = int32_t(from_upper ? a++ : b++);
  }
}

inline void Deflation::find_scale() {
  double largest = rho;
  for (int64_t i = 0; i < columns; ++i) largest = maximum(largest, __builtin_fabs(values[i]));
  const int64_t power = (__builtin_bit_cast(int64_t, largest) >> 52) - 1023;
  scale = __builtin_bit_cast(double, (maximum<int64_t>(power, -1000) + 1024) << 52);
}

// Moves the weight of x to y.
inline void Deflation::rotate(int32_t x, int32_t y) {
  const double length = __builtin_sqrt(z[x] * z[x] + z[y] * z[y]);
  const double c = z[y] / length, s = -z[x] / length;
  z[y] = length;
  z[x] = 0;
  const double dx = values[x], dy = values[y];
  values[x] = dx * c * c + dy * s * s;
  values[y] = dx * s * s + dy * c * c;
  double* const rows[] = {first, last};
  for (double* row : rows) {
    const double a = row[x], b = row[y];
    row[x] = c * a + s * b;
    row[y] = c * b - s * a;
  }
  halves[x] = halves[y] = ColumnHalves(halves[x] | halves[y]);
  rotations[rotation_count++] = {x, y, c, s};
}

// Rotations may take a value past the one deflated before it.
inline void Deflation::deflate(int32_t column) {
  int64_t i = deflated_count++;
  for (; i > 0 && values[deflated[i - 1]] > values[column]; --i) deflated[i] = deflated[i - 1];
  deflated[i] = column;
}

inline void Deflation::run(int32_t* order) {
  merge_order(order);
  find_scale();
  const double tolerance = kTolerance * scale;
  int32_t candidate = -1;  // the last column that is not deflated yet
  for (int64_t i = 0; i < columns; ++i) {
    const int32_t column = order[i];
    if (rho * __builtin_fabs(z[column]) <= tolerance) {
      deflate(column);
      continue;
    }
    if (candidate >= 0) {
      const double a = z[candidate], b = z[column], gap = values[column] - values[candidate];
      if (__builtin_fabs(gap * a * b) <= tolerance * (a * a + b * b)) {
        rotate(candidate, column);
        deflate(candidate);
      } else {
        kept[kept_count++] = candidate;
      }
    }
    candidate = column;
  }
  if (candidate >= 0) kept[kept_count++] = candidate;
}

}  // namespace kronext::cpu::KRONEXT_CPU
