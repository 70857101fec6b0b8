#include "csrc/torch/spectral.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "csrc/core/outer.h"
#include "csrc/cpu/kernels.h"
#include "csrc/torch/parallel.h"
#include "csrc/torch/warm_start.h"

namespace kronext {
namespace {

using torch::headeronly::ScalarType;

template <class T>
constexpr ScalarType kScalarType = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
template <class T>
constexpr Dtype kDtype = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;

// Whether `count` matrices of size n go through the vector lanes together or take one LAPACK call
// each, in float64, or `plain`: in float32. Measured (docs/numerics.md): every further matrix in
// the same call makes lanes cheaper; one alone costs as much as by LAPACK in float64 up to 128, in
// float32 up to 32.
bool prefers_lanes(int64_t n, int64_t count, bool plain) {
  if (plain)
    return n <= 32 || (n <= 128 ? count >= 2 : n <= 256 ? count >= 3 : n <= 512 && count >= 8);
  if (n <= 128) return true;
  return n <= 256 ? count >= 2 : n <= 512 && count >= 4;
}

// Whether a root alone is first tried from its basis, the matrices of a size one after the other.
// That takes 4 to 7 n^3 multiply-adds of well-fed products: less than LAPACK or half-empty lanes
// take, more than full lanes do. The bound that makes it safe needs root >= 1.
bool prefers_basis(int64_t n, int64_t count, const std::optional<Damping>& damping) {
  return damping && damping->root >= 1 && n >= 96 && (n > 512 || count <= 3);
}

// Matrices for each call of the lanes kernel: all threads get some, in multiples of a quarter of a
// full group, below which a call hardly gets cheaper.
int64_t lane_step(int64_t group, int64_t count) {
  const int64_t threads = int64_t(torch::stable::get_num_threads());
  const int64_t quarter = std::max<int64_t>(1, group / 4), share = (count + threads - 1) / threads;
  return std::min(group, (share + quarter - 1) / quarter * quarter);
}

template <class T>
const EighKernel<T>& eigh_kernel(Precision precision) {
  if constexpr (sizeof(T) == 8) {
    return cpu::kernels().eigh_double;
  } else {
    return precision == Precision::kMixed ? cpu::kernels().eigh_mixed : cpu::kernels().eigh_float;
  }
}

template <class T>
struct Solver {
  const Request& request;
  int32_t* info;
  const EighKernel<T>& kernel = eigh_kernel<T>(request.precision);

  bool plain() const {
    return sizeof(T) == sizeof(float) && request.precision == Precision::kFloat32;
  }

  Damping damping_of_size(int64_t n) const {
    Damping result = request.damping.value_or(Damping{});
    result.cutoff = undamped_cutoff<T>(n);
    return result;
  }

  // ---- one matrix from its basis ---------------------------------------------------------------

  bool solve_from_basis(const SpectralProblem& p) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      if (!p.basis || p.values || p.vectors ||
          !warm_inverse_root(p.n, static_cast<const float*>(p.matrix),
                             static_cast<const float*>(p.basis), damping_of_size(p.n),
                             static_cast<float*>(p.root))) {
        return false;
      }
      info[p.info] = kDone;
      return true;
    }
    return false;
  }

  // ---- many matrices of one size in lanes ------------------------------------------------------

  void solve_in_lanes(const SpectralProblem* first, int64_t count, char* workspace) const {
    std::vector<const T*> matrices(count);
    std::vector<T*> values(count), vectors(count), roots(count);
    std::vector<int32_t> status(count);
    const Damping sized = damping_of_size(first->n);
    for (int64_t i = 0; i < count; ++i) {
      matrices[i] = static_cast<const T*>(first[i].matrix);
      values[i] = static_cast<T*>(first[i].values);
      vectors[i] = static_cast<T*>(first[i].vectors);
      roots[i] = static_cast<T*>(first[i].root);
    }
    kernel.run({first->n, count, matrices.data(), first->n, first->values ? values.data() : nullptr,
                first->vectors ? vectors.data() : nullptr, first->root ? roots.data() : nullptr,
                &sized, status.data(), request.keep_failed},
               workspace);
    for (int64_t i = 0; i < count; ++i) {
      if (status[i] == kNotConverged) {
        solve_with_lapack(first[i]);
      } else {
        info[first[i].info] = status[i];
      }
    }
  }

  // ---- one matrix by LAPACK, in float64 unless less is asked for -------------------------------

  void solve_with_lapack(const SpectralProblem& p) const {
    info[p.info] = plain() ? try_lapack<float>(p) : try_lapack<double>(p);
    if (info[p.info] != kDone) write_identity(p);
  }

  template <class W>
  Info try_lapack(const SpectralProblem& p) const {
    const int64_t n = p.n;
    const T* a = static_cast<const T*>(p.matrix);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        if (!std::isfinite(a[i * n + j])) return kNonFinite;
      }
    }
    const Tensor wide = empty_on_cpu({n, n}, kScalarType<W>);
    W* out = static_cast<W*>(wide.data_ptr());
    for (int64_t i = 0; i < n * n; ++i) out[i] = W(a[i]);
    std::array<StableIValue, 2> stack{torch::stable::detail::from(wide),
                                      torch::stable::detail::from(std::string("L"))};
    if (torch_call_dispatcher("aten::linalg_eigh", "", stack.data(), TORCH_ABI_VERSION) != 0) {
      return kNotConverged;
    }
    const Tensor values = torch::stable::detail::to<Tensor>(stack[0]);
    const Tensor vectors = torch::stable::detail::to<Tensor>(stack[1]);
    const W* found = static_cast<const W*>(values.data_ptr());
    const std::vector<double> lambda(found, found + n);
    if (!representable(lambda, p)) return kNotConverged;
    write_spectrum<W>(p, lambda, vectors);
    return kDone;
  }

  // Whether eigenvalues and root fit the type, told before anything is written.
  bool representable(const std::vector<double>& lambda, const SpectralProblem& p) const {
    const double most = double(std::numeric_limits<T>::max());
    const Damping sized = damping_of_size(p.n);
    for (int64_t k = 0; k < p.n; ++k) {
      if (p.values && !(std::abs(lambda[k]) <= most)) return false;
      if (p.root && !(damped_inverse_root(lambda[k], lambda[p.n - 1], sized) <= most)) return false;
    }
    return std::isfinite(lambda[p.n - 1]);
  }

  template <class W>
  void write_spectrum(const SpectralProblem& p, const std::vector<double>& values,
                      const Tensor& vectors) const {
    const int64_t n = p.n, row_stride = vectors.stride(0), column_stride = vectors.stride(1);
    const W* v = static_cast<const W*>(vectors.data_ptr());
    for (int64_t k = 0; p.values && k < n; ++k) static_cast<T*>(p.values)[k] = T(values[k]);
    if (p.vectors)
      scale_columns(v, row_stride, column_stride, n, nullptr, static_cast<T*>(p.vectors));
    if (!p.root) return;
    const Damping sized = damping_of_size(n);
    std::vector<double> half(n);  // X = (V h)(V h)T with h = sqrt(f): symmetric bit for bit
    for (int64_t k = 0; k < n; ++k) {
      half[k] = std::sqrt(damped_inverse_root(values[k], values[n - 1], sized));
    }
    const Workspace scaled(n * n * int64_t(sizeof(T)));
    T* x = reinterpret_cast<T*>(scaled.at(0));
    scale_columns(v, row_stride, column_stride, n, half.data(), x);
    std::vector<OuterSide> side{
        {{x, kDtype<T>, n, n, n, 1}, {p.root, kDtype<T>, n, n, n, 1}, 0, 1}};
    run_jobs(cpu::kernels().outer->job, side);
  }

  template <class W>
  static void scale_columns(const W* v, int64_t row_stride, int64_t column_stride, int64_t n,
                            const double* scale, T* out) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = 0; k < n; ++k) {
        const W x = v[i * row_stride + k * column_stride];
        out[i * n + k] = T(scale ? double(x) * scale[k] : double(x));
      }
    }
  }

  void write_identity(const SpectralProblem& p) const {
    const auto identity = [n = p.n](void* memory) {
      T* out = static_cast<T*>(memory);
      for (int64_t i = 0; i < n * n; ++i) out[i] = T(i / n == i % n);
    };
    for (int64_t k = 0; p.values && k < p.n; ++k) static_cast<T*>(p.values)[k] = T(1);
    if (p.vectors) identity(p.vectors);
    if (p.root && !request.keep_failed) identity(p.root);
  }
};

// A run of problems of one size for one thread.
struct Task {
  int64_t first, count;
  bool lanes;
};

// Calls f(begin, end) for each run of problems of one size.
template <class F>
void for_each_size(const std::vector<SpectralProblem>& problems, const F& f) {
  const int64_t total = int64_t(problems.size());
  for (int64_t begin = 0, end; begin < total; begin = end) {
    for (end = begin; end < total && problems[end].n == problems[begin].n;) ++end;
    f(begin, end);
  }
}

// Problems that their basis solves leave the list.
template <class T>
void solve_from_bases(const Solver<T>& solver, std::vector<SpectralProblem>& problems) {
  if (std::ranges::none_of(problems, &SpectralProblem::basis)) return;
  std::vector<SpectralProblem> rest;
  for_each_size(problems, [&](int64_t begin, int64_t end) {
    const bool warm = prefers_basis(problems[begin].n, end - begin, solver.request.damping);
    for (int64_t i = begin; i < end; ++i) {
      if (!warm || !solver.solve_from_basis(problems[i])) rest.push_back(problems[i]);
    }
  });
  problems.swap(rest);
}

}  // namespace

template <class T>
void solve_spectral(std::vector<SpectralProblem>& problems, const Request& request, int32_t* info) {
  const Solver<T> solver{request, info};
  if (!std::ranges::is_sorted(problems, std::greater{}, &SpectralProblem::n)) {
    std::ranges::stable_sort(problems, std::greater{}, &SpectralProblem::n);
  }
  solve_from_bases(solver, problems);
  std::vector<Task> tasks;
  int64_t workspace_bytes = 0;
  double work = 0;
  for_each_size(problems, [&](int64_t begin, int64_t end) {
    const int64_t n = problems[begin].n;
    if (n == 0) {
      for (int64_t i = begin; i < end; ++i) info[problems[i].info] = kDone;
      return;
    }
    const bool lanes = prefers_lanes(n, end - begin, solver.plain());
    const int64_t step = lanes ? lane_step(solver.kernel.group_size, end - begin) : 1;
    for (int64_t i = begin; i < end; i += step)
      tasks.push_back({i, std::min(step, end - i), lanes});
    if (lanes) {
      workspace_bytes =
          std::max(workspace_bytes, aligned(int64_t(solver.kernel.workspace_bytes(n))));
    }
    work += 10.0 * double(n) * double(n) * double(n) * double(end - begin);
  });
  const int64_t workers = worker_count(int64_t(tasks.size()), work);
  const Workspace space(workers * workspace_bytes);
  run_tasks(int64_t(tasks.size()), workers, [&](int64_t index, int64_t worker) {
    const Task& task = tasks[index];
    if (task.lanes) {
      solver.solve_in_lanes(&problems[task.first], task.count, space.at(worker * workspace_bytes));
    } else {
      solver.solve_with_lapack(problems[task.first]);
    }
  });
}

template void solve_spectral<float>(std::vector<SpectralProblem>&, const Request&, int32_t*);
template void solve_spectral<double>(std::vector<SpectralProblem>&, const Request&, int32_t*);

}  // namespace kronext
