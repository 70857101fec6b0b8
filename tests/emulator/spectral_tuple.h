// A matrix for the eigensolvers, as Python describes it.
#pragma once

#include <tuple>
#include <vector>

#include "csrc/cuda/spectral_task.h"

namespace kronext::emulator {

// Addresses of matrix, basis, values, vectors, root and info; row stride; n.
using SpectralTuple =
    std::tuple<uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, int64_t, int32_t>;

inline cuda::SpectralTask spectral_task(const SpectralTuple& t) {
  const auto& [matrix, basis, values, vectors, root, info, row_stride, n] = t;
  const auto pointer = [](uintptr_t address) { return reinterpret_cast<float*>(address); };
  return {pointer(matrix),
          row_stride,
          pointer(basis),
          pointer(values),
          pointer(vectors),
          pointer(root),
          reinterpret_cast<int32_t*>(info),
          n};
}

inline std::vector<cuda::SpectralTask> spectral_tasks(const std::vector<SpectralTuple>& list) {
  std::vector<cuda::SpectralTask> tasks;
  for (const SpectralTuple& t : list) tasks.push_back(spectral_task(t));
  return tasks;
}

}  // namespace kronext::emulator
