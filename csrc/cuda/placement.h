// Where things lie in a table or a workspace.
#pragma once

#include <stdint.h>

#include <cstring>
#include <vector>

#include "csrc/cuda/tile_plan.h"

namespace kronext::cuda {

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Gives away a piece of memory that begins at `base`, which may be null to find the size.
class Placement {
 public:
  explicit Placement(void* base = nullptr) : base_(static_cast<char*>(base)) {}

  template <class T = void>
  T* take(int64_t bytes) {
    char* const at = base_ + bytes_;
    bytes_ += align(bytes);
    most_ = bytes_ > most_ ? bytes_ : most_;
    return reinterpret_cast<T*>(at);
  }
  int64_t bytes() const { return bytes_; }
  int64_t most() const { return most_; }  // that was ever in use
  // Gives back what was taken since `bytes` was returned.
  void give_back_to(int64_t bytes) { bytes_ = bytes; }

 private:
  char* base_;
  int64_t bytes_ = 0, most_ = 0;
};

// Puts tasks into a table that is being filled.
template <class Task>
void put(const std::vector<Task>& tasks, Placement& table) {
  const int64_t bytes = int64_t(tasks.size() * sizeof(Task));
  Task* const to = table.take<Task>(bytes);
  if (bytes > 0) std::memcpy(to, tasks.data(), size_t(bytes));
}

// Finds them there again.
template <class Task>
const Task* get(int64_t count, Placement& table) {
  return table.take<Task>(count * int64_t(sizeof(Task)));
}

}  // namespace kronext::cuda
