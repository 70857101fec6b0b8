// T = Q diag(values) Q^T of one symmetric tridiagonal matrix by Cuppen's divide and conquer.
//
// The matrix is cut into leaves of equal size by rank-one tears, the leaves are solved by implicit
// QL, and the tears are mended level by level ("A divide and conquer method for the symmetric
// tridiagonal eigenproblem", Numer. Math. 36, 1981). Eigenvalues and all that decides about
// eigenvectors are float64; Q is T.
#pragma once

#include "csrc/core/team.h"
#include "csrc/cpu/eigh_ql.h"
#include "csrc/cpu/rank_one_merge.h"

namespace kronext::cpu::KRONEXT_CPU {

// Diagonal blocks small enough for implicit QL, one in each lane. Those that have fewer rows than
// the largest end in uncoupled zeros.
class TridiagonalLeaves {
 public:
  using Lane = Vector<double>;
  static constexpr int kCount = kLanes<double>;
  static constexpr int64_t kMaxRows = 16;

  TridiagonalLeaves(int64_t most_rows, Arena& arena);

  void set(int64_t leaf, int64_t rows, const double* diagonal, const double* off_diagonal);
  // False if some leaf did not converge.
  bool solve();
  template <class T>
  void store(int64_t leaf, int64_t rows, const Eigenpairs<T>& pairs) const;

 private:
  using Ql = LockstepQl<double, 1>;

  Lane* column(int64_t index) const { return vectors_ + index * size_; }

  int64_t size_;
  Lane *diagonal_, *off_diagonal_, *vectors_;
  uint8_t* marks_;
};

inline TridiagonalLeaves::TridiagonalLeaves(int64_t most_rows, Arena& arena)
    : size_(most_rows),
      diagonal_(arena.take<Lane>(size_)),
      off_diagonal_(arena.take<Lane>(size_)),
      vectors_(arena.take<Lane>(size_ * size_)),
      marks_(arena.take<uint8_t>(size_)) {}

inline void TridiagonalLeaves::set(int64_t leaf, int64_t rows, const double* diagonal,
                                   const double* off_diagonal) {
  for (int64_t i = 0; i < size_; ++i) {
    diagonal_[i][leaf] = i < rows ? diagonal[i] : 0;
    off_diagonal_[i][leaf] = i + 1 < rows ? off_diagonal[i] : 0;
  }
}

inline bool TridiagonalLeaves::solve() {
  for (int64_t c = 0; c < size_; ++c)
    for (int64_t r = 0; r < size_; ++r) column(c)[r] = splat(r == c ? 1.0 : 0.0);

  const auto rotate = [this](int, int64_t i, Lane t, Lane s) {
    Lane *z = column(i), *x = column(i + 1);
    for (int64_t r = 0; r < size_; ++r) {
      const Lane sheared = z[r] - t * x[r], moved = x[r] + s * sheared;
      x[r] = moved;
      z[r] = sheared - t * moved;
    }
  };
  Ql ql(size_, diagonal_, off_diagonal_, marks_, nullptr, FloatFormat<double>::kRoundoff);
  SweepRange range;
  LaneWindows<double, 1> windows;
  for (int64_t sweep = 0; sweep < ql.max_sweeps(); ++sweep)
    if (!ql.sweep(rotate, range, windows)) return true;
  return false;
}

template <class T>
void TridiagonalLeaves::store(int64_t leaf, int64_t rows, const Eigenpairs<T>& pairs) const {
  int64_t order[kMaxRows] = {};
  for (int64_t c = 0; c < rows; ++c) {
    const double value = diagonal_[c][leaf];
    int64_t rank = 0;
    for (int64_t other = 0; other < rows; ++other) {
      const double its = diagonal_[other][leaf];
      rank += its < value || (its == value && other < c);
    }
    order[rank] = c;
    pairs.values[rank] = value;
    pairs.first[rank] = column(c)[0][leaf];
    pairs.last[rank] = column(c)[rows - 1][leaf];
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < rows; ++k)
      pairs.vectors[r * pairs.row_stride + k] = T(column(order[k])[r][leaf]);
}

template <class T>
class DivideAndConquer {
 public:
  DivideAndConquer(int64_t n, int64_t workers, void* workspace);
  size_t bytes() const { return bytes_; }

  // diagonal[n] and off_diagonal[n - 1] are finite, the largest about 1. values[n] come out
  // ascending, columns of `vectors` (n x n, rows `row_stride` apart) are the eigenvectors. False if
  // an iteration did not converge. The result does not depend on the team.
  bool solve(const double* diagonal, const double* off_diagonal, double* values, T* vectors,
             int64_t row_stride, const Team& team);

 private:
  using Merge = RankOneMerge<T>;

  int64_t leaf_start(int64_t leaf) const { return minimum(leaf, leaves_) * n_ / leaves_; }
  Eigenpairs<T> pairs(int64_t row) const {
    return {pairs_.values + row, pairs_.first + row, pairs_.last + row,
            pairs_.vectors + row * (pairs_.row_stride + 1), pairs_.row_stride};
  }
  Merge merge(int64_t first_leaf, int64_t width, Arena& arena) const {
    const int64_t begin = leaf_start(first_leaf), middle = leaf_start(first_leaf + width);
    return {middle - begin, leaf_start(first_leaf + 2 * width) - begin, pairs(begin), arena};
  }

  void cut(const double* diagonal, const double* off_diagonal);
  void solve_leaves(const double* off_diagonal, const Team& team);
  void merge_level(const double* off_diagonal, int64_t width, const Team& team);
  template <class Count, class Task>
  void for_each_piece(const Team& team, int64_t merges, const Count& count, const Task& task);

  int64_t n_, leaves_, leaf_size_, scratch_size_;
  Eigenpairs<T> pairs_;
  double* cut_diagonal_;
  Merge* merges_;
  T* scratch_;       // of each worker
  uint8_t* failed_;  // by worker
  int64_t workers_;
  char *leaf_space_, *merge_space_;
  size_t leaf_bytes_, bytes_;
};

template <class T>
DivideAndConquer<T>::DivideAndConquer(int64_t n, int64_t workers, void* workspace)
    : n_(n), leaves_(1), pairs_{}, workers_(workers) {
  while (leaves_ * TridiagonalLeaves::kMaxRows < n) leaves_ *= 2;
  leaf_size_ = ceil_divide(n, leaves_);
  scratch_size_ = Merge::scratch_size(n);
  Arena arena(workspace);
  pairs_.first = arena.take<double>(n);
  pairs_.last = arena.take<double>(n);
  cut_diagonal_ = arena.take<double>(n);
  merges_ = arena.take<Merge>(leaves_ / 2);
  failed_ = arena.take<uint8_t>(workers);
  scratch_ = arena.take<T>(workers * scratch_size_);

  Arena leaf_arena(nullptr);
  TridiagonalLeaves(leaf_size_, leaf_arena);
  leaf_bytes_ = leaf_arena.used();
  size_t most = workers * leaf_bytes_;
  for (int64_t width = 1; width < leaves_; width *= 2) {
    Arena level(nullptr);
    for (int64_t leaf = 0; leaf < leaves_; leaf += 2 * width) merge(leaf, width, level);
    most = maximum(most, level.used());
  }
  merge_space_ = leaf_space_ = arena.take<char>(int64_t(most));
  bytes_ = arena.used();
}

// A coupling e between rows i and i + 1 becomes |e| v v^T with v = (1, sign e).
template <class T>
void DivideAndConquer<T>::cut(const double* diagonal, const double* off_diagonal) {
  for (int64_t i = 0; i < n_; ++i) cut_diagonal_[i] = diagonal[i];
  for (int64_t leaf = 1; leaf < leaves_; ++leaf) {
    const int64_t row = leaf_start(leaf);
    const double size = __builtin_fabs(off_diagonal[row - 1]);
    cut_diagonal_[row - 1] -= size;
    cut_diagonal_[row] -= size;
  }
  // Where denormals are flushed they count as equal and would stay unsorted.
  for (int64_t i = 0; i < n_; ++i)
    if (__builtin_fabs(cut_diagonal_[i]) < __DBL_MIN__) cut_diagonal_[i] = 0;
}

template <class T>
void DivideAndConquer<T>::solve_leaves(const double* off_diagonal, const Team& team) {
  constexpr int64_t kCount = TridiagonalLeaves::kCount;
  team(ceil_divide(leaves_, kCount), [&](int64_t task, int64_t worker) {
    const FlushDenormals flush;
    Arena arena(leaf_space_ + worker * leaf_bytes_);
    TridiagonalLeaves lanes(leaf_size_, arena);
    const int64_t first = task * kCount, count = minimum(kCount, leaves_ - first);
    for (int64_t leaf = 0; leaf < kCount; ++leaf) {
      const int64_t row = leaf_start(first + leaf);
      lanes.set(leaf, leaf_start(first + leaf + 1) - row, cut_diagonal_ + row, off_diagonal + row);
    }
    failed_[worker] |= !lanes.solve();
    for (int64_t leaf = 0; leaf < count; ++leaf) {
      const int64_t row = leaf_start(first + leaf);
      lanes.store(leaf, leaf_start(first + leaf + 1) - row, pairs(row));
    }
  });
}

// task(merge, piece, worker) for count(merge) pieces of every merge.
template <class T>
template <class Count, class Task>
void DivideAndConquer<T>::for_each_piece(const Team& team, int64_t merges, const Count& count,
                                         const Task& task) {
  int64_t most = 0;
  for (int64_t m = 0; m < merges; ++m) most = maximum<int64_t>(most, count(merges_[m]));
  team(merges * most, [&](int64_t index, int64_t worker) {
    const FlushDenormals flush;
    const int64_t m = index / most, piece = index % most;
    if (piece < count(merges_[m])) task(m, piece, worker);
  });
}

template <class T>
void DivideAndConquer<T>::merge_level(const double* off_diagonal, int64_t width, const Team& team) {
  const int64_t count = leaves_ / (2 * width);
  Arena arena(merge_space_);
  for (int64_t m = 0; m < count; ++m) merges_[m] = merge(m * 2 * width, width, arena);
  const auto one = [](const Merge&) { return int64_t(1); };
  const auto packs = [](const Merge& merge) { return merge.pack_tasks(); };
  const auto roots = [](const Merge& merge) { return merge.root_tasks(); };
  const auto products = [](const Merge& merge) { return merge.multiply_tasks(); };

  for_each_piece(team, count, one, [&](int64_t m, int64_t, int64_t) {
    merges_[m].deflate(off_diagonal[leaf_start((2 * m + 1) * width) - 1]);
  });
  for_each_piece(team, count, packs,
                 [&](int64_t m, int64_t piece, int64_t) { merges_[m].pack(piece); });
  for_each_piece(team, count, roots, [&](int64_t m, int64_t piece, int64_t worker) {
    failed_[worker] |= !merges_[m].solve(piece);
  });
  for_each_piece(team, count, roots,
                 [&](int64_t m, int64_t piece, int64_t) { merges_[m].weigh(piece); });
  for_each_piece(team, count, one, [&](int64_t m, int64_t, int64_t) { merges_[m].arrange(); });
  for_each_piece(team, count, products, [&](int64_t m, int64_t piece, int64_t worker) {
    merges_[m].multiply(piece, scratch_ + worker * scratch_size_);
  });
}

template <class T>
bool DivideAndConquer<T>::solve(const double* diagonal, const double* off_diagonal, double* values,
                                T* vectors, int64_t row_stride, const Team& team) {
  pairs_.values = values;
  pairs_.vectors = vectors;
  pairs_.row_stride = row_stride;
  for (int64_t worker = 0; worker < workers_; ++worker) failed_[worker] = false;
  cut(diagonal, off_diagonal);
  solve_leaves(off_diagonal, team);
  for (int64_t width = 1; width < leaves_; width *= 2) merge_level(off_diagonal, width, team);
  bool converged = true;
  for (int64_t worker = 0; worker < workers_; ++worker) converged &= !failed_[worker];
  return converged;
}

}  // namespace kronext::cpu::KRONEXT_CPU
