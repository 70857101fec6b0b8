#include "csrc/cuda/precondition.h"

#include <torch/csrc/stable/library.h>

#include "csrc/torch/cuda_device.h"
#include "csrc/torch/matmul_precision.h"
#include "csrc/torch/precondition.h"

namespace kronext {

static void make_products(const char* op, const Tensor& where,
                          std::vector<PreconditionProblem>& problems, void* squares) {
  const CudaDevice device(op, where);
  const cuda::PreconditionPlan plan =
      cuda::plan_precondition(problems.data(), int64_t(problems.size()),
                              matmul_precision(Backend::kCuda), device.shape(), squares != nullptr);
  device.run(
      plan,
      [&](void* table, void* workspace) {
        cuda::fill_precondition_table(plan, problems.data(), squares, workspace, table);
      },
      [&](const void* table, void* workspace) {
        return cuda::precondition(plan, table, workspace, device.stream());
      });
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CUDA, m) {
  m.impl("precondition", TORCH_BOX(&precondition<make_products>));
  m.impl("precondition_list", TORCH_BOX(&precondition_list<make_products>));
  m.impl("precondition_list_with_squares",
         TORCH_BOX(&precondition_list_with_squares<make_products>));
}

}  // namespace kronext
