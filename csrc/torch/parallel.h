// Threads and scratch memory, both torch's own.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>

#include "csrc/torch/check.h"

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
class Workspace {
 public:
  explicit Workspace(int64_t bytes)
      : storage_(torch::stable::empty({bytes}, torch::headeronly::ScalarType::Byte)) {}
  char* at(int64_t offset) const { return static_cast<char*>(storage_.data_ptr()) + offset; }

 private:
  Tensor storage_;
};

inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace kronext
