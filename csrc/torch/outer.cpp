#include "csrc/torch/outer.h"

#include <torch/csrc/stable/library.h>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/matmul_precision.h"
#include "csrc/torch/parallel.h"

namespace kronext {

static void update_sides(const char*, const Tensor&, std::vector<OuterSide>& sides) {
  const cpu::ProductKernel<OuterSide>& kernel = *cpu::kernels().outer;
  set_parts(kernel, sides);
  run_jobs(kernel.job, sides);
}

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def(
      "outer_update_(Tensor(a!)? L, Tensor(b!)? R, Tensor G, *, float decay, float weight) -> ()");
  m.def(
      "outer_update_list_(Tensor(a!)[] Ls, Tensor(b!)[] Rs, Tensor[] Gs, *, float[] decay, "
      "float[] weight, int[] left_places=[], int[] right_places=[]) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("outer_update_", TORCH_BOX(&outer_update_<update_sides>));
  m.impl("outer_update_list_", TORCH_BOX(&outer_update_list_<update_sides>));
}

}  // namespace kronext
