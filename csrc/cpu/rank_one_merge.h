// Merging two solved halves of a tridiagonal matrix:
//
//   diag(Q1, Q2) (diag(d) + rho z z^T) diag(Q1, Q2)^T = Q diag(values) Q^T
//
// All decisions and the eigenvectors U of the inner matrix are float64. Only the product Q =
// diag(Q1, Q2) U is made in T, and since z comes from the last row of Q1 and the first row of Q2,
// the outermost rows of Q are carried along in float64.
//
//   deflate     find the columns that stay as they are            columns
//   pack        Q1, Q2 into panels                                columns^2
//   solve       the secular equation                              kept^2
//   weigh       z of which its roots are exact                    kept^2
//   arrange     the eigenvalues in ascending order                columns
//   multiply    a panel of U at a time, times Q1 and Q2           kept^2 columns
//
// Where a step has tasks these are independent of one another, for several threads to take.
//
// Rows of U stand in the order [columns of Q1, of both, of Q2], since rotations across the halves
// make columns of both: the upper rows of Q need the first two, the lower rows the last two.
#pragma once

#include "csrc/cpu/arena.h"
#include "csrc/cpu/deflation.h"
#include "csrc/cpu/product.h"
#include "csrc/cpu/secular_equation.h"

namespace kronext::cpu::KRONEXT_CPU {

// The eigenpairs of a diagonal block of the tridiagonal matrix, ascending.
template <class T>
struct Eigenpairs {
  double* values;
  double *first, *last;  // rows of the eigenvectors
  T* vectors;            // columns
  int64_t row_stride;
};

template <class T>
class RankOneMerge {
 public:
  // Pieces of the arena for halves of `upper` and `columns - upper` columns. `pairs` are those of
  // the halves and become those of the whole.
  RankOneMerge(int64_t upper, int64_t columns, const Eigenpairs<T>& pairs, Arena& arena);

  // `coupling` is the entry next to the diagonal at which the matrix was cut.
  void deflate(double coupling);

  int64_t pack_tasks() const { return halves_[0].panel_count() + halves_[1].panel_count(); }
  void pack(int64_t task) const;

  int64_t root_tasks() const { return ceil_divide<int64_t>(kept(), SecularEquation::kWidth); }
  bool solve(int64_t task) const { return secular_.solve(task * SecularEquation::kWidth); }
  void weigh(int64_t task) const {
    secular_.exact_weights(task * SecularEquation::kWidth, weights_);
  }

  // Needs all roots and their weights.
  void arrange() const;

  int64_t multiply_tasks() const { return panel_count<T>(kept()) + panel_count<T>(deflated()); }
  void multiply(int64_t task, T* scratch) const;
  static int64_t scratch_size(int64_t columns) {
    return columns * kW + panel_count<T>(columns) * kTileSize<T>;
  }

 private:
  using Lane = Vector<double>;
  static constexpr int kW = kPanel<T>, kL = kLanes<T>, kRoots = kLanes<double>;

  // The rows of one half. Its panels hold first the kept columns that have entries there, in the
  // order of U, then the deflated ones.
  struct Half {
    int64_t first_row, rows;
    ColumnHalves bit;
    int32_t* slot;  // of each column in the panels; -1 without entries
    T* panels;
    int64_t first_u;  // row of U that belongs to the first slot
    int64_t kept, filled;

    int64_t panel_count() const { return KRONEXT_CPU::panel_count<T>(rows); }
    int64_t stride() const { return panel_stride<T>(filled); }
    T* panel(int64_t index) const { return panels + index * stride(); }
  };

  int64_t kept() const { return deflation_.kept_count; }
  int64_t deflated() const { return deflation_.deflated_count; }

  void order_rows();
  void form_vectors(int64_t first, T* u) const;
  void write_tile(const T* tile, int64_t first_row, int rows, int columns,
                  const int32_t* position) const;
  void write_product(int64_t first, T* scratch) const;
  void unpack_deflated(const Half& half, const T* panel, int64_t first, int columns, T* tile) const;
  void write_deflated(int64_t first, T* tile) const;

  int64_t columns_;
  Eigenpairs<T> pairs_;
  Deflation deflation_;
  SecularEquation secular_;
  Half halves_[2];
  int32_t* order_;
  double *poles_, *squares_, *origins_, *offsets_, *weights_;  // of the kept columns, ascending
  int32_t *root_position_, *deflated_position_;                // among all eigenvalues
  int32_t* u_column_;                                          // of a row of U, among the kept
  double *u_pole_, *u_weight_, *u_first_, *u_last_;            // by row of U
};

template <class T>
RankOneMerge<T>::RankOneMerge(int64_t upper, int64_t columns, const Eigenpairs<T>& pairs,
                              Arena& arena)
    : columns_(columns), pairs_(pairs) {
  const int64_t padded = round_up<int64_t>(columns, kW);  // roots are read by whole panels
  deflation_.upper = upper;
  deflation_.columns = columns;
  double** const reals[] = {
      &deflation_.values, &deflation_.z, &deflation_.first, &deflation_.last, &poles_,
      &squares_,          &origins_,     &offsets_,         &weights_,        &u_pole_,
      &u_weight_,         &u_first_,     &u_last_};
  int32_t** const indices[] = {&deflation_.kept, &deflation_.deflated, &order_,
                               &root_position_,  &deflated_position_,  &u_column_,
                               &halves_[0].slot, &halves_[1].slot};
  for (double** array : reals) *array = arena.take<double>(padded);
  for (int32_t** array : indices) *array = arena.take<int32_t>(padded);
  deflation_.halves = arena.take<ColumnHalves>(columns);
  deflation_.rotations = arena.take<ColumnRotation>(columns);
  for (int h = 0; h < 2; ++h) {
    Half& half = halves_[h];
    half.first_row = h ? upper : 0;
    half.rows = h ? columns - upper : upper;
    half.bit = h ? kLowerHalf : kUpperHalf;
    half.panels = arena.take<T>(half.panel_count() * panel_stride<T>(columns));
  }
}

template <class T>
void RankOneMerge<T>::deflate(double coupling) {
  constexpr double kRootHalf = 0.70710678118654752440;  // both rows are unit vectors: |z| = 1
  const int64_t upper = deflation_.upper;
  for (int64_t i = 0; i < columns_; ++i) {
    const bool is_upper = i < upper;
    deflation_.values[i] = pairs_.values[i];
    deflation_.first[i] = is_upper ? pairs_.first[i] : 0;
    deflation_.last[i] = is_upper ? 0 : pairs_.last[i];
    deflation_.halves[i] = is_upper ? kUpperHalf : kLowerHalf;
    const double z = is_upper ? pairs_.last[i] : coupling < 0 ? -pairs_.first[i] : pairs_.first[i];
    deflation_.z[i] = z * kRootHalf;
  }
  deflation_.rho = 2 * __builtin_fabs(coupling);
  deflation_.run(order_);

  const double inverse_scale = 1 / deflation_.scale;
  for (int64_t a = 0; a < kept(); ++a) {
    const int32_t column = deflation_.kept[a];
    poles_[a] = deflation_.values[column] * inverse_scale;
    squares_[a] = deflation_.z[column] * deflation_.z[column];
  }
  secular_ = {kept(), deflation_.scale / deflation_.rho, poles_, squares_, origins_, offsets_};
  order_rows();
}

// Slots in the panels and the order of the rows of U.
template <class T>
void RankOneMerge<T>::order_rows() {
  for (Half& half : halves_) {
    half.kept = half.filled = 0;
    for (int64_t i = 0; i < columns_; ++i) half.slot[i] = -1;
  }
  int64_t row = 0;
  constexpr ColumnHalves kOrder[] = {kUpperHalf, kBothHalves, kLowerHalf};
  for (const ColumnHalves with : kOrder) {
    for (int64_t a = 0; a < kept(); ++a) {
      const int32_t column = deflation_.kept[a];
      if (deflation_.halves[column] != with) continue;
      for (Half& half : halves_)
        if (with & half.bit) half.slot[column] = int32_t(half.kept++);
      u_column_[row] = int32_t(a);
      u_pole_[row] = poles_[a];
      u_first_[row] = deflation_.first[column];
      u_last_[row] = deflation_.last[column];
      ++row;
    }
  }
  for (Half& half : halves_) {
    half.filled = half.kept;
    for (int64_t b = 0; b < deflated(); ++b) {
      const int32_t column = deflation_.deflated[b];
      if (deflation_.halves[column] & half.bit) half.slot[column] = int32_t(half.filled++);
    }
  }
  halves_[0].first_u = 0;
  halves_[1].first_u = kept() - halves_[1].kept;
}

template <class T>
void RankOneMerge<T>::pack(int64_t task) const {
  const bool is_upper = task < halves_[0].panel_count();
  const Half& half = halves_[is_upper ? 0 : 1];
  const int64_t index = is_upper ? task : task - halves_[0].panel_count();
  T* panel = half.panel(index);
  const int rows = panel_extent<T>(half.rows, index);
  const int64_t first_row = half.first_row + index * kW, stride = pairs_.row_stride;
  const T* source = pairs_.vectors + first_row * stride + half.first_row;
  const int32_t* slot = half.slot + half.first_row;

  for (int side = 0; side < kW; side += kL) {
    for (int64_t column = 0; column < half.rows; column += kL) {
      const int64_t count = half.rows - column;
      Vector<T> square[kL];
#pragma GCC unroll 16
      for (int r = 0; r < kL; ++r)
        square[r] = side + r < rows ? load_first<T>(source + (side + r) * stride + column, count)
                                    : Vector<T>{};
      Transpose<T>::run(square);
#pragma GCC unroll 16
      for (int c = 0; c < kL; ++c)
        if (c < count) store(panel + slot[column + c] * kW + side, square[c]);
    }
  }
  for (int64_t i = 0; i < columns_; ++i) {
    const bool is_own = i >= half.first_row && i < half.first_row + half.rows;
    if (is_own || half.slot[i] < 0) continue;
    for (int side = 0; side < kW; side += kL) store(panel + half.slot[i] * kW + side, Vector<T>{});
  }
  for (int64_t r = 0; r < deflation_.rotation_count; ++r) {
    const ColumnRotation& rotation = deflation_.rotations[r];
    if (half.slot[rotation.x] < 0 || half.slot[rotation.y] < 0) continue;
    const T c = T(rotation.c), s = T(rotation.s);
    T *x = panel + half.slot[rotation.x] * kW, *y = panel + half.slot[rotation.y] * kW;
    for (int side = 0; side < kW; side += kL) {
      const Vector<T> a = load(x + side), b = load(y + side);
      store(x + side, c * a + s * b);
      store(y + side, c * b - s * a);
    }
  }
}

template <class T>
void RankOneMerge<T>::arrange() const {
  const int64_t padded = round_up<int64_t>(kept(), kW);
  for (int64_t j = kept(); j < padded; ++j) {
    origins_[j] = origins_[kept() - 1];
    offsets_[j] = offsets_[kept() - 1];
  }
  for (int64_t row = 0; row < kept(); ++row) {
    const int32_t column = u_column_[row];
    u_weight_[row] = __builtin_copysign(weights_[column], deflation_.z[deflation_.kept[column]]);
  }
  int64_t a = 0, b = 0;
  for (int64_t i = 0; i < columns_; ++i) {
    const double root = a < kept() ? (origins_[a] + offsets_[a]) * deflation_.scale : 0;
    const int32_t column = b < deflated() ? deflation_.deflated[b] : -1;
    if (column < 0 || (a < kept() && root <= deflation_.values[column])) {
      pairs_.values[i] = root;
      root_position_[a++] = int32_t(i);
    } else {
      pairs_.values[i] = deflation_.values[column];
      pairs_.first[i] = deflation_.first[column];
      pairs_.last[i] = deflation_.last[column];
      deflated_position_[b++] = int32_t(i);
    }
  }
}

// Columns [first, first + kW) of U as a right panel of the product.
template <class T>
void RankOneMerge<T>::form_vectors(int64_t first, T* u) const {
  constexpr int kVectors = kW / kRoots;
  Lane origin[kVectors], offset[kVectors], square[kVectors], top[kVectors], bottom[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    origin[v] = load(origins_ + first + v * kRoots);
    offset[v] = load(offsets_ + first + v * kRoots);
    square[v] = top[v] = bottom[v] = Lane{};
  }
  for (int64_t row = 0; row < kept(); ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Lane value = u_weight_[row] * reciprocal((u_pole_[row] - origin[v]) - offset[v]);
      square[v] += value * value;
      top[v] += u_first_[row] * value;
      bottom[v] += u_last_[row] * value;
      store<T, kRoots>(u + row * kW + v * kRoots, convert<T, double, kRoots>(value));
    }
  }
  T scale[kW];
  for (int v = 0; v < kVectors; ++v) {
    const Lane inverse = 1.0 / square_root(square[v]);
    store<T, kRoots>(scale + v * kRoots, convert<T, double, kRoots>(inverse));
    top[v] *= inverse;
    bottom[v] *= inverse;
    for (int lane = 0; lane < kRoots && first + v * kRoots + lane < kept(); ++lane) {
      const int32_t position = root_position_[first + v * kRoots + lane];
      pairs_.first[position] = top[v][lane];
      pairs_.last[position] = bottom[v][lane];
    }
  }
  const Vector<T> left = load(scale), right = load(scale + kL);
  for (T* row = u; row < u + kept() * kW; row += kW) {
    store(row, load(row) * left);
    store(row + kL, load(row + kL) * right);
  }
}

template <class T>
void RankOneMerge<T>::write_tile(const T* tile, int64_t first_row, int rows, int columns,
                                 const int32_t* position) const {
  T* out = pairs_.vectors + first_row * pairs_.row_stride;
  const bool adjacent = position[columns - 1] - position[0] == columns - 1;
  for (int r = 0; r < rows; ++r, out += pairs_.row_stride, tile += kW) {
    if (adjacent) {
      store_first(out + position[0], load(tile), columns);
      store_first(out + position[0] + kL, load(tile + kL), columns - kL);
    } else {
      for (int c = 0; c < columns; ++c) out[position[c]] = tile[c];
    }
  }
}

template <class T>
void RankOneMerge<T>::write_product(int64_t first, T* scratch) const {
  T *u = scratch, *tiles = scratch + kept() * kW;
  form_vectors(first, u);
  const int columns = int(minimum<int64_t>(kW, kept() - first));
  for (const Half& half : halves_) {
    const int64_t count = half.panel_count();
    multiply_block<T>({half.panels, half.stride(), count, panel_extent<T>(half.rows, count - 1)},
                      {u + half.first_u * kW, 0, 1, columns}, half.kept, false, tiles);
    for (int64_t p = 0; p < count; ++p)
      write_tile(tiles + p * kTileSize<T>, half.first_row + p * kW, panel_extent<T>(half.rows, p),
                 columns, root_position_ + first);
  }
}

// Deflated columns [first, first + columns) of a panel as a tile.
template <class T>
void RankOneMerge<T>::unpack_deflated(const Half& half, const T* panel, int64_t first, int columns,
                                      T* tile) const {
  for (int side = 0; side < kW; side += kL) {
    for (int column = 0; column < kW; column += kL) {
      Vector<T> square[kL];
#pragma GCC unroll 16
      for (int c = 0; c < kL; ++c) {
        const int32_t slot =
            column + c < columns ? half.slot[deflation_.deflated[first + column + c]] : -1;
        square[c] = slot < 0 ? Vector<T>{} : load(panel + slot * kW + side);
      }
      Transpose<T>::run(square);
#pragma GCC unroll 16
      for (int r = 0; r < kL; ++r) store(tile + (side + r) * kW + column, square[r]);
    }
  }
}

template <class T>
void RankOneMerge<T>::write_deflated(int64_t first, T* tile) const {
  const int columns = int(minimum<int64_t>(kW, deflated() - first));
  for (const Half& half : halves_) {
    for (int64_t p = 0; p < half.panel_count(); ++p) {
      unpack_deflated(half, half.panel(p), first, columns, tile);
      write_tile(tile, half.first_row + p * kW, panel_extent<T>(half.rows, p), columns,
                 deflated_position_ + first);
    }
  }
}

template <class T>
void RankOneMerge<T>::multiply(int64_t task, T* scratch) const {
  const int64_t products = panel_count<T>(kept());
  if (task < products) {
    write_product(task * kW, scratch);
  } else {
    write_deflated((task - products) * kW, scratch);
  }
}

}  // namespace kronext::cpu::KRONEXT_CPU
