// How the threads of a CPU share the products of power iteration.
#pragma once

#include <cstring>

#include "csrc/core/power_iteration.h"
#include "csrc/cpu/kernels.h"
#include "csrc/torch/parallel.h"
#include "csrc/torch/samples.h"

namespace kronext {

// From this many multiplications a sample, its rows keep all threads busy; below, threads take
// samples.
constexpr double kWorkPerSample = 1e8;

// Where one thread (or all of them together) keeps the panels, tiles and sums of a step.
class StepMemory {
 public:
  StepMemory(const StepSizes& sizes, int64_t slices, int64_t scratches, bool sums)
      : inner_(aligned(sizes.inner_bytes)),
        group_(aligned(sizes.group_bytes)),
        scratch_(aligned(sizes.scratch_bytes)),
        sums_(sums ? sizes.sums * int64_t(sizeof(double)) : 0),
        slices_(slices),
        bytes_(inner_ + slices * (group_ + sums_) + scratches * scratch_) {}

  int64_t bytes() const { return aligned(bytes_); }
  char* inner(char* memory) const { return memory; }
  char* group(char* memory, int64_t slice) const { return memory + inner_ + slice * group_; }
  // Slices of the sums lie one after the other.
  double* sums(char* memory, int64_t slice) const {
    char* first = group(memory, slices_);
    return sums_ ? reinterpret_cast<double*>(first + slice * sums_) : nullptr;
  }
  char* scratch(char* memory, int64_t index) const {
    return group(memory, slices_) + slices_ * sums_ + index * scratch_;
  }
  void clear_sums(char* memory, int64_t slice) const {
    if (sums_) std::memset(sums(memory, slice), 0, size_t(sums_));
  }

 private:
  int64_t inner_, group_, scratch_, sums_, slices_, bytes_;
};

// Samples [first, last) on one thread, into the sums of `slice` or straight into the results.
inline void add_samples(const KroneckerStep& step, const StepSizes& sizes, const StepMemory& memory,
                        char* space, int64_t slice, int64_t first, int64_t last) {
  memory.clear_sums(space, slice);
  StepJob job{&step,
              1,
              first,
              0,
              memory.inner(space),
              memory.group(space, slice),
              memory.sums(space, slice)};
  do {
    job.count = std::min(sizes.group, last - job.first);
    cpu::kernels().power_iteration.run_from(job, Stage::kForm, memory.scratch(space, slice));
    job.first += job.count;
  } while (job.first < last);
}

// A step that one thread takes whole.
inline StepMemory whole_memory(const KroneckerStep& step, const StepSizes& sizes) {
  return StepMemory(sizes, 1, 1, step.samples.count > sizes.group);
}
inline void run_step_whole(const KroneckerStep& step, const StepSizes& sizes, char* space) {
  const PowerIterationKernel& kernel = cpu::kernels().power_iteration;
  const StepMemory memory = whole_memory(step, sizes);
  const StepJob job{
      &step, 1, 0, 0, memory.inner(space), memory.group(space, 0), memory.sums(space, 0)};
  for (int64_t task = 0; task < kernel.tasks(job, Stage::kInner); ++task) {
    kernel.run(job, Stage::kInner, task, memory.scratch(space, 0));
  }
  add_samples(step, sizes, memory, space, 0, 0, step.samples.count);
  for (int64_t row = 0; job.sums && row < sizes.rows; ++row) {
    kernel.finish(job, row, 1, memory.scratch(space, 0));
  }
}

// A step that all threads share: each sums a fixed slice of the samples, or where a single sample
// is work for all of them, they share the rows of the results group by group.
inline void run_step_together(const KroneckerStep& step) {
  const PowerIterationKernel& kernel = cpu::kernels().power_iteration;
  const double work = step_work(step), samples = double(step.samples.count);
  const int64_t threads = worker_count(INT64_MAX, work);
  const bool by_rows = samples < 2 * double(threads) || work > samples * kWorkPerSample;
  const int64_t slices = by_rows ? 1 : threads;
  const StepSizes sizes = kernel.sizes(step, by_rows ? threads : 1);
  const StepMemory memory(sizes, slices, threads, !by_rows || step.samples.count > sizes.group);
  const Workspace workspace(memory.bytes());
  char* space = workspace.at(0);
  StepJob job{&step,
              by_rows ? threads : 1,
              0,
              0,
              memory.inner(space),
              memory.group(space, 0),
              memory.sums(space, 0)};
  const auto share = [&](Stage stage) {
    run_tasks(kernel.tasks(job, stage), threads, [&](int64_t task, int64_t worker) {
      kernel.run(job, stage, task, memory.scratch(space, worker));
    });
  };
  share(Stage::kInner);
  if (by_rows) {
    memory.clear_sums(space, 0);
    do {
      job.count = std::min(sizes.group, step.samples.count - job.first);
      for (Stage stage : {Stage::kForm, Stage::kPanels, Stage::kBlocks, Stage::kRows}) share(stage);
      job.first += job.count;
    } while (job.first < step.samples.count);
  } else {
    run_tasks(slices, slices, [&](int64_t slice, int64_t) {
      add_samples(step, sizes, memory, space, slice, slice * step.samples.count / slices,
                  (slice + 1) * step.samples.count / slices);
    });
  }
  if (!job.sums) return;
  run_tasks(sizes.rows, threads, [&](int64_t row, int64_t worker) {
    kernel.finish(job, row, slices, memory.scratch(space, worker));
  });
}

// Steps that one thread takes whole.
inline void run_steps_apart(const KroneckerStep* steps, int64_t count, double work) {
  std::vector<StepSizes> sizes;
  int64_t bytes = 0;
  for (int64_t i = 0; i < count; ++i) {
    sizes.push_back(cpu::kernels().power_iteration.sizes(steps[i], 1));
    bytes = std::max(bytes, whole_memory(steps[i], sizes.back()).bytes());
  }
  const int64_t workers = worker_count(count, work);
  const Workspace workspace(workers * bytes);
  run_tasks(count, workers, [&](int64_t index, int64_t worker) {
    run_step_whole(steps[index], sizes[index], workspace.at(worker * bytes));
  });
}

// Finds what is special about the inner matrices of all steps, and runs them.
inline void inspect_and_run(std::vector<KroneckerStep>& steps, Inspection inspection) {
  const PowerIterationKernel& kernel = cpu::kernels().power_iteration;
  const auto inspect =
      inspection == Inspection::kStructure ? kernel.inspect : kernel.inspect_direction;
  double entries = 0;
  for (const KroneckerStep& step : steps) {
    entries += double(step.left.inner.rows * step.left.inner.rows) +
               double(step.right.inner.rows * step.right.inner.rows);
  }
  const int64_t count = 2 * int64_t(steps.size());
  run_tasks(count, worker_count(count, entries), [&](int64_t index, int64_t) {
    KroneckerStep& step = steps[index / 2];
    inspect(index % 2 == 0 ? step.left : step.right);
  });
  share_out(steps, step_work, run_step_together, run_steps_apart);
}

// Threads take equal ranges of the rows of left, each with a part of right of its own.
inline void run_rearranged(RearrangedProduct product) {
  const PowerIterationKernel& kernel = cpu::kernels().power_iteration;
  const int64_t m = product.l.rows, n = product.r.rows;
  CongruenceSide l_side{product.l, kAbsent, Structure::kGeneral, 1};
  CongruenceSide r_side{product.r, kAbsent, Structure::kGeneral, 1};
  kernel.inspect(l_side);
  kernel.inspect(r_side);
  product.left_symmetric = r_side.symmetric();
  product.right_symmetric = l_side.symmetric();
  const int64_t slices = worker_count(std::max<int64_t>(m, 1), 2 * double(m * n) * double(m * n));
  const int64_t scratch = aligned(kernel.rearranged_scratch_bytes(product));
  const int64_t part = n * n * int64_t(sizeof(double));
  const Workspace workspace(slices * (scratch + part));
  double* rights = reinterpret_cast<double*>(workspace.at(slices * scratch));
  run_tasks(slices, slices, [&](int64_t slice, int64_t) {
    std::memset(rights + slice * n * n, 0, size_t(part));
    kernel.rearranged_rows(product, slice * m / slices, (slice + 1) * m / slices,
                           rights + slice * n * n, workspace.at(slice * scratch));
  });
  kernel.rearranged_finish(product, rights, slices);
}

}  // namespace kronext
