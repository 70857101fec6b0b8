// A group of matrices through the stages of the eigensolver:
//
//   pack and scale    D, lanes across matrices    n^2          eigh_lanes.h
//   tridiagonalise    D, lanes across matrices    4/3 n^3      eigh_tridiagonal.h
//   form Q            T, panels                   4/3 n^3      eigh_reflectors.h
//   QL sweeps         D, lanes across matrices    30 n^2       eigh_ql.h
//   rotate Q          T, panels                   3 to 6 n^3   eigh_rotations.h
//   root              T, panels                   n^3          eigh_root.h
//   store             T, panels                   n^2          eigh_output.h
//
// with operations a matrix. What cannot fill vectors within one small matrix runs across matrices.
// T is the type of the matrices; D is double, or float in the plain float32 mode. Float32
// eigenvectors of float64 rotations keep the accuracy of the inverse root: the error of plain
// float32 is that rotations and eigenvalues, found from rounded numbers, mix eigenvectors of small
// eigenvalues; rounding what they are applied to is harmless.
#include "csrc/cpu/inverse_root.h"

#include "csrc/cpu/arena.h"
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

// The matrices of one call and the pieces of its workspace.
template <class T, class D, LanesHold kLanesHold>
class Solver {
 public:
  Solver(int64_t n, void* workspace);
  void solve(const EighGroup<T>& group);
  size_t bytes() const { return bytes_; }

 private:
  using P = Panels<T, D, kLanesHold>;
  using R = Reflectors<P>;
  using S = RotationStream<P>;
  using Lanes = Vector<D>;
  static constexpr int kLaneCount = P::kLaneCount, kMatrices = P::kMatrices;

  // Couplings below it end the QL iteration, relative to the norm. Float32 results of
  // float64 lanes cannot show more.
  static constexpr D kTolerance = sizeof(D) > sizeof(T) ? D(1e-13) : FloatFormat<D>::kRoundoff;
  static constexpr T kMost = sizeof(T) == 4 ? T(__FLT_MAX__) : T(__DBL_MAX__);

  void reduce(const EighGroup<T>& group, int lanes, int slot);
  void form_vectors_of(int64_t first_unit, int64_t last_unit);
  void find_values(Lanes* values, Lanes* off_diagonal);
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
  Lanes* diagonal(int lanes) const { return diagonal_ + lanes * n_; }
  // Of the matrices from kValueLanes * lanes on.
  Lane* values(int64_t lanes) const { return values_ + lanes * n_; }
  T* vectors(int64_t unit) const { return vectors_ + unit * panels_.unit_size(); }

  int64_t n_;
  P panels_;
  Lanes *packed_, *update_, *product_, *tau_, *overlap_;  // of one group of lanes at a time
  Lanes *diagonal_, *off_diagonal_;                       // kEighGroups x n
  Lanes *shifts_, *shifts_off_diagonal_;                  // kEighGroups x n
  Scaling<D>* scaling_;                                   // kEighGroups
  Lane* values_;                                          // kMatrices / kValueLanes x n
  R reflectors_;                                          // of P::kReflected matrices at a time
  T *vectors_, *row_scratch_;
  T *rotations_, *rotation_buffer_;
  typename S::Window* windows_;
  uint8_t* marks_;
  LaneMask* ranks_;
  int32_t* order_;  // kMatrices x n
  Lane* lane_gains_;
  T *gains_, *root_;
  size_t bytes_;
};

template <class T, class D, LanesHold kLanesHold>
Solver<T, D, kLanesHold>::Solver(int64_t n, void* workspace) : n_(n), panels_(n) {
  Arena arena(workspace);
  const int64_t padded = round_up<int64_t>(n + 1, P::kVector);
  packed_ = arena.take<Lanes>(triangle(n));
  update_ = arena.take<Lanes>(n);
  product_ = arena.take<Lanes>(n);
  tau_ = arena.take<Lanes>(padded);
  overlap_ = arena.take<Lanes>(padded);
  diagonal_ = arena.take<Lanes>(kEighGroups * n);
  off_diagonal_ = arena.take<Lanes>(kEighGroups * n);
  shifts_ = arena.take<Lanes>(kEighGroups * n);
  shifts_off_diagonal_ = arena.take<Lanes>(kEighGroups * n);
  scaling_ = arena.take<Scaling<D>>(kEighGroups);
  values_ = arena.take<Lane>(kMatrices / kValueLanes * n);
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
  order_ = arena.take<int32_t>(kMatrices * n);
  lane_gains_ = arena.take<Lane>(padded);
  gains_ = arena.take<T>(kMatrices * padded);
  root_ = arena.take<T>(P::kWidth > 1 ? n * n * P::kVector : 0);
  bytes_ = arena.used();
}

// One group of lanes to tridiagonal form. Lanes without a matrix of their own repeat the last one.
template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::reduce(const EighGroup<T>& group, int lanes, int slot) {
  const T* matrices[kLaneCount];
  for (int lane = 0; lane < kLaneCount; ++lane)
    matrices[lane] = group.matrices[minimum<int64_t>(lanes * kLaneCount + lane, group.count - 1)];
  pack_lower<D>(matrices, n_, group.row_stride, packed_);
  scaling_[lanes] = normalize<D>(packed_, n_);

  const FlushDenormals flush;
  const Tridiagonal<D> tridiagonal{diagonal(lanes), off_diagonal_ + lanes * n_, tau_};
  tridiagonalize<D>(packed_, n_, tridiagonal, update_, product_);
  if (group.vectors || group.roots)
    scatter_reflectors<P>(packed_, tau_, overlap_, slot * kLaneCount, reflectors_);
}

template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::form_vectors_of(int64_t first_unit, int64_t last_unit) {
  const FlushDenormals flush;
  for (int64_t unit = first_unit; unit < last_unit; ++unit)
    form_vectors(panels_, reflectors_.of(unit - first_unit), vectors(unit), row_scratch_);
}

template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::find_values(Lanes* values, Lanes* off_diagonal) {
  const FlushDenormals flush;
  LockstepQl<D> ql(n_, values, off_diagonal, marks_, nullptr, kTolerance);
  for (int64_t k = 0; k < ql.max_sweeps() && ql.sweep_values(); ++k) {
  }
}

template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::find_vectors(int64_t units) {
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
  LockstepQl<D> ql(n_, diagonal_, off_diagonal_, marks_, shifted ? shifts_ : nullptr, kTolerance);
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
template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::finish_values(const EighGroup<T>& group) {
  Mask<D> unreduced[kEighGroups];
  LockstepQl<D>(n_, diagonal_, off_diagonal_, marks_, nullptr, kTolerance).unreduced(unreduced);
  // A root may fit where its eigenvalues do not, but only if those were known.
  const double most = group.values ? double(kMost) : __DBL_MAX__;
  LaneMask unfit[kMatrices / kValueLanes] = {};
  for (int64_t lanes = 0; lanes < kMatrices / kValueLanes; ++lanes) {
    const int64_t first = lanes * kValueLanes % kLaneCount;
    const auto widened = [&](const Lanes& x) {
      return convert<double, D, kValueLanes>(
          load<D, kValueLanes>(reinterpret_cast<const D*>(&x) + first));
    };
    const int64_t from = lanes * kValueLanes / kLaneCount;
    const Lane scale = widened(scaling_[from].scale);
    for (int64_t i = 0; i < n_; ++i) {
      const Lane value = widened(diagonal(int(from))[i]) * scale;
      values(lanes)[i] = value;
      unfit[lanes] |= absolute<double>(value) > splat(most);
    }
  }
  for (int64_t m = 0; m < group.count; ++m) {
    const int64_t lanes = m / kLaneCount, lane = m % kLaneCount;
    const bool failed = unreduced[lanes][lane] || unfit[m / kValueLanes][m % kValueLanes];
    group.info[m] = !scaling_[lanes].finite[lane] ? kNonFinite : failed ? kNotConverged : kDone;
  }
}

template <class T, class D, LanesHold kLanesHold>
auto Solver<T, D, kLanesHold>::outputs(const EighGroup<T>& group, T* const* all, int64_t unit) const
    -> Outputs {
  Outputs to;
  for (int lane = 0; lane < P::kWidth; ++lane) {
    const int64_t m = unit * P::kWidth + lane;
    to.matrix[lane] = m < group.count && group.info[m] == kDone ? all[m] : nullptr;
  }
  return to;
}

template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::store_values_and_vectors(const EighGroup<T>& group) {
  for (int64_t lanes = 0; lanes < ceil_divide<int64_t>(group.count, kValueLanes); ++lanes)
    ascending_order(values(lanes), n_, ranks_, order_ + lanes * kValueLanes * n_);
  if (group.values)
    for (int64_t m = 0; m < group.count; ++m)
      for (int64_t k = 0; k < n_; ++k)
        group.values[m][k] = group.info[m] == kDone
                                 ? T(values(m / kValueLanes)[order_[m * n_ + k]][m % kValueLanes])
                                 : T(1);
  if (group.vectors)
    for (int64_t unit = 0; unit < units(group); ++unit)
      store_vectors(panels_, vectors(unit), order_ + unit * P::kWidth * n_,
                    outputs(group, group.vectors, unit).matrix, row_scratch_);
}

// Scales the eigenvectors in place, so it comes last.
template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::store_roots(const EighGroup<T>& group) {
  const int64_t padded = round_up<int64_t>(n_ + 1, P::kVector);
  T scale[kMatrices];
  for (int lanes = 0; lanes < ceil_divide<int64_t>(units(group) * P::kWidth, kValueLanes);
       ++lanes) {
    const RootScale root = root_gains(values(lanes), n_, *group.damping, lane_gains_);
    for (int64_t i = n_; i < padded; ++i) lane_gains_[i] = Lane{};
    for (int64_t i = 0; i < n_; i += kValueLanes)
      P::template scatter<double>(lane_gains_ + i, lanes * kValueLanes, gains_, padded * P::kWidth,
                                  i);
    for (int lane = 0; lane < kValueLanes; ++lane) {
      const int m = lanes * kValueLanes + lane;
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

template <class T, class D, LanesHold kLanesHold>
void Solver<T, D, kLanesHold>::solve(const EighGroup<T>& group) {
  const bool with_vectors = group.vectors || group.roots;
  constexpr int kSlots = P::kReflected / kLaneCount;
  const int used = int(ceil_divide<int64_t>(group.count, P::kReflected)) * kSlots;
  for (int lanes = 0; lanes < used; ++lanes) {
    const int slot = lanes % kSlots;
    reduce(group, lanes, slot);
    if (with_vectors && slot == kSlots - 1) {
      const int64_t first = (lanes - slot) * kLaneCount / P::kWidth;
      form_vectors_of(first, minimum<int64_t>(first + P::kReflected / P::kWidth, units(group)));
    }
  }
  for (int lanes = used; lanes < kEighGroups; ++lanes) {
    scaling_[lanes] = {splat(D(1)), ~Mask<D>{}};
    for (int64_t i = 0; i < n_; ++i) diagonal(lanes)[i] = off_diagonal_[lanes * n_ + i] = Lanes{};
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

template <class T, class D>
size_t workspace_bytes(int64_t n) {
  return n <= kMaxLanesSize ? Solver<T, D, LanesHold::kMatrices>(n, nullptr).bytes()
                            : Solver<T, D, LanesHold::kRows>(n, nullptr).bytes();
}

template <class T, class D>
void run(const EighGroup<T>& group, void* workspace) {
  if (group.n <= kMaxLanesSize) {
    Solver<T, D, LanesHold::kMatrices>(group.n, workspace).solve(group);
  } else {
    Solver<T, D, LanesHold::kRows>(group.n, workspace).solve(group);
  }
}

template <class T, class D>
constexpr EighKernel<T> kKernel{kEighMatrices<D>, workspace_bytes<T, D>, run<T, D>};

}  // namespace

extern const EighKernel<float> kEighMixed = kKernel<float, double>;
extern const EighKernel<float> kEighFloat = kKernel<float, float>;
extern const EighKernel<double> kEighDouble = kKernel<double, double>;

}  // namespace kronext::cpu::KRONEXT_CPU
