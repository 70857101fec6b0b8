// One symmetric matrix through the stages of the eigensolver, its own rows filling the vectors:
//
//   copy and scale            D              n^2       single_tridiagonal.h
//   tridiagonalise            D              4/3 n^3   single_tridiagonal.h
//   divide and conquer        float64 and T  4/3 n^3   divide_and_conquer.h, less what deflates
//   apply the reflectors      T              2 n^3     single_reflectors.h
//   root                      T              n^3       outer.h
//
// Where a batch fills the lanes of inverse_root.cpp that is faster up to some size: there the QL
// recurrences and the reduction run at the speed of registers. Here they run at that of the caches,
// but nothing waits for company. What T and D are is told there.
#include "csrc/cpu/single_eigh.h"

#include <math.h>

#include "csrc/cpu/divide_and_conquer.h"
#include "csrc/cpu/eigh_output.h"
#include "csrc/cpu/outer.h"
#include "csrc/cpu/single_reflectors.h"
#include "csrc/cpu/single_tridiagonal.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class T, class D>
class SingleSolver {
 public:
  SingleSolver(int64_t n, int64_t workers, void* workspace);
  Info solve(const EighProblem<T>& problem, const Team& team) const;
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr T kMost = sizeof(T) == 4 ? T(__FLT_MAX__) : T(__DBL_MAX__);

  static OuterSide side(int64_t n, T* x, T* root, double weight) {
    return {{x, kDtypeOf<T>, n, n, n, 1}, {root, kDtypeOf<T>, n, n, n, 1}, 0, weight, 0};
  }
  bool find_vectors(T* vectors, const Team& team) const;
  double scale_vectors(const T* vectors, const Damping& damping, T* scaled) const;
  void multiply(T* scaled, T* root, double weight, const Team& team) const;

  int64_t n_;
  Reduction<D> reduction_;
  double *diagonal_, *off_diagonal_, *values_, *gains_;
  T* vectors_;
  char* stage_;  // the workspace of one stage at a time
  int64_t scratch_bytes_, bytes_;
};

template <class T, class D>
SingleSolver<T, D>::SingleSolver(int64_t n, int64_t workers, void* workspace) : n_(n) {
  Arena arena(workspace);
  reduction_ = {n, arena.take<D>(Reduction<D>::matrix_size(n)), arena.take<D>(n), arena.take<D>(n),
                arena.take<D>(round_up(n, kRowBlock))};
  diagonal_ = arena.take<double>(n);
  off_diagonal_ = arena.take<double>(n);
  values_ = arena.take<double>(n);
  gains_ = arena.take<double>(n);
  vectors_ = arena.take<T>(n * n);
  const OuterSide root = side(n, nullptr, nullptr, 1);
  scratch_bytes_ = round_up<int64_t>(kOuter.job.scratch_bytes(root), 64);
  const int64_t stages[] = {tridiagonalize_bytes<D>(n),
                            int64_t(DivideAndConquer<T>(n, workers, nullptr).bytes()),
                            apply_reflectors_bytes<T, D>(n, workers),
                            kOuter.job.shared_bytes(root) + 64 + workers * scratch_bytes_};
  int64_t most = 0;
  for (int64_t bytes : stages) most = maximum(most, bytes);
  stage_ = arena.take<char>(most);
  bytes_ = int64_t(arena.used());
}

// Eigenvalues of the scaled matrix, ascending, and the eigenvectors as columns.
template <class T, class D>
bool SingleSolver<T, D>::find_vectors(T* vectors, const Team& team) const {
  tridiagonalize(team, reduction_, stage_);
  for (int64_t i = 0; i < n_; ++i) {
    diagonal_[i] = reduction_.diagonal[i];
    off_diagonal_[i] = reduction_.off_diagonal[i];
  }
  DivideAndConquer<T> halves(n_, team.workers, stage_);
  if (!halves.solve(diagonal_, off_diagonal_, values_, vectors, n_, team)) return false;
  apply_reflectors(team, reduction_, vectors, n_, stage_);
  return true;
}

// Columns times f^(1/2), with f divided by a power of four that brings its largest to [1, 4), so
// that products neither overflow nor vanish. Returns that power; 0 if the root does not fit T.
template <class T, class D>
double SingleSolver<T, D>::scale_vectors(const T* vectors, const Damping& damping,
                                         T* scaled) const {
  double top = 0;
  for (int64_t k = 0; k < n_; ++k) {
    gains_[k] = damped_inverse_root(values_[k], values_[n_ - 1], damping);
    top = maximum(top, gains_[k]);
  }
  if (!(top <= kMost)) return 0;
  const int half = top > 0 ? ilogb(top) / 2 : 0;
  for (int64_t k = 0; k < n_; ++k) gains_[k] = sqrt(ldexp(gains_[k], -2 * half));
  for (int64_t i = 0; i < n_; ++i)
    for (int64_t k = 0; k < n_; ++k) scaled[i * n_ + k] = vectors[i * n_ + k] * T(gains_[k]);
  return ldexp(1.0, 2 * half);
}

// root <- weight scaled scaledT
template <class T, class D>
void SingleSolver<T, D>::multiply(T* scaled, T* root, double weight, const Team& team) const {
  const OuterSide product = side(n_, scaled, root, weight);
  char* panels = stage_ + team.workers * scratch_bytes_;
  team(kOuter.job.pack_steps(product),
       [&](int64_t step, int64_t) { kOuter.job.pack(product, step, panels); });
  team(kOuter.job.steps(product), [&](int64_t step, int64_t worker) {
    kOuter.job.run(product, step, panels, stage_ + worker * scratch_bytes_);
  });
}

template <class T, class D>
Info SingleSolver<T, D>::solve(const EighProblem<T>& problem, const Team& team) const {
  const auto [scale, finite] = copy_scaled<D>(problem.matrix, problem.row_stride, reduction_);
  if (!finite) return kNonFinite;
  T* vectors = problem.vectors ? problem.vectors : vectors_;
  if (!find_vectors(vectors, team)) return kNotConverged;

  // A root may fit where its eigenvalues do not, but only if those were known.
  const double most = problem.values ? double(kMost) : __DBL_MAX__;
  for (int64_t k = 0; k < n_; ++k) {
    values_[k] *= double(scale);
    if (!(fabs(values_[k]) <= most)) return kNotConverged;
    if (problem.values) problem.values[k] = T(values_[k]);
  }
  if (problem.root) {
    const double weight = scale_vectors(vectors, *problem.damping, vectors_);
    if (weight == 0) return kNotConverged;
    multiply(vectors_, problem.root, weight, team);
  }
  return kDone;
}

template <class T, class D>
int64_t workspace_bytes(int64_t n, int64_t workers) {
  return SingleSolver<T, D>(n, workers, nullptr).bytes();
}

template <class T, class D>
Info run(const EighProblem<T>& problem, const Team& team, void* workspace) {
  const Info info = SingleSolver<T, D>(problem.n, team.workers, workspace).solve(problem, team);
  if (info == kDone) return info;
  for (int64_t k = 0; problem.values && k < problem.n; ++k) problem.values[k] = T(1);
  if (problem.vectors) store_identity(problem.vectors, problem.n);
  if (problem.root && !problem.keep_failed) store_identity(problem.root, problem.n);
  return info;
}

template <class T, class D>
constexpr SingleEighKernel<T> kKernel{workspace_bytes<T, D>, run<T, D>};

}  // namespace

extern const SingleEighKernel<float> kSingleEighMixed = kKernel<float, double>;
extern const SingleEighKernel<float> kSingleEighFloat = kKernel<float, float>;
extern const SingleEighKernel<double> kSingleEighDouble = kKernel<double, double>;

}  // namespace kronext::cpu::KRONEXT_CPU
