// Threads that share the independent tasks of one problem.
//
// Kernels get their threads from the caller (torch's pool), as a pointer to a function: csrc/cpu
// instantiates no standard-library templates. Which thread runs a task must never change a result.
#pragma once

#include <stdint.h>

namespace kronext {

struct Team {
  using Task = void (*)(const void* tasks, int64_t index, int64_t worker);

  int64_t workers;  // 1: the calling thread alone, and `run` is not called
  // Calls task(tasks, index, worker) for every index in [0, count); no two at a time with the same
  // worker in [0, workers). Returns when all are done.
  void (*run)(const void* threads, int64_t count, Task task, const void* tasks);
  const void* threads;

  // f(index, worker)
  template <class Tasks>
  void operator()(int64_t count, const Tasks& f) const {
    if (workers <= 1 || count <= 1) {
      for (int64_t index = 0; index < count; ++index) f(index, int64_t(0));
      return;
    }
    run(
        threads, count,
        [](const void* tasks, int64_t index, int64_t worker) {
          (*static_cast<const Tasks*>(tasks))(index, worker);
        },
        &f);
  }
};

}  // namespace kronext
