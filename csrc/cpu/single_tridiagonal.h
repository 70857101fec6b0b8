// Householder tridiagonalisation of one symmetric matrix: A = Q T QT, Q = H_{n-1} ... H_2.
//
// Vectors run along the rows of the matrix. As in eigh_tridiagonal.h, step k, from the last row up,
// reflects the first k entries of row k onto entry k - 1:
//   H_k = I - tau_k v_k v_kT,   A <- H_k A H_k = A + v wT + w vT,
//   w = tau ((tau / 2) (pT v) v - p),   p = A v.
// Updates are held back while a panel of rows is reduced (LAPACK's dlatrd): a row is brought up to
// date when its turn comes, p is taken with the old matrix and corrected, p <- p + V (WT v) +
// W (VT v), and after the panel A <- A + V WT + W VT is one product, 2/3 n^3 operations in all. The
// other 2/3 n^3, the products A v, read the whole triangle for each row, and the speed of the cache
// that holds it is their bound.
#pragma once

#include "csrc/core/team.h"
#include "csrc/cpu/arena.h"
#include "csrc/cpu/single_matrix.h"

namespace kronext::cpu::KRONEXT_CPU {

// ---- products with the lower triangle ----------------------------------------------------------

// Rows that share one load and store of p: a sum and a factor in registers for each.
constexpr int kProductRows = kVectorRegisters / 4;

// Rows of a block on the diagonal; parts of a product are multiples of it.
template <class D>
constexpr int kProductBlock = maximum(kProductRows, kLanes<D>);

// p += A v for the entries of rows [first, first + kProductRows) of the lower triangle and their
// mirror images.
template <class D>
KRONEXT_INLINE void multiply_rows_symmetric(const D* a, int64_t pitch, int64_t first,
                                            const D* __restrict v, D* __restrict p) {
  constexpr int kL = kLanes<D>, kBlock = kProductBlock<D>;
  const int64_t block = first / kBlock * kBlock;
  const D* row = a + first * pitch;
  Vector<D> sum[kProductRows] = {}, factor[kProductRows];
#pragma GCC unroll 8
  for (int r = 0; r < kProductRows; ++r) factor[r] = splat(v[first + r]);
#pragma GCC unroll 2
  for (int64_t j = 0; j < block; j += kL) {
    const Vector<D> v_j = load(v + j);
    Vector<D> p_j = load(p + j);
#pragma GCC unroll 8
    for (int r = 0; r < kProductRows; ++r) {
      const Vector<D> x = load(row + r * pitch + j);
      sum[r] += x * v_j;
      p_j += x * factor[r];
    }
    store(p + j, p_j);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kProductRows; ++r) {
    for (int64_t j = block; j < block + kBlock; j += kL)
      sum[r] += load(row + r * pitch + j) * load(v + j);
    p[first + r] += sum_of_lanes<D>(sum[r]);
  }
}

// p = A v for rows [first, last) of the lower triangle and their mirror images; p[0 .. last).
template <class D>
void multiply_symmetric(const Reduction<D>& t, int64_t first, int64_t last, bool upward, const D* v,
                        D* p) {
  for (int64_t j = 0; j < last; j += kLanes<D>) store(p + j, Vector<D>{});
  for (int64_t done = 0; done < last - first; done += kProductRows) {
    const int64_t row = upward ? last - kProductRows - done : first + done;
    multiply_rows_symmetric<D>(t.matrix, row_pitch<D>(t.n), row, v, p);
  }
}

// ---- updates that are held back ----------------------------------------------------------------

// Rows v_r and w_r, first <= r < last, such as those whose v wT + w vT is still to be added.
template <class D>
struct RowPairs {
  const D *v, *w;  // row r of each: `pitch` values further
  int64_t pitch, first, last;

  // to_v[r] = v_r . x and to_w[r] = w_r . x over `length` values, a multiple of a vector.
  void dots(const D* x, int64_t length, D* to_v, D* to_w) const {
    dots_from<kVectorRegisters / 8>(first, x, length, to_v, to_w);
  }
  // x += sum of by_v[r] v_r + by_w[r] w_r.
  void add(const D* by_v, const D* by_w, int64_t length, D* x) const {
    add_from<kVectorRegisters / 4>(first, by_v, by_w, length, x);
  }

 private:
  template <int Pairs>
  KRONEXT_INLINE void dots_from(int64_t r, const D* x, int64_t length, D* to_v, D* to_w) const {
    for (; r + Pairs <= last; r += Pairs) {
      const D *v_r = v + r * pitch, *w_r = w + r * pitch;
      Vector<D> sum_v[Pairs] = {}, sum_w[Pairs] = {};
      for (int64_t j = 0; j < length; j += kLanes<D>) {
        const Vector<D> x_j = load(x + j);
#pragma GCC unroll 8
        for (int q = 0; q < Pairs; ++q) {
          sum_v[q] += load(v_r + q * pitch + j) * x_j;
          sum_w[q] += load(w_r + q * pitch + j) * x_j;
        }
      }
#pragma GCC unroll 8
      for (int q = 0; q < Pairs; ++q) {
        to_v[r + q] = sum_of_lanes<D>(sum_v[q]);
        to_w[r + q] = sum_of_lanes<D>(sum_w[q]);
      }
    }
    if constexpr (Pairs > 1) dots_from<Pairs / 2>(r, x, length, to_v, to_w);
  }

  template <int Pairs>
  KRONEXT_INLINE void add_from(int64_t r, const D* by_v, const D* by_w, int64_t length,
                               D* x) const {
    for (; r + Pairs <= last; r += Pairs) {
      const D *v_r = v + r * pitch, *w_r = w + r * pitch;
      Vector<D> factor_v[Pairs], factor_w[Pairs];
#pragma GCC unroll 8
      for (int q = 0; q < Pairs; ++q) {
        factor_v[q] = splat(by_v[r + q]);
        factor_w[q] = splat(by_w[r + q]);
      }
      for (int64_t j = 0; j < length; j += kLanes<D>) {
        Vector<D> x_j = load(x + j), y_j{};
#pragma GCC unroll 8
        for (int q = 0; q < Pairs; ++q) {
          x_j += load(v_r + q * pitch + j) * factor_v[q];
          y_j += load(w_r + q * pitch + j) * factor_w[q];
        }
        store(x + j, x_j + y_j);
      }
    }
    if constexpr (Pairs > 1) add_from<Pairs / 2>(r, by_v, by_w, length, x);
  }
};

// The reflector of row v[0 .. k] in place: v[k - 1] becomes 1, what follows up to `end` zero. Rows
// 0 and 1 have nothing to reflect.
template <class D>
void make_reflector(D* v, int64_t k, int64_t end, const Reduction<D>& t) {
  // Below the roundoff of a matrix scaled to about 1, and far above the squares that are flushed.
  constexpr D kNothingLeft = FloatFormat<D>::kFloor;
  constexpr int kL = kLanes<D>;
  const D pivot = k > 0 ? v[k - 1] : D(0);
  for (int64_t j = maximum<int64_t>(k - 1, 0); j < end; ++j) v[j] = 0;
  Vector<D> sum[2] = {};
  for (int64_t j = 0; j < end; j += 2 * kL) {
    sum[0] += load(v + j) * load(v + j);
    sum[1] += load(v + j + kL) * load(v + j + kL);
  }
  const D rest = sum_of_lanes<D>(sum[0] + sum[1]);
  D inverse = 0, tau = 0, off_diagonal = pivot;
  if (rest > kNothingLeft) {
    const D norm = square_root(splat(pivot * pivot + rest))[0];
    const D magnitude = pivot < 0 ? -pivot : pivot;
    inverse = (pivot < 0 ? D(-1) : D(1)) / (magnitude + norm);
    off_diagonal = pivot < 0 ? norm : -norm;
    tau = (magnitude + norm) / norm;
  }
  for (int64_t j = 0; j < end; j += kL) store(v + j, load(v + j) * inverse);
  if (k > 0) {
    v[k - 1] = tau == D(0) ? D(0) : D(1);
    t.off_diagonal[k - 1] = off_diagonal;
  }
  t.tau[k] = tau;
}

// ---- the reduction -----------------------------------------------------------------------------

// Rows whose updates are held back together.
constexpr int64_t kPanelRows = 16;
// Smaller leading blocks are not worth waking a team for.
constexpr int64_t kTeamSize = 512;

template <class D>
class Tridiagonalizer {
 public:
  Tridiagonalizer(const Reduction<D>& t, void* workspace);
  void run(const Team& team);
  int64_t bytes() const { return bytes_; }

 private:
  void reduce_row(const Team& team, int64_t k, int64_t first, int64_t last);
  void multiply(const Team& team, int64_t k, const D* v);
  void update(const Team& team, int64_t first, int64_t last);

  static int64_t parts(int64_t k) { return k < kTeamSize ? 1 : k / 128; }

  Reduction<D> t_;
  int64_t pitch_;
  D* w_;       // kPanelRows rows
  D* p_;       // a row for each part of a product
  D* panels_;  // packed V and W
  int64_t bytes_;
};

template <class D>
Tridiagonalizer<D>::Tridiagonalizer(const Reduction<D>& t, void* workspace)
    : t_(t), pitch_(row_pitch<D>(t.n)) {
  Arena arena(workspace);
  w_ = arena.take<D>(kPanelRows * pitch_);
  p_ = arena.take<D>(parts(t.n) * pitch_);
  panels_ = arena.take<D>(panel_count<D>(t.n) * panel_stride<D>(3 * kPanelRows));
  bytes_ = arena.used();
}

// p = A v over the leading k x k block, v zero from k on. Parts of about equal area, and the order
// in which they are summed, depend on k alone; part 0 has the last rows and so reaches all of p.
// Every other product goes upward: it begins with the rows that are still in a cache.
template <class D>
void Tridiagonalizer<D>::multiply(const Team& team, int64_t k, const D* v) {
  constexpr int kBlock = kProductBlock<D>;
  const int64_t rows = round_up<int64_t>(k, kBlock), count = parts(k);
  const bool upward = k % 2 == 0;
  const auto end = [&](int64_t part) {
    const double area = double(count - part) / double(count);
    return int64_t(double(rows) * __builtin_sqrt(area)) / kBlock * kBlock;
  };
  team(count, [&](int64_t index, int64_t) {
    const FlushDenormals flush;
    const int64_t part = upward ? index : count - 1 - index;
    multiply_symmetric<D>(t_, end(part + 1), end(part), upward, v, p_ + part * pitch_);
  });
  for (int64_t part = 1; part < count; ++part) {
    const D* partial = p_ + part * pitch_;
    for (int64_t j = 0, last = end(part); j < last; j += kLanes<D>)
      store(p_ + j, load(p_ + j) + load(partial + j));
  }
}

// Step k of the panel of rows [first, last).
template <class D>
void Tridiagonalizer<D>::reduce_row(const Team& team, int64_t k, int64_t first, int64_t last) {
  constexpr int kL = kLanes<D>;
  const RowPairs<D> pending{t_.row(first), w_, pitch_, k + 1 - first, last - first};
  const int64_t end = round_up(k + 1, kRowBlock), length = round_up<int64_t>(k, kL);
  D *v = t_.row(k), *w = w_ + (k - first) * pitch_, by_v[kPanelRows], by_w[kPanelRows];
  for (int64_t r = pending.first; r < pending.last; ++r) {
    by_v[r] = pending.w[r * pitch_ + k];
    by_w[r] = pending.v[r * pitch_ + k];
  }
  pending.add(by_v, by_w, round_up<int64_t>(k + 1, kL), v);
  t_.diagonal[k] = v[k];
  make_reflector<D>(v, k, end, t_);
  for (int64_t j = 0; j < end; j += kL) store(w + j, Vector<D>{});
  const D tau = t_.tau[k];
  if (tau == D(0)) return;

  multiply(team, k, v);
  pending.dots(v, length, by_w, by_v);
  pending.add(by_v, by_w, length, p_);
  for (int64_t j = k; j < length; ++j) p_[j] = 0;
  Vector<D> sum{};
  for (int64_t j = 0; j < length; j += kL) sum += load(p_ + j) * load(v + j);
  const Vector<D> half = splat(sum_of_lanes<D>(sum) * tau * D(0.5));
  for (int64_t j = 0; j < length; j += kL) store(w + j, (half * load(v + j) - load(p_ + j)) * tau);
}

// The leading `first` x `first` block += V WT + W VT of the panel of rows [first, last).
template <class D>
void Tridiagonalizer<D>::update(const Team& team, int64_t first, int64_t last) {
  constexpr int kW = kPanel<D>;
  static_assert(kPanelRows % kRows == 0, "the micro-kernel writes no row of the panel");
  const int64_t depth = last - first, stride = panel_stride<D>(3 * kPanelRows);
  const int64_t count = panel_count<D>(first);
  // A panel is V, W, V: its first two thirds serve as left operand, its last two as right one.
  team(count, [&](int64_t index, int64_t) {
    const FlushDenormals flush;
    const Matrix v{t_.row(first), kDtypeOf<D>, first, depth, 1, pitch_};
    const Matrix w{w_, kDtypeOf<D>, first, depth, 1, pitch_};
    D* panel = panels_ + index * stride;
    pack_panel<D>(v, index * kW, panel);
    pack_panel<D>(w, index * kW, panel + depth * kW);
    pack_panel<D>(v, index * kW, panel + 2 * depth * kW);
  });
  team(count, [&](int64_t index, int64_t) {
    const FlushDenormals flush;
    const int64_t row = count - 1 - index;
    const int rows = panel_extent<D>(first, row);
    for (int64_t column = 0; column <= row; ++column)
      multiply_tile<D>(panels_ + row * stride, panels_ + column * stride + depth * kW, 2 * depth,
                       rows, kW, true, t_.row(row * kW) + column * kW, pitch_);
  });
}

template <class D>
void Tridiagonalizer<D>::run(const Team& team) {
  const FlushDenormals flush;
  constexpr Team kAlone{1, nullptr, nullptr};
  for (int64_t last = t_.n; last > 0;) {
    const int64_t first = (last - 1) / kPanelRows * kPanelRows;
    const Team& sharing = first < kTeamSize ? kAlone : team;
    for (int64_t k = last - 1; k >= first; --k) reduce_row(sharing, k, first, last);
    update(sharing, first, last);
    last = first;
  }
  t_.off_diagonal[t_.n - 1] = 0;
}

template <class D>
int64_t tridiagonalize_bytes(int64_t n) {
  return Tridiagonalizer<D>({n, nullptr, nullptr, nullptr, nullptr}, nullptr).bytes();
}

// `workspace` has tridiagonalize_bytes<D>(n) bytes.
template <class D>
void tridiagonalize(const Team& team, const Reduction<D>& t, void* workspace) {
  Tridiagonalizer<D>(t, workspace).run(team);
}

}  // namespace kronext::cpu::KRONEXT_CPU
