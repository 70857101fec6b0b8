#include "csrc/torch/precondition.h"

#include <torch/csrc/stable/library.h>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/matmul_precision.h"
#include "csrc/torch/parallel.h"

namespace kronext {

// What each step of a problem's kernel leaves is added in their order.
template <class T>
static void add_squares(const std::vector<int64_t>& ends, const std::vector<double>& parts,
                        void* squares) {
  int64_t at = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    double sum = 0;
    for (; at < ends[i]; ++at) sum += parts[size_t(at)];
    static_cast<T*>(squares)[i] = T(sum);
  }
}

static void make_products(const char*, const Tensor&, std::vector<PreconditionProblem>& problems,
                          void* squares) {
  set_parts(*cpu::kernels().precondition, problems);
  const JobKernel<PreconditionProblem>& kernel = cpu::kernels().precondition->job;
  if (!squares) return run_jobs(kernel, problems);
  std::vector<int64_t> ends;
  int64_t steps = 0;
  for (const PreconditionProblem& problem : problems) {
    ends.push_back(steps += kernel.steps(problem));
  }
  std::vector<double> parts(static_cast<size_t>(steps));
  for (size_t i = 0; i < problems.size(); ++i) {
    problems[i].squares = parts.data() + (ends[i] - kernel.steps(problems[i]));
  }
  const bool wide = !problems.empty() && problems[0].out.dtype == Dtype::kFloat64;
  run_jobs(kernel, problems);
  wide ? add_squares<double>(ends, parts, squares) : add_squares<float>(ends, parts, squares);
}

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def("precondition(Tensor G, Tensor? left, Tensor? right) -> Tensor");
  m.def("precondition_list(Tensor[] Gs, Tensor[] lefts, Tensor[] rights) -> Tensor[]");
  m.def(
      "precondition_list_with_squares(Tensor[] Gs, Tensor[] lefts, Tensor[] rights) -> "
      "(Tensor[], Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("precondition", TORCH_BOX(&precondition<make_products>));
  m.impl("precondition_list", TORCH_BOX(&precondition_list<make_products>));
  m.impl("precondition_list_with_squares",
         TORCH_BOX(&precondition_list_with_squares<make_products>));
}

}  // namespace kronext
