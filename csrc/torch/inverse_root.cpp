#include "csrc/torch/inverse_root.h"

#include <torch/csrc/stable/library.h>

#include "csrc/torch/spectral.h"

namespace kronext {

static void solve(const Request& request, const std::vector<SpectralBatch>& batches,
                  const Tensor& info) {
  std::vector<SpectralProblem> narrow, wide;
  for (const SpectralBatch& batch : batches) {
    std::vector<SpectralProblem>& list = batch.wide() ? wide : narrow;
    for_each_problem(batch, [&](const SpectralProblem& problem) { list.push_back(problem); });
  }
  int32_t* out = static_cast<int32_t*>(info.data_ptr());
  solve_spectral<float>(narrow, request, out);
  solve_spectral<double>(wide, request, out);
}

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def(
      "eigh(Tensor A, *, str precision='mixed', Tensor? basis=None) -> (Tensor values, Tensor "
      "vectors, Tensor info)");
  m.def(
      "inverse_root(Tensor A, float root, *, float eps=0.0, float relative_eps=0.0, "
      "str precision='mixed', Tensor? basis=None) -> (Tensor root, Tensor basis, Tensor values, "
      "Tensor info)");
  m.def(
      "inverse_root_list(Tensor[] As, float root, *, float eps=0.0, float relative_eps=0.0, "
      "str precision='mixed', Tensor[] bases) -> (Tensor[] roots, Tensor[] bases, Tensor[] values, "
      "Tensor info)");
  m.def(
      "inverse_root_(Tensor(a!) out, Tensor A, float root, *, float eps=0.0, "
      "float relative_eps=0.0, str precision='mixed', Tensor? basis=None) -> Tensor info");
  m.def(
      "inverse_root_list_(Tensor(a!)[] outs, Tensor[] As, float root, *, float eps=0.0, "
      "float relative_eps=0.0, str precision='mixed', Tensor[] bases) -> Tensor info");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("eigh", TORCH_BOX(&eigh<solve>));
  m.impl("inverse_root", TORCH_BOX(&inverse_root<solve>));
  m.impl("inverse_root_list", TORCH_BOX(&inverse_root_list<solve>));
  m.impl("inverse_root_", TORCH_BOX(&inverse_root_<solve>));
  m.impl("inverse_root_list_", TORCH_BOX(&inverse_root_list_<solve>));
}

}  // namespace kronext
