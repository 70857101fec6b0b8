// T = Q diag(values) QT of a symmetric tridiagonal matrix by divide and conquer (Cuppen, 1981).
//
// T is torn into parts of at most kLeafRows rows, T = diag(T_1, T_2) + rho u uT at each tear. Parts
// are solved by QL and merged in pairs: with T_i = Q_i D_i Q_iT,
//   T = diag(Q_1, Q_2) (D + rho z zT) diag(Q_1, Q_2)T,   z = (last row of Q_1, first row of Q_2).
// Entries of z that are negligible, and poles that are nearly equal, deflate: those eigenvectors
// are there already. The others are combined by the eigenvectors of the rank-one update
// (secular_equation.h), one product of at most n^3 / 2 multiply-adds at the last merge and n^3 *
// 2/3 in all.
//
// Eigenvectors are type T, all else is float64. Float32 eigenvectors would spoil z, so the first
// and last row of every Q are carried along in float64.
#pragma once

#include "csrc/core/team.h"
#include "csrc/cpu/arena.h"
#include "csrc/cpu/product.h"
#include "csrc/cpu/secular_equation.h"
#include "csrc/cpu/tridiagonal_leaf.h"

namespace kronext::cpu::KRONEXT_CPU {

// Which rows of an eigenvector of a merge are not zero before it.
enum class Half : int8_t { kFirst, kBoth, kSecond };
constexpr Half kHalves[] = {Half::kFirst, Half::kSecond};

template <class T>
class DivideAndConquer {
 public:
  DivideAndConquer(int64_t n, int64_t workers, void* workspace);
  bool run(const Team& team, double* diagonal, double* off_diagonal, T* vectors,
           int64_t row_stride);
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int kW = kPanel<T>;
  // Smaller merges are left to the calling thread.
  static constexpr int64_t kSharedSize = 256;

  struct Scratch {
    double* leaf;
    Roots* columns;  // of the eigenvectors of the rank-one update
    T *panel, *tiles;
  };

  // Rows [begin, end) of T, torn before `middle`.
  struct Merge {
    int64_t begin, middle, end;
    int64_t size() const { return end - begin; }
  };

  static int64_t leaves(int64_t n) {
    int64_t count = 1;
    while (ceil_divide(n, count) > kLeafRows) count *= 2;
    return count;
  }
  int64_t boundary(int64_t part, int64_t parts) const { return n_ * part / parts; }
  T* eigenvector(int64_t k) const { return vectors_ + k * n_; }

  bool solve_leaf(int64_t begin, int64_t end, const double* off_diagonal, double negligible,
                  const Scratch& scratch);
  bool merge(const Team& team, const Merge& part, double coupling);
  void sort_poles(const Merge& part);
  void deflate(const Merge& part);
  void rotate(const Merge& part, int64_t a, int64_t b, double c, double s);
  void group();
  bool solve_update(const Team& team);
  void place(const Merge& part);
  void gather(const Team& team, const Merge& part);
  void combine(const Team& team, const Merge& part);
  void form_columns(const Merge& part, int64_t first, const Scratch& scratch);
  void multiply(const Merge& part, int64_t first, const Scratch& scratch);
  PanelRun<T> half_panels(const Merge& part, Half half) const;

  int64_t n_;
  T* vectors_;   // row k: eigenvector k, over the rows of its part
  T* gathered_;  // the eigenvectors of a merge, in the order of `group`
  T* panels_;
  double *values_, *first_, *last_;  // n: eigenvalues, and both ends of their eigenvectors
  // Of the merge at hand, in ascending order of its poles.
  double *poles_, *z_, *z_first_, *z_last_;
  int32_t* from_;  // the eigenvector, counted from the start of the merge
  Half* half_;
  bool* solved_;  // for each vector of roots
  // Of the poles that remain, in ascending order.
  double *kept_poles_, *squares_, *base_, *offset_, *exact_;
  int32_t *kept_, *grouped_;  // where they stand in the above; those in the order of their halves
  int32_t *deflated_, *place_;
  int64_t kept_count_, deflated_count_, first_count_, both_count_;
  double rho_, sign_;
  Scratch* scratch_;
  int64_t bytes_;
};

template <class T>
DivideAndConquer<T>::DivideAndConquer(int64_t n, int64_t workers, void* workspace) : n_(n) {
  Arena arena(workspace);
  vectors_ = arena.take<T>(n * n);
  gathered_ = arena.take<T>(n * n);
  panels_ = arena.take<T>((panel_count<T>(n) + 1) * panel_stride<T>(n));
  const int64_t padded = round_up<int64_t>(n, kRoots);
  double** const values[] = {&values_, &first_,      &last_,    &poles_, &z_,      &z_first_,
                             &z_last_, &kept_poles_, &squares_, &base_,  &offset_, &exact_};
  for (double** each : values) *each = arena.take<double>(padded);
  int32_t** const indices[] = {&from_, &kept_, &grouped_, &deflated_, &place_};
  for (int32_t** each : indices) *each = arena.take<int32_t>(n);
  half_ = arena.take<Half>(n);
  solved_ = arena.take<bool>(padded / kRoots);
  scratch_ = arena.take<Scratch>(workers);
  for (int64_t worker = 0; worker < workers; ++worker) {
    const Scratch scratch{arena.take<double>(kLeafRows * kLeafRows), arena.take<Roots>(n),
                          arena.take<T>(n * kW), arena.take<T>(kMaxStripTiles * kTileSize<T>)};
    if (workspace) scratch_[worker] = scratch;
  }
  bytes_ = int64_t(arena.used());
}

// ---- leaves ------------------------------------------------------------------------------------

template <class T>
bool DivideAndConquer<T>::solve_leaf(int64_t begin, int64_t end, const double* off_diagonal,
                                     double negligible, const Scratch& scratch) {
  const int64_t size = end - begin;
  int32_t order[kLeafRows];
  if (!solve_tridiagonal_leaf(size, values_ + begin, off_diagonal + begin, negligible, scratch.leaf,
                              order))
    return false;
  double sorted[kLeafRows];
  for (int64_t k = 0; k < size; ++k) {
    const double* vector = scratch.leaf + order[k] * size;
    sorted[k] = values_[begin + order[k]];
    first_[begin + k] = vector[0];
    last_[begin + k] = vector[size - 1];
    for (int64_t i = 0; i < size; ++i) eigenvector(begin + k)[begin + i] = T(vector[i]);
  }
  for (int64_t k = 0; k < size; ++k) values_[begin + k] = sorted[k];
  return true;
}

// ---- which eigenvectors a merge combines
// ---------------------------------------------------------

// Merges the eigenvalues of both parts. |z| = 1.
template <class T>
void DivideAndConquer<T>::sort_poles(const Merge& part) {
  constexpr double kHalf = 0.70710678118654752440;
  int64_t i = part.begin, j = part.middle;
  for (int64_t k = 0; k < part.size(); ++k) {
    const bool from_first = j == part.end || (i < part.middle && values_[i] <= values_[j]);
    const int64_t source = from_first ? i++ : j++;
    poles_[k] = values_[source];
    from_[k] = int32_t(source - part.begin);
    half_[k] = from_first ? Half::kFirst : Half::kSecond;
    z_[k] = kHalf * (from_first ? last_[source] : sign_ * first_[source]);
    z_first_[k] = from_first ? first_[source] : 0;
    z_last_[k] = from_first ? 0 : last_[source];
  }
}

// Eigenvectors a and b (of the sorted ones) turn by an angle of cosine c and sine s.
template <class T>
void DivideAndConquer<T>::rotate(const Merge& part, int64_t a, int64_t b, double c, double s) {
  const auto turn = [c, s](double& x, double& y) {
    const double turned = c * x + s * y;
    y = c * y - s * x;
    x = turned;
  };
  turn(z_first_[a], z_first_[b]);
  turn(z_last_[a], z_last_[b]);
  // What a half does not have is not there in memory either.
  const int64_t both[] = {a, b};
  for (const int64_t k : both) {
    T* x = eigenvector(part.begin + from_[k]);
    if (half_[k] == Half::kFirst)
      for (int64_t i = part.middle; i < part.end; ++i) x[i] = 0;
    if (half_[k] == Half::kSecond)
      for (int64_t i = part.begin; i < part.middle; ++i) x[i] = 0;
  }
  T *x = eigenvector(part.begin + from_[a]), *y = eigenvector(part.begin + from_[b]);
  const T cosine = T(c), sine = T(s);
  for (int64_t i = part.begin; i < part.end; ++i) {
    const T turned = cosine * x[i] + sine * y[i];
    y[i] = cosine * y[i] - sine * x[i];
    x[i] = turned;
  }
}

// Takes out the eigenvectors that the update leaves as they are: to roundoff, or after a rotation
// of two with nearly equal poles that puts all of z into one of them.
template <class T>
void DivideAndConquer<T>::deflate(const Merge& part) {
  double largest_pole = 0, largest_z = 0;
  for (int64_t k = 0; k < part.size(); ++k) {
    largest_pole = maximum(largest_pole, __builtin_fabs(poles_[k]));
    largest_z = maximum(largest_z, __builtin_fabs(z_[k]));
  }
  const double tolerance = 8 * 0x1p-53 * maximum(largest_pole, largest_z);
  kept_count_ = deflated_count_ = 0;
  int64_t previous = -1;
  for (int64_t k = 0; k < part.size(); ++k) {
    if (rho_ * __builtin_fabs(z_[k]) <= tolerance) {
      deflated_[deflated_count_++] = int32_t(k);
      continue;
    }
    if (previous >= 0) {
      const double length = __builtin_sqrt(z_[k] * z_[k] + z_[previous] * z_[previous]);
      const double c = z_[k] / length, s = -z_[previous] / length,
                   gap = poles_[k] - poles_[previous];
      if (__builtin_fabs(gap * c * s) <= tolerance) {
        rotate(part, previous, k, c, s);
        z_[k] = length;
        if (half_[k] != half_[previous]) half_[k] = half_[previous] = Half::kBoth;
        const double low = poles_[previous], high = poles_[k];
        poles_[previous] = low * c * c + high * s * s;
        poles_[k] = low * s * s + high * c * c;
        deflated_[deflated_count_++] = int32_t(previous);
      } else {
        kept_[kept_count_++] = int32_t(previous);
      }
    }
    previous = k;
  }
  if (previous >= 0) kept_[kept_count_++] = int32_t(previous);
  for (int64_t k = 0; k < kept_count_; ++k) {
    kept_poles_[k] = poles_[kept_[k]];
    squares_[k] = z_[kept_[k]] * z_[kept_[k]];
  }
}

// Those with rows in the first half, in both, in the second: so each half of the product skips what
// is zero there.
template <class T>
void DivideAndConquer<T>::group() {
  int64_t count = 0, counts[3];
  for (int half = 0; half < 3; ++half) {
    const int64_t before = count;
    for (int64_t k = 0; k < kept_count_; ++k)
      if (half_[kept_[k]] == Half(half)) grouped_[count++] = int32_t(k);
    counts[half] = count - before;
  }
  first_count_ = counts[0];
  both_count_ = counts[1];
}

// ---- the rank-one update
// -------------------------------------------------------------------------

template <class T>
bool DivideAndConquer<T>::solve_update(const Team& team) {
  const RankOneUpdate update{kept_count_, kept_poles_, squares_, rho_};
  const SecularEquation equation(update);
  const int64_t groups = ceil_divide<int64_t>(kept_count_, kRoots);
  team(groups, [&](int64_t g, int64_t) {
    const FlushDenormals flush;
    solved_[g] = equation.solve(g * kRoots, base_, offset_);
  });
  for (int64_t g = 0; g < groups; ++g)
    if (!solved_[g]) return false;
  team(groups, [&](int64_t g, int64_t) {
    const FlushDenormals flush;
    exact_squares(update, base_, offset_, g * kRoots, exact_);
  });
  for (int64_t k = 0; k < kept_count_; ++k) {
    const double z = __builtin_sqrt(exact_[k]);
    exact_[k] = z_[kept_[k]] < 0 ? -z : z;
  }
  return true;
}

// ---- the new eigenvectors
// ------------------------------------------------------------------------

// Where roots and deflated poles stand in ascending order, and the new eigenvalues.
template <class T>
void DivideAndConquer<T>::place(const Merge& part) {
  for (int64_t k = 1; k < deflated_count_; ++k)
    for (int64_t i = k; i > 0 && poles_[deflated_[i - 1]] > poles_[deflated_[i]]; --i) {
      const int32_t larger = deflated_[i - 1];
      deflated_[i - 1] = deflated_[i];
      deflated_[i] = larger;
    }
  int64_t root = 0, deflated = 0;
  for (int64_t k = 0; k < part.size(); ++k) {
    const double next = root < kept_count_ ? base_[root] + offset_[root] : 0;
    const bool takes_root =
        root < kept_count_ && (deflated == deflated_count_ || next <= poles_[deflated_[deflated]]);
    values_[part.begin + k] = takes_root ? next : poles_[deflated_[deflated]];
    if (takes_root) {
      place_[root++] = int32_t(k);
    } else {
      place_[kept_count_ + deflated++] = int32_t(k);
    }
  }
}

// Copies the old eigenvectors, for the new ones take their place: the grouped ones into packed
// operands of the product, the deflated ones to where they go.
template <class T>
void DivideAndConquer<T>::gather(const Team& team, const Merge& part) {
  const int64_t size = part.size();
  team(kept_count_ + deflated_count_, [&](int64_t g, int64_t) {
    const int32_t sorted = g < kept_count_ ? kept_[grouped_[g]] : deflated_[g - kept_count_];
    const T* from = eigenvector(part.begin + from_[sorted]) + part.begin;
    const int64_t tear = part.middle - part.begin;
    const int64_t begin = half_[sorted] == Half::kSecond ? tear : 0,
                  end = half_[sorted] == Half::kFirst ? tear : size;
    T* to = gathered_ + g * size;
    for (int64_t i = 0; i < begin; ++i) to[i] = 0;
    for (int64_t i = begin; i < end; ++i) to[i] = from[i];
    for (int64_t i = end; i < size; ++i) to[i] = 0;
  });
  team(deflated_count_, [&](int64_t k, int64_t) {
    const int64_t g = kept_count_ + k, place = part.begin + place_[g];
    T* to = eigenvector(place) + part.begin;
    for (int64_t i = 0; i < size; ++i) to[i] = gathered_[g * size + i];
    first_[place] = z_first_[deflated_[k]];
    last_[place] = z_last_[deflated_[k]];
  });
  for (const Half half : kHalves) {
    const bool upper = half == Half::kFirst;
    const int64_t row = upper ? 0 : first_count_, tear = part.middle - part.begin;
    const int64_t depth = upper ? first_count_ + both_count_ : kept_count_ - first_count_;
    const Matrix x{gathered_ + row * size + (upper ? 0 : tear),
                   kDtypeOf<T>,
                   upper ? tear : size - tear,
                   depth,
                   1,
                   size};
    const PanelRun<T> panels = half_panels(part, half);
    team(panels.count, [&](int64_t panel, int64_t) {
      pack_panel<T>(x, panel * kW, const_cast<T*>(panels.first) + panel * panels.stride);
    });
  }
}

// The packed eigenvectors of a half: panels of its rows, their depth the eigenvectors.
template <class T>
PanelRun<T> DivideAndConquer<T>::half_panels(const Merge& part, Half half) const {
  const int64_t upper = part.middle - part.begin, lower = part.end - part.middle;
  const int64_t stride = panel_stride<T>(first_count_ + both_count_);
  const int64_t panels = panel_count<T>(upper);
  if (half == Half::kFirst) return {panels_, stride, panels, panel_extent<T>(upper, panels - 1)};
  const int64_t count = panel_count<T>(lower);
  return {panels_ + panels * stride, panel_stride<T>(kept_count_ - first_count_), count,
          panel_extent<T>(lower, count - 1)};
}

// Columns [first, first + kW) of the eigenvectors of the update, as a packed panel, and both ends
// of the new eigenvectors.
template <class T>
void DivideAndConquer<T>::form_columns(const Merge& part, int64_t first, const Scratch& scratch) {
  for (int64_t column = first; column < minimum(first + kW, kept_count_); column += kRoots) {
    const Roots base = load(base_ + column), offset = load(offset_ + column);
    Roots square{}, top{}, bottom{};
    for (int64_t j = 0; j < kept_count_; ++j) {
      const Roots x = splat(exact_[j]) * reciprocal((splat(kept_poles_[j]) - base) - offset);
      square += x * x;
      scratch.columns[j] = x;
    }
    const Roots inverse_length = reciprocal_square_root(square);
    for (int64_t g = 0; g < kept_count_; ++g) {
      const int32_t j = grouped_[g];
      const Roots x = scratch.columns[j] * inverse_length;
      top += splat(z_first_[kept_[j]]) * x;
      bottom += splat(z_last_[kept_[j]]) * x;
      store<T, kRoots>(scratch.panel + g * kW + (column - first), convert<T, double, kRoots>(x));
    }
    for (int lane = 0; lane < kRoots && column + lane < kept_count_; ++lane) {
      first_[part.begin + place_[column + lane]] = top[lane];
      last_[part.begin + place_[column + lane]] = bottom[lane];
    }
  }
}

template <class T>
void DivideAndConquer<T>::multiply(const Merge& part, int64_t first, const Scratch& scratch) {
  const int rows = int(minimum<int64_t>(kW, kept_count_ - first));
  for (const Half half : kHalves) {
    const bool upper = half == Half::kFirst;
    const PanelRun<T> all = half_panels(part, half);
    const int64_t depth = upper ? first_count_ + both_count_ : kept_count_ - first_count_;
    const T* columns = scratch.panel + (upper ? 0 : first_count_) * kW;
    const int64_t start = upper ? part.begin : part.middle;
    for (int64_t panel = 0; panel < all.count; panel += kMaxStripTiles) {
      const int64_t count = minimum(kMaxStripTiles, all.count - panel);
      multiply_strip(columns, all.first + panel * all.stride, all.stride, depth, count, rows,
                     all.extent(panel + count - 1), false, scratch.tiles);
      for (int64_t tile = 0; tile < count; ++tile)
        for (int r = 0; r < rows; ++r) {
          const T* from = scratch.tiles + tile * kTileSize<T> + r * kW;
          T* to = eigenvector(part.begin + place_[first + r]) + start + (panel + tile) * kW;
          const int extent = all.extent(panel + tile);
          for (int c = 0; c < extent; c += kLanes<T>)
            store_first<T>(to + c, load(from + c), extent - c);
        }
    }
  }
}

template <class T>
void DivideAndConquer<T>::combine(const Team& team, const Merge& part) {
  for (int64_t k = kept_count_; k < round_up<int64_t>(kept_count_, kRoots); ++k) {
    base_[k] = base_[kept_count_ - 1];
    offset_[k] = offset_[kept_count_ - 1];
  }
  team(ceil_divide<int64_t>(kept_count_, kW), [&](int64_t panel, int64_t worker) {
    const FlushDenormals flush;
    form_columns(part, panel * kW, scratch_[worker]);
    multiply(part, panel * kW, scratch_[worker]);
  });
}

template <class T>
bool DivideAndConquer<T>::merge(const Team& team, const Merge& part, double coupling) {
  rho_ = 2 * __builtin_fabs(coupling);
  sign_ = coupling < 0 ? -1 : 1;
  sort_poles(part);
  deflate(part);
  group();
  if (kept_count_ > 0 && !solve_update(team)) return false;
  place(part);
  gather(team, part);
  if (kept_count_ > 0) combine(team, part);
  return true;
}

template <class T>
bool DivideAndConquer<T>::run(const Team& team, double* diagonal, double* off_diagonal, T* vectors,
                              int64_t row_stride) {
  constexpr Team kAlone{1, nullptr, nullptr};
  const FlushDenormals flush;
  const int64_t parts = leaves(n_);
  double size = 0;
  for (int64_t i = 0; i < n_; ++i) {
    values_[i] = diagonal[i];
    const double coupling = i + 1 < n_ ? __builtin_fabs(off_diagonal[i]) : 0;
    size = maximum(size, __builtin_fabs(diagonal[i]) + coupling);
  }
  const double negligible = size * FloatFormat<double>::kRoundoff;
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t row = boundary(part, parts);
    const double tear = __builtin_fabs(off_diagonal[row - 1]);
    values_[row - 1] -= tear;
    values_[row] -= tear;
  }
  team(parts, [&](int64_t part, int64_t worker) {
    const FlushDenormals flush_too;
    solved_[part] = solve_leaf(boundary(part, parts), boundary(part + 1, parts), off_diagonal,
                               negligible, scratch_[worker]);
  });
  for (int64_t part = 0; part < parts; ++part)
    if (!solved_[part]) return false;
  for (int64_t count = parts; count > 1; count /= 2)
    for (int64_t k = 0; k < count; k += 2) {
      const Merge part{boundary(k, count), boundary(k + 1, count), boundary(k + 2, count)};
      const Team& sharing = part.size() < kSharedSize ? kAlone : team;
      if (!merge(sharing, part, off_diagonal[part.middle - 1])) return false;
    }
  for (int64_t k = 0; k < n_; ++k) diagonal[k] = values_[k];
  for (int64_t i = 0; i < n_; ++i)
    for (int64_t k = 0; k < n_; ++k) vectors[i * row_stride + k] = vectors_[k * n_ + i];
  return true;
}

template <class T>
int64_t divide_and_conquer_bytes(int64_t n, int64_t workers) {
  return DivideAndConquer<T>(n, workers, nullptr).bytes();
}

// diagonal[n] becomes the eigenvalues in ascending order, column k of `vectors` the eigenvector of
// value k; off_diagonal[i] couples i and i + 1. The largest entry is about 1. False if some
// recurrence did not converge.
template <class T>
bool divide_and_conquer(const Team& team, int64_t n, double* diagonal, double* off_diagonal,
                        T* vectors, int64_t row_stride, void* workspace) {
  return DivideAndConquer<T>(n, team.workers, workspace)
      .run(team, diagonal, off_diagonal, vectors, row_stride);
}

}  // namespace kronext::cpu::KRONEXT_CPU
