// torch.get_float32_matmul_precision() when an op runs, in a compiled graph too.
//
// torch's stable ABI does not tell, so Python does: kronext/ops/_precision.py.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <array>

#include "csrc/core/matmul_precision.h"

namespace kronext {

inline MatmulPrecision matmul_precision() {
  std::array<StableIValue, 1> stack{};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("kronext::float32_matmul_precision", "",
                                               stack.data(), TORCH_ABI_VERSION));
  return MatmulPrecision(torch::stable::detail::to<int64_t>(stack[0]));
}

}  // namespace kronext
