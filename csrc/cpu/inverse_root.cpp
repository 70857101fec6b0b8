// A group of matrices through the stages of the eigensolver:
//
//   pack and scale    float64, lanes across matrices    n^2          eigh_lanes.h
//   tridiagonalise    float64, lanes across matrices    4/3 n^3      eigh_tridiagonal.h
//   form Q            T, panels                         4/3 n^3      eigh_reflectors.h
//   QL sweeps         float64, lanes across matrices    30 n^2       eigh_ql.h
//   rotate Q          T, panels                         3 to 6 n^3   eigh_rotations.h
//   root              T, panels                         n^3          eigh_root.h
//   store             T, panels                         n^2          eigh_output.h
//
// with operations a matrix. What cannot fill vectors within one small matrix runs across matrices.
// Float32 eigenvectors of float64 rotations keep the accuracy of the inverse root: the error of
// plain float32 is that rotations and eigenvalues, found from rounded numbers, mix eigenvectors of
// small eigenvalues; rounding what they are applied to is harmless.
#include "csrc/cpu/inverse_root.h"

#include "csrc/cpu/eigh_lanes.h"
#include "csrc/cpu/eigh_output.h"
#include "csrc/cpu/eigh_panels.h"
#include "csrc/cpu/eigh_ql.h"
#include "csrc/cpu/eigh_reflectors.h"
#include "csrc/cpu/eigh_root.h"
#include "csrc/cpu/eigh_rotations.h"
#include "csrc/cpu/eigh_tridiagonal.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

// Up to this size the lanes of a panel hold matrices, above it rows.
constexpr int64_t kMaxLanesSize = 32;

// Hands out aligned pieces of the workspace; from a null base it only adds up their sizes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class Item>
  Item* take(int64_t count) {
    char* p = base_ ? base_ + used_ : nullptr;
    used_ += round_up<size_t>(count * sizeof(Item), 64);
    return reinterpret_cast<Item*>(p);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// The matrices of one call and the pieces of its workspace.
template <class T, LanesHold kLanesHold>
class Solver {
 public:
  Solver(int64_t n, void* workspace);
  void solve(const EighGroup<T>& group);
  size_t bytes() const { return bytes_; }

 private:
  using P = Panels<T, kLanesHold>;
  using R = Reflectors<T, kLanesHold>;
  using S = RotationStream<T, kLanesHold>;

  // Couplings below it end the QL iteration, relative to the largest entry. Float32 results cannot
  // show more.
  static constexpr double kTolerance = sizeof(T) == 4 ? 1e-13 : 0x1p-53;
  static constexpr T kMost = sizeof(T) == 4 ? T(__FLT_MAX__) : T(__DBL_MAX__);

  void reduce(const EighGroup<T>& group, int lanes, int slot);
  void form_vectors_of(int64_t first_unit, int64_t last_unit);
  void find_values(Lane* values, Lane* off_diagonal);
  void find_vectors(int64_t units);
  void finish_values(const EighGroup<T>& group);
  void store_values_and_vectors(const EighGroup<T>& group);
  void store_roots(const EighGroup<T>& group);

  // The outputs of a unit; null for lanes that are idle or hold a matrix that failed.
  struct Outputs {
    T* matrix[P::kWidth];
  };
  Outputs outputs(const EighGroup<T>& group, T* const* all, int64_t unit) const;

  static int64_t units(const EighGroup<T>& group) {
    return ceil_divide<int64_t>(group.count, P::kWidth);
  }
  Lane* diagonal(int lanes) const { return diagonal_ + lanes * n_; }
  T* vectors(int64_t unit) const { return vectors_ + unit * panels_.unit_size(); }

  int64_t n_;
  P panels_;
  Lane *packed_, *update_, *product_, *tau_, *overlap_;  // of one group of lanes at a time
  Lane *diagonal_, *off_diagonal_;                       // kEighGroups x n
  Lane *shifts_, *shifts_off_diagonal_;                  // kEighGroups x n
  Scaling* scaling_;                                     // kEighGroups
  R reflectors_;                                         // of P::kReflected matrices at a time
  T *vectors_, *row_scratch_;
  T *rotations_, *rotation_buffer_;
  typename S::Window* windows_;
  uint8_t* marks_;
  LaneMask* ranks_;
  int32_t* order_;  // kEighMatrices x n
  Lane* lane_gains_;
  T *gains_, *root_;
  size_t bytes_;
};

template <class T, LanesHold kLanesHold>
Solver<T, kLanesHold>::Solver(int64_t n, void* workspace) : n_(n), panels_(n) {
  Arena arena(workspace);
  const int64_t padded = round_up<int64_t>(n + 1, P::kVector);
  packed_ = arena.take<Lane>(triangle(n));
  update_ = arena.take<Lane>(n);
  product_ = arena.take<Lane>(n);
  tau_ = arena.take<Lane>(padded);
  overlap_ = arena.take<Lane>(padded);
  diagonal_ = arena.take<Lane>(kEighGroups * n);
  off_diagonal_ = arena.take<Lane>(kEighGroups * n);
  shifts_ = arena.take<Lane>(kEighGroups * n);
  shifts_off_diagonal_ = arena.take<Lane>(kEighGroups * n);
  scaling_ = arena.take<Scaling>(kEighGroups);
  constexpr int64_t kReflectedUnits = P::kReflected / P::kWidth;
  reflectors_ = {arena.take<T>(kReflectedUnits * R::vectors_size(n)),
                 arena.take<T>(kReflectedUnits * R::scalars_size(n)),
                 arena.take<T>(kReflectedUnits * R::scalars_size(n)), n};
  vectors_ = arena.take<T>(P::kUnits * panels_.unit_size());
  row_scratch_ = arena.take<T>(padded * P::kMaxHeight * P::kVector);
  rotations_ = arena.take<T>(S::values_size(n));
  windows_ = arena.take<typename S::Window>(S::windows_size());
  rotation_buffer_ = arena.take<T>(S::buffer_size(n));
  marks_ = arena.take<uint8_t>(n);
  ranks_ = arena.take<LaneMask>(n);
  order_ = arena.take<int32_t>(kEighMatrices * n);
  lane_gains_ = arena.take<Lane>(padded);
  gains_ = arena.take<T>(kEighMatrices * padded);
  root_ = arena.take<T>(P::kWidth > 1 ? n * n * P::kVector : 0);
  bytes_ = arena.used();
}

// One group of lanes to tridiagonal form. Lanes without a matrix of their own repeat the last one.
template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::reduce(const EighGroup<T>& group, int lanes, int slot) {
  const T* matrices[kEighLanes];
  for (int lane = 0; lane < kEighLanes; ++lane)
    matrices[lane] = group.matrices[minimum<int64_t>(lanes * kEighLanes + lane, group.count - 1)];
  pack_lower(matrices, n_, group.row_stride, packed_);
  scaling_[lanes] = normalize(packed_, n_);

  const FlushDenormals flush;
  const Tridiagonal tridiagonal{diagonal(lanes), off_diagonal_ + lanes * n_, tau_};
  tridiagonalize(packed_, n_, tridiagonal, update_, product_);
  if (group.vectors || group.roots)
    scatter_reflectors(packed_, tau_, overlap_, slot * kEighLanes, reflectors_);
}

template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::form_vectors_of(int64_t first_unit, int64_t last_unit) {
  const FlushDenormals flush;
  for (int64_t unit = first_unit; unit < last_unit; ++unit)
    form_vectors(panels_, reflectors_.of(unit - first_unit), vectors(unit), row_scratch_);
}

template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::find_values(Lane* values, Lane* off_diagonal) {
  const FlushDenormals flush;
  LockstepQl ql(n_, values, off_diagonal, marks_, nullptr, kTolerance);
  for (int64_t k = 0; k < ql.max_sweeps() && ql.sweep_values(); ++k) {
  }
}

template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::find_vectors(int64_t units) {
  // Sweeps that rotate cost n^2 operations, sweeps that do not cost n: where n is large it pays to
  // find the eigenvalues first and to use them as shifts.
  const bool shifted = kLanesHold == LanesHold::kRows;
  if (shifted) {
    for (int64_t i = 0; i < kEighGroups * n_; ++i) {
      shifts_[i] = diagonal_[i];
      shifts_off_diagonal_[i] = off_diagonal_[i];
    }
    find_values(shifts_, shifts_off_diagonal_);
  }
  const FlushDenormals flush;
  LockstepQl ql(n_, diagonal_, off_diagonal_, marks_, shifted ? shifts_ : nullptr, kTolerance);
  S stream(n_, rotations_, windows_, rotation_buffer_);
  bool reduced = false;
  for (int64_t k = 0; k < ql.max_sweeps() && !reduced;) {
    stream.clear();
    for (; k < ql.max_sweeps() && !reduced && !stream.full(); k += kWavefront)
      reduced = !stream.record(ql);
    for (int64_t unit = 0; unit < units; ++unit)
      rotate_vectors(panels_, stream, unit, vectors(unit));
  }
}

// Undoes the scaling; what the matrices came to.
template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::finish_values(const EighGroup<T>& group) {
  LaneMask unfinished[kEighGroups];
  LockstepQl(n_, diagonal_, off_diagonal_, marks_, nullptr, kTolerance).unreduced(unfinished);
  for (int lanes = 0; lanes < kEighGroups; ++lanes)
    for (int64_t i = 0; i < n_; ++i) {
      Lane& value = diagonal(lanes)[i];
      value *= scaling_[lanes].scale;
      if (group.values) unfinished[lanes] |= absolute<double>(value) > splat(double(kMost));
    }
  for (int64_t m = 0; m < group.count; ++m) {
    const int64_t lanes = m / kEighLanes, lane = m % kEighLanes;
    group.info[m] = !scaling_[lanes].finite[lane] ? kNonFinite
                    : unfinished[lanes][lane]     ? kNotConverged
                                                  : kDone;
  }
}

template <class T, LanesHold kLanesHold>
auto Solver<T, kLanesHold>::outputs(const EighGroup<T>& group, T* const* all, int64_t unit) const
    -> Outputs {
  Outputs to;
  for (int lane = 0; lane < P::kWidth; ++lane) {
    const int64_t m = unit * P::kWidth + lane;
    to.matrix[lane] = m < group.count && group.info[m] == kDone ? all[m] : nullptr;
  }
  return to;
}

template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::store_values_and_vectors(const EighGroup<T>& group) {
  for (int64_t lanes = 0; lanes < ceil_divide<int64_t>(group.count, kEighLanes); ++lanes)
    ascending_order(diagonal(lanes), n_, ranks_, order_ + lanes * kEighLanes * n_);
  if (group.values)
    for (int64_t m = 0; m < group.count; ++m)
      for (int64_t k = 0; k < n_; ++k)
        group.values[m][k] = group.info[m] == kDone
                                 ? T(diagonal(m / kEighLanes)[order_[m * n_ + k]][m % kEighLanes])
                                 : T(1);
  if (group.vectors)
    for (int64_t unit = 0; unit < units(group); ++unit)
      store_vectors(panels_, vectors(unit), order_ + unit * P::kWidth * n_,
                    outputs(group, group.vectors, unit).matrix, row_scratch_);
}

// Scales the eigenvectors in place, so it comes last.
template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::store_roots(const EighGroup<T>& group) {
  const int64_t padded = round_up<int64_t>(n_ + 1, P::kVector);
  T scale[kEighMatrices];
  for (int lanes = 0; lanes < ceil_divide<int64_t>(units(group) * P::kWidth, kEighLanes); ++lanes) {
    const RootScale root = root_gains(diagonal(lanes), n_, *group.damping, lane_gains_);
    for (int64_t i = n_; i < padded; ++i) lane_gains_[i] = Lane{};
    for (int64_t i = 0; i < n_; i += kEighLanes)
      P::scatter(lane_gains_ + i, lanes * kEighLanes, gains_, padded * P::kWidth, i);
    for (int lane = 0; lane < kEighLanes; ++lane) {
      const int m = lanes * kEighLanes + lane;
      scale[m] = T(root.scale[lane]);
      if (m < group.count && group.info[m] == kDone && !(root.largest[lane] <= kMost))
        group.info[m] = kNotConverged;
    }
  }
  for (int64_t unit = 0; unit < units(group); ++unit) {
    const Outputs to = outputs(group, group.roots, unit);
    const T* gains = gains_ + unit * padded * P::kWidth;
    if constexpr (P::kWidth == 1) {
      if (!to.matrix[0]) continue;
      {
        const FlushDenormals flush;
        scale_columns(panels_, vectors(unit), gains);
        multiply_upper(panels_, vectors(unit), to.matrix[0]);
      }
      scale_and_mirror(to.matrix[0], n_, scale[unit]);
    } else {
      {
        const FlushDenormals flush;
        scale_columns(panels_, vectors(unit), gains);
        multiply_lanes(panels_, vectors(unit), root_);
      }
      store_matrices(root_, n_, load(scale + unit * P::kWidth), to.matrix);
    }
  }
}

template <class T, LanesHold kLanesHold>
void Solver<T, kLanesHold>::solve(const EighGroup<T>& group) {
  const bool with_vectors = group.vectors || group.roots;
  constexpr int kSlots = P::kReflected / kEighLanes;
  const int used = int(ceil_divide<int64_t>(group.count, P::kReflected)) * kSlots;
  for (int lanes = 0; lanes < used; ++lanes) {
    const int slot = lanes % kSlots;
    reduce(group, lanes, slot);
    if (with_vectors && slot == kSlots - 1) {
      const int64_t first = (lanes - slot) * kEighLanes / P::kWidth;
      form_vectors_of(first, minimum<int64_t>(first + P::kReflected / P::kWidth, units(group)));
    }
  }
  for (int lanes = used; lanes < kEighGroups; ++lanes) {
    scaling_[lanes] = {splat(1.0), ~LaneMask{}};
    for (int64_t i = 0; i < n_; ++i) diagonal(lanes)[i] = off_diagonal_[lanes * n_ + i] = Lane{};
  }
  if (with_vectors) {
    find_vectors(units(group));
  } else {
    find_values(diagonal_, off_diagonal_);
  }
  finish_values(group);
  if (group.values || group.vectors) store_values_and_vectors(group);
  if (group.roots) store_roots(group);
  for (int64_t m = 0; m < group.count; ++m) {
    if (group.info[m] == kDone || group.keep_failed) continue;
    if (group.vectors) store_identity(group.vectors[m], n_);
    if (group.roots) store_identity(group.roots[m], n_);
  }
}

}  // namespace

int64_t eigh_group_size(int64_t) { return kEighMatrices; }

template <class T>
size_t eigh_workspace_bytes(int64_t n) {
  return n <= kMaxLanesSize ? Solver<T, LanesHold::kMatrices>(n, nullptr).bytes()
                            : Solver<T, LanesHold::kRows>(n, nullptr).bytes();
}

template <class T>
void eigh_group(const EighGroup<T>& group, void* workspace) {
  if (group.n <= kMaxLanesSize) {
    Solver<T, LanesHold::kMatrices>(group.n, workspace).solve(group);
  } else {
    Solver<T, LanesHold::kRows>(group.n, workspace).solve(group);
  }
}

template size_t eigh_workspace_bytes<float>(int64_t);
template size_t eigh_workspace_bytes<double>(int64_t);
template void eigh_group(const EighGroup<float>&, void*);
template void eigh_group(const EighGroup<double>&, void*);

}  // namespace kronext::cpu::KRONEXT_CPU
