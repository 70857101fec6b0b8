#include "csrc/torch/spectral.h"

#include <algorithm>
#include <functional>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/parallel.h"

namespace kronext {
namespace {

// Whether matrices of size n, of which a thread has `count` to solve, go through the vector lanes
// together or one by one. Measured (docs/numerics.md): every further matrix in the same call makes
// lanes cheaper, and the larger they are the more of them that takes.
template <class T>
bool prefers_lanes(int64_t n, int64_t count) {
  return n <= (sizeof(T) == sizeof(double) ? 128 : 256) && 12 * count >= n;
}

// Matrices for each call of the lanes kernel: all threads get some, in multiples of a quarter of a
// full group, below which a call hardly gets cheaper.
int64_t lane_step(int64_t group, int64_t share) {
  const int64_t quarter = std::max<int64_t>(1, group / 4);
  return std::min(group, (share + quarter - 1) / quarter * quarter);
}

// From this size on threads gain by sharing one matrix.
constexpr int64_t kShareable = 512;

double work_of(int64_t n) { return 10.0 * double(n) * double(n) * double(n); }

template <class T>
const EighKernel<T>& lanes_kernel(Precision precision) {
  if constexpr (sizeof(T) == 8) {
    return cpu::kernels().eigh_double;
  } else {
    return precision == Precision::kMixed ? cpu::kernels().eigh_mixed : cpu::kernels().eigh_float;
  }
}

template <class T>
const SingleEighKernel<T>& single_kernel(Precision precision) {
  if constexpr (sizeof(T) == 8) {
    return cpu::kernels().single_eigh_double;
  } else {
    return precision == Precision::kMixed ? cpu::kernels().single_eigh_mixed
                                          : cpu::kernels().single_eigh_float;
  }
}

template <class T>
struct Solver {
  const Request& request;
  int32_t* info;
  const EighKernel<T>& lanes = lanes_kernel<T>(request.precision);
  const SingleEighKernel<T>& single = single_kernel<T>(request.precision);

  Damping damping_of_size(int64_t n) const {
    Damping result = request.damping.value_or(Damping{});
    result.cutoff = undamped_cutoff<T>(n);
    return result;
  }

  // Many matrices of one size in lanes.
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
    lanes.run({first->n, count, matrices.data(), first->n, first->values ? values.data() : nullptr,
               first->vectors ? vectors.data() : nullptr, first->root ? roots.data() : nullptr,
               &sized, status.data(), request.keep_failed},
              workspace);
    for (int64_t i = 0; i < count; ++i) {
      info[first[i].info] = status[i];
      // Another method may converge.
      if (status[i] == kNotConverged) solve_by_team(first[i], 1);
    }
  }

  // One matrix by the threads of a team.
  void solve_single(const SpectralProblem& p, const Team& team, char* workspace) const {
    const Damping sized = damping_of_size(p.n);
    info[p.info] = single.run(
        {p.n, static_cast<const T*>(p.matrix), p.n, static_cast<T*>(p.values),
         static_cast<T*>(p.vectors), static_cast<T*>(p.root), &sized, request.keep_failed},
        team, workspace);
  }

  void solve_by_team(const SpectralProblem& p, int64_t workers) const {
    const Workspace space(single.workspace_bytes(p.n, workers));
    const auto run = [](const void* threads, int64_t count, Team::Task task, const void* tasks) {
      run_tasks(count, *static_cast<const int64_t*>(threads),
                [&](int64_t index, int64_t worker) { task(tasks, index, worker); });
    };
    solve_single(p, {workers, run, &workers}, space.at(0));
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

// All threads at once solve those that are more than a thread's fair share of what is left, one by
// one: each product with the matrix being reduced waits for all of them. Returns how many, the
// first.
template <class T>
int64_t solve_together(const Solver<T>& solver, const std::vector<SpectralProblem>& problems) {
  const int64_t threads = int64_t(torch::stable::get_num_threads());
  double rest = 0;
  for (const SpectralProblem& p : problems) rest += work_of(p.n);
  size_t done = 0;
  for (; threads > 1 && done < problems.size(); ++done) {
    const SpectralProblem& p = problems[done];
    if (p.n < kShareable || work_of(p.n) * double(threads) <= rest) break;
    solver.solve_by_team(p, threads);
    rest -= work_of(p.n);
  }
  return int64_t(done);
}

}  // namespace

template <class T>
void solve_spectral(std::vector<SpectralProblem>& problems, const Request& request, int32_t* info) {
  const Solver<T> solver{request, info};
  if (!std::ranges::is_sorted(problems, std::greater{}, &SpectralProblem::n)) {
    std::ranges::stable_sort(problems, std::greater{}, &SpectralProblem::n);
  }
  problems.erase(problems.begin(), problems.begin() + solve_together(solver, problems));
  const int64_t threads = int64_t(torch::stable::get_num_threads());
  std::vector<Task> tasks;
  int64_t workspace_bytes = 0;
  double work = 0;
  for_each_size(problems, [&](int64_t begin, int64_t end) {
    const int64_t n = problems[begin].n;
    if (n == 0) {
      for (int64_t i = begin; i < end; ++i) info[problems[i].info] = kDone;
      return;
    }
    const int64_t share = (end - begin + threads - 1) / threads;
    const bool lanes = prefers_lanes<T>(n, share);
    const int64_t step = lanes ? lane_step(solver.lanes.group_size, share) : 1;
    for (int64_t i = begin; i < end; i += step)
      tasks.push_back({i, std::min(step, end - i), lanes});
    const int64_t bytes =
        lanes ? int64_t(solver.lanes.workspace_bytes(n)) : solver.single.workspace_bytes(n, 1);
    workspace_bytes = std::max(workspace_bytes, aligned(bytes));
    work += work_of(n) * double(end - begin);
  });
  const int64_t workers = worker_count(int64_t(tasks.size()), work);
  const Workspace space(workers * workspace_bytes);
  run_tasks(int64_t(tasks.size()), workers, [&](int64_t index, int64_t worker) {
    const Task& task = tasks[index];
    char* workspace = space.at(worker * workspace_bytes);
    if (task.lanes) {
      solver.solve_in_lanes(&problems[task.first], task.count, workspace);
    } else {
      solver.solve_single(problems[task.first], {1, nullptr, nullptr}, workspace);
    }
  });
}

template void solve_spectral<float>(std::vector<SpectralProblem>&, const Request&, int32_t*);
template void solve_spectral<double>(std::vector<SpectralProblem>&, const Request&, int32_t*);

}  // namespace kronext
