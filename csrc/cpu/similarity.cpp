#include "csrc/cpu/similarity.h"

#include "csrc/cpu/symmetric_tile.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class Compute>
struct Type {
  using T = Compute;
};

template <class F>
auto with_type(const SimilarityProblem& p, const F& f) {
  if (p.wide || p.out.dtype == Dtype::kFloat64) return f(Type<double>{});
  return f(Type<float>{});
}

double work(const SimilarityProblem& p) {
  const double n = double(p.x.rows);
  return (p.wide ? 3 : 1.5) * n * n * n;
}

int64_t shared_bytes(const SimilarityProblem& p) {
  return with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    return 2 * panel_count<T>(p.x.rows) * panel_stride<T>(p.x.rows) * int64_t(sizeof(T));
  });
}

int64_t scratch_bytes(const SimilarityProblem& p) {
  return with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    const int64_t row_panel = panel_count<T>(p.x.rows) * kTileSize<T>;
    return (row_panel + kMaxStripTiles * kTileSize<T>)*int64_t(sizeof(T));
  });
}

int64_t steps(const SimilarityProblem& p) {
  return with_type(p, [&](auto type) { return panel_count<typename decltype(type)::T>(p.x.rows); });
}

int64_t pack_steps(const SimilarityProblem& p) { return 2 * steps(p); }

void pack(const SimilarityProblem& p, int64_t step, void* shared) {
  with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    const int64_t count = panel_count<T>(p.x.rows);
    T* panel = static_cast<T*>(shared) + step * panel_stride<T>(p.x.rows);
    if (step < count) {
      pack_panel<T>(p.x, step * kPanel<T>, panel);
    } else {
      pack_panel<T>(p.c, (step - count) * kPanel<T>, panel);
    }
  });
}

template <class T, class C>
void run_row(const SimilarityProblem& p, int64_t row, const T* x, T* scratch) {
  const int64_t n = p.x.rows, count = panel_count<T>(n), stride = panel_stride<T>(n);
  const T* c = x + count * stride;
  T* row_panel = scratch;  // the row of X C, packed
  T* tiles = row_panel + count * kTileSize<T>;
  const int rows = panel_extent<T>(n, row);
  for (int64_t k = 0; k < count; ++k) {
    multiply_strip(c + k * stride, x + row * stride, 0, n, 1, panel_extent<T>(n, k), rows, false,
                   row_panel + k * kTileSize<T>);
  }
  const SymmetricTile<T, C> writer{T(0), T(p.weight)};
  const int64_t width = strip_width(stride * int64_t(sizeof(T)));
  for (int64_t first = 0; first <= row; first += width) {
    const int64_t last = minimum(row + 1, first + width);
    multiply_strip(row_panel, x + first * stride, stride, n, last - first, rows,
                   panel_extent<T>(n, last - 1), false, tiles);
    for (int64_t column = first; column < last; ++column) {
      writer.write(tiles + (column - first) * kTileSize<T>, static_cast<C*>(p.out.data), n,
                   p.out.row_stride, row, column);
    }
  }
}

void run(const SimilarityProblem& p, int64_t step, const void* shared, void* scratch) {
  with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    const int64_t row = steps(p) - 1 - step;
    if (p.out.dtype == Dtype::kFloat64) {
      run_row<T, double>(p, row, static_cast<const T*>(shared), static_cast<T*>(scratch));
    } else {
      run_row<T, float>(p, row, static_cast<const T*>(shared), static_cast<T*>(scratch));
    }
  });
}

int operands(const SimilarityProblem& p, Operand* operands) {
  operands[0] = {p.x, false};
  operands[1] = {p.c, false};
  operands[2] = {p.out, true};
  return 3;
}

}  // namespace

extern const JobKernel<SimilarityProblem> kSimilarity{
    .work = work,
    .shared_bytes = shared_bytes,
    .scratch_bytes = scratch_bytes,
    .pack_steps = pack_steps,
    .steps = steps,
    .pack = pack,
    .run = run,
    .operands = operands,
};

}  // namespace kronext::cpu::KRONEXT_CPU
