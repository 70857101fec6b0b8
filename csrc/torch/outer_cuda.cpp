#include "csrc/cuda/outer.h"

#include <torch/csrc/stable/library.h>

#include "csrc/torch/cuda_device.h"
#include "csrc/torch/matmul_precision.h"
#include "csrc/torch/outer.h"

namespace kronext {

static void update_sides(const char* op, const Tensor& where, std::vector<OuterSide>& sides) {
  const CudaDevice device(op, where);
  const cuda::OuterPlan plan = cuda::plan_outer(sides.data(), int64_t(sides.size()),
                                                matmul_precision(Backend::kCuda), device.shape());
  device.run(
      plan, [&](void* table, void*) { cuda::fill_outer_table(plan, sides.data(), table); },
      [&](const void* table, void* workspace) {
        return cuda::outer_update(plan, table, workspace, device.stream());
      });
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CUDA, m) {
  m.impl("outer_update_", TORCH_BOX(&outer_update_<update_sides>));
  m.impl("outer_update_list_", TORCH_BOX(&outer_update_list_<update_sides>));
}

}  // namespace kronext
