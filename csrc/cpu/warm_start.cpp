#include "csrc/cpu/warm_start.h"

#include "csrc/cpu/simd.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

// sum_j term(j) over a row, in an order that leaves room for vectors.
template <class Term>
KRONEXT_INLINE double sum_over(int64_t n, const Term& term) {
  constexpr int kWays = 16;
  double sums[kWays] = {};
  int64_t j = 0;
  for (; j + kWays <= n; j += kWays) {
    for (int way = 0; way < kWays; ++way) sums[way] += term(j + way);
  }
  for (int way = 0; j < n; ++j, ++way) sums[way] += term(j);
  double total = 0;
  for (int way = 0; way < kWays; ++way) total += sums[way];
  return total;
}

void mirror(const float* lower, int64_t n, float scale, float* out, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; row += kMirrorTile) {
    const int64_t row_end = minimum(n, row + kMirrorTile);
    for (int64_t column = 0; column <= row; column += kMirrorTile) {
      for (int64_t i = row; i < row_end; ++i) {
        const int64_t column_end = minimum(i + 1, column + kMirrorTile);
        for (int64_t j = column; j < column_end; ++j) {
          out[i * n + j] = out[j * n + i] = scale * lower[i * n + j];
        }
      }
    }
  }
}

void permute(const float* in, int64_t n, const int32_t* rows, const int32_t* columns, float* out,
             int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const float* from = in + (rows ? rows[i] : i) * n;
    for (int64_t j = 0; j < n; ++j) out[i * n + j] = from[columns[j]];
  }
}

void measure(const NearDiagonal& m, double* remainder, double* kink, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const float* b = m.b + i * m.n;
    const double diagonal = double(b[i]) * double(b[i]) * m.inverse_damped[i];
    const double sum =
        sum_over(m.n, [&](int64_t j) { return double(b[j]) * double(b[j]) * m.inverse_damped[j]; });
    const double weight = m.gains[i] * m.inverse_damped[i];
    remainder[i] = weight * maximum(0.0, sum - diagonal);
    kink[i] = 0;
    const double positive = maximum(0.0, m.values[i]), damping = m.damped[i] - positive;
    if (m.values[i] > damping) continue;
    kink[i] = weight * sum_over(m.n, [&](int64_t j) {
                const double square = double(b[j]) * double(b[j]);
                const bool indefinite = square > positive * maximum(0.0, m.values[j]);
                return indefinite && m.values[j] <= damping && j != i
                           ? m.gains[j] * square * m.inverse_damped[j]
                           : 0.0;
              });
  }
}

void angles(const NearDiagonal& m, float* k, double* lengths, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const float* b = m.b + i * m.n;
    float* row = k + i * m.n;
    const double value = m.values[i], damped = m.damped[i];
    for (int64_t j = 0; j < m.n; ++j) {
      row[j] = float(rotation_angle(b[j], m.values[j] - value, damped * m.damped[j]));
    }
    row[i] = 0;
    lengths[i] =
        __builtin_sqrt(sum_over(m.n, [&](int64_t j) { return double(row[j]) * double(row[j]); }));
  }
}

void limit(const double* limits, int64_t n, float* k, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const double own = limits[i];
    for (int64_t j = 0; j < n; ++j) {
      k[i * n + j] *= float(limits[j] < own ? limits[j] : own);
    }
  }
}

void multiply(const float* w, int64_t n, const float* x, float* y, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    y[i] = float(sum_over(n, [&](int64_t j) { return double(w[i * n + j] * x[j]); }));
  }
}

void rotation(const float* w, const float* cube, int64_t n, float scale, float* k, int64_t first,
              int64_t last) {
  const float square_scale = scale * scale / 2, cube_scale = scale * scale * scale / 8;
  for (int64_t i = first; i < last; ++i) {
    float* row = k + i * n;
    for (int64_t j = 0; j < n; ++j) row[j] = scale * row[j] - square_scale * w[i * n + j];
    for (int64_t j = 0; cube && j < n; ++j) row[j] -= cube_scale * cube[i * n + j];
    row[i] += 1;
  }
}

void weigh_columns(const float* u, const double* weights, int64_t n, double* sums, int64_t first,
                   int64_t last) {
  for (int64_t j = first; j < last; ++j) sums[j] = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double weight = weights[i];
    for (int64_t j = first; j < last; ++j) {
      sums[j] += weight * double(u[i * n + j]) * double(u[i * n + j]);
    }
  }
}

void function(const NearDiagonal& m, const float* gram, double exponent, float* out,
              double* defects, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const float *b = m.b + i * m.n, *g = gram + i * m.n;
    float* row = out + i * m.n;
    const double d = m.values[i], x = m.damped[i], f = m.gains[i];
    for (int64_t j = 0; j < m.n; ++j) {
      const double coupling = b[j] - 0.5 * g[j] * (d + m.values[j]);
      const double slope =
          divided_difference(d, m.values[j], x, m.damped[j], f, m.gains[j], exponent);
      row[j] = float(slope * coupling - 0.5 * g[j] * (f + m.gains[j]));
    }
    const double lack = double(g[i]) - 1;
    row[i] = float(f - lack * f);
    defects[i] = lack * lack + sum_over(m.n, [&](int64_t j) {
                   return j == i ? 0.0 : double(g[j]) * double(g[j]);
                 });
  }
}

}  // namespace

extern const WarmStartKernel kWarmStart{
    .mirror = mirror,
    .permute = permute,
    .measure = measure,
    .angles = angles,
    .limit = limit,
    .multiply = multiply,
    .rotation = rotation,
    .weigh_columns = weigh_columns,
    .function = function,
};

}  // namespace kronext::cpu::KRONEXT_CPU
