// Threads and scratch memory, both torch's own.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "csrc/core/job.h"
#include "csrc/torch/batch.h"

namespace kronext {

// Operations that are worth waking a thread for.
constexpr int64_t kWorkPerThread = 200'000;

inline int64_t worker_count(int64_t tasks, double work) {
  const int64_t threads = int64_t(torch::stable::get_num_threads());
  const int64_t useful = 1 + int64_t(work / kWorkPerThread);
  return std::max<int64_t>(1, std::min({threads, tasks, useful}));
}

// Calls task(index, worker) once for each index in [0, count). Workers take the next index as they
// become free, so tasks should come with the largest first; which worker makes a result never
// changes the result. Tasks must not throw.
template <class Task>
void run_tasks(int64_t count, int64_t workers, const Task& task) {
  if (workers <= 1) {
    for (int64_t index = 0; index < count; ++index) task(index, int64_t(0));
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t index; (index = next.fetch_add(1)) < count;) task(index, worker);
    }
  });
}

// Uninitialised memory from torch's allocator, 64-byte aligned.
//
// A thread keeps its last one, up to kMostKept: new memory costs a page fault every 4 KiB, which
// for a few matrices is more than the work that they make.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) {
    thread_local Kept kept;
    if (bytes > kMostKept || kept.in_use) {
      own_ = empty_on_cpu({bytes}, torch::headeronly::ScalarType::Byte);
      memory_ = static_cast<char*>(own_->data_ptr());
      return;
    }
    if (kept.bytes < bytes) {
      kept.storage.reset();
      kept.bytes = 0;  // should there be no memory for more
      kept.storage = empty_on_cpu({bytes}, torch::headeronly::ScalarType::Byte);
      kept.bytes = bytes;
    }
    kept.in_use = true;
    kept_ = &kept;
    memory_ = bytes ? static_cast<char*>(kept.storage->data_ptr()) : nullptr;
  }
  ~Workspace() {
    if (kept_) kept_->in_use = false;
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  char* at(int64_t offset) const { return memory_ + offset; }

 private:
  static constexpr int64_t kMostKept = int64_t(64) << 20;
  struct Kept {
    std::optional<Tensor> storage;
    int64_t bytes = 0;
    bool in_use = false;
  };

  std::optional<Tensor> own_;
  Kept* kept_ = nullptr;
  char* memory_;
};

inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Shares a ragged list between the threads. Items with more than half of a thread's fair share of
// what is left go to `together(item)`, on all threads at once; the rest, the largest first, to
// `apart(items, count, work)`, each on one thread. Work is counted in operations. One thread takes
// the items as they are, and counts no work: its amount only says how many threads to wake.
template <class Item, class Work, class Together, class Apart>
void share_out(std::vector<Item>& items, const Work& work, const Together& together,
               const Apart& apart) {
  const double threads = double(torch::stable::get_num_threads());
  if (threads <= 1) return apart(items.data(), int64_t(items.size()), 0);
  // Lists of many equal items are the longest ones.
  if (!std::ranges::is_sorted(items, std::greater{}, work)) {
    std::ranges::sort(items, std::greater{}, work);
  }
  double rest = 0;
  for (const Item& item : items) rest += work(item);
  size_t first = 0;
  for (; first < items.size() && work(items[first]) * 2 * threads > rest; ++first) {
    rest -= work(items[first]);
    together(items[first]);
  }
  apart(items.data() + first, int64_t(items.size() - first), rest);
}

// A problem so large that one thread would keep the others waiting: all of them share its steps.
template <class Problem>
void run_job_together(const JobKernel<Problem>& kernel, const Problem& problem) {
  const int64_t pack_steps = kernel.pack_steps(problem), steps = kernel.steps(problem);
  const int64_t workers = worker_count(std::max(steps, pack_steps), kernel.work(problem));
  const int64_t shared = aligned(kernel.shared_bytes(problem));
  const int64_t scratch = aligned(kernel.scratch_bytes(problem));
  const Workspace space(shared + workers * scratch);
  run_tasks(pack_steps, workers,
            [&](int64_t step, int64_t) { kernel.pack(problem, step, space.at(0)); });
  run_tasks(steps, workers, [&](int64_t step, int64_t worker) {
    kernel.run(problem, step, space.at(0), space.at(shared + worker * scratch));
  });
}

// Of a small problem, what the caches do not hold takes longer to arrive than to work on: it is
// sent for a slice at a time while the problem before is computed. A large one has its own streams.
template <class Problem>
class Prefetch {
 public:
  Prefetch(const JobKernel<Problem>& kernel, const Problem& now, const Problem& next,
           int64_t slices)
      : slices_(slices) {
    Operand here[kMaxOperands], there[kMaxOperands];
    const int known = kernel.operands(now, here), wanted = kernel.operands(next, there);
    int64_t bytes = 0;
    for (const Operand& operand : std::span(there, wanted)) {
      bytes += bytes_of(operand.matrix);
      const bool is_here = std::ranges::any_of(std::span(here, known), [&](const Operand& other) {
        return other.matrix.data == operand.matrix.data;
      });
      if (!is_here) operands_[count_++] = operand;
    }
    if (bytes > kMostBytes) count_ = 0;
  }
  void next_slice() {
    for (int i = 0; i < count_; ++i) prefetch_slice(operands_[i], slice_, slices_);
    ++slice_;
  }

 private:
  // A quarter of a usual second-level cache.
  static constexpr int64_t kMostBytes = 256 * 1024;

  Operand operands_[kMaxOperands];
  int count_ = 0;
  int64_t slice_ = 0, slices_;
};

// Problems that one thread takes whole.
template <class Problem>
void run_jobs_apart(const JobKernel<Problem>& kernel, const Problem* problems, int64_t count,
                    double work) {
  int64_t shared = 0, scratch = 0;
  for (int64_t i = 0; i < count; ++i) {
    shared = std::max(shared, aligned(kernel.shared_bytes(problems[i])));
    scratch = std::max(scratch, aligned(kernel.scratch_bytes(problems[i])));
  }
  const int64_t workers = worker_count(count, work);
  const Workspace space(workers * (shared + scratch));
  run_tasks(count, workers, [&](int64_t index, int64_t worker) {
    const Problem& problem = problems[index];
    char* memory = space.at(worker * (shared + scratch));
    const int64_t pack_steps = kernel.pack_steps(problem), steps = kernel.steps(problem);
    // The one that this worker will probably take next.
    Prefetch ahead(kernel, problem, problems[std::min(index + workers, count - 1)],
                   pack_steps + steps);
    for (int64_t step = 0; step < pack_steps; ++step) {
      ahead.next_slice();
      kernel.pack(problem, step, memory);
    }
    for (int64_t step = 0; step < steps; ++step) {
      ahead.next_slice();
      kernel.run(problem, step, memory, memory + shared);
    }
  });
}

// Solves a ragged list of problems.
template <class Problem>
void run_jobs(const JobKernel<Problem>& kernel, std::vector<Problem>& problems) {
  share_out(
      problems, kernel.work, [&](const Problem& problem) { run_job_together(kernel, problem); },
      [&](const Problem* rest, int64_t count, double work) {
        run_jobs_apart(kernel, rest, count, work);
      });
}

}  // namespace kronext
