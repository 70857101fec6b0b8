#include "csrc/torch/precondition.h"

#include <torch/csrc/stable/library.h>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/parallel.h"

namespace kronext {

static void make_products(const char*, const Tensor&, std::vector<PreconditionProblem>& problems) {
  run_jobs(cpu::kernels().precondition, problems);
}

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def("precondition(Tensor G, Tensor? left, Tensor? right) -> Tensor");
  m.def("precondition_list(Tensor[] Gs, Tensor[] lefts, Tensor[] rights) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("precondition", TORCH_BOX(&precondition<make_products>));
  m.impl("precondition_list", TORCH_BOX(&precondition_list<make_products>));
}

}  // namespace kronext
