// torch.get_float32_matmul_precision() when an op runs, in a compiled graph too.
//
// torch's stable ABI does not tell, so Python does: kronext/ops/_precision.py.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <vector>

#include "csrc/core/matmul_precision.h"

namespace kronext {

enum class Backend { kCpu, kCuda };

inline MatmulPrecision matmul_precision(Backend backend) {
  using torch::stable::detail::from, torch::stable::detail::to;
  std::array<StableIValue, 1> stack{from(backend == Backend::kCuda)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("kronext::float32_matmul_precision", "",
                                               stack.data(), TORCH_ABI_VERSION));
  return MatmulPrecision(to<int64_t>(stack[0]));
}

// Tells the problems of a CPU kernel (csrc/cpu/kernels.h: ProductKernel) the precision, where it
// counts: asking takes a microsecond.
template <class Kernel, class Problem>
void set_parts(const Kernel& kernel, std::vector<Problem>& problems) {
  if (!std::ranges::any_of(problems, kernel.depends_on_precision)) return;
  const int parts = parts_of(matmul_precision(Backend::kCpu));
  for (Problem& problem : problems) problem.parts = parts;
}

}  // namespace kronext
