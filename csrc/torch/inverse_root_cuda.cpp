// Which solver takes which matrix:
//
//   float32, n up to 160       one launch, resident in shared memory (csrc/cuda/inverse_root.h)
//   float32, n up to 2048      panels (csrc/cuda/panel_eigh.h)
//   float32 beyond, float64    torch.linalg.eigh (kronext/ops/_linalg.py): waits for the device
#include "csrc/cuda/inverse_root.h"

#include <torch/csrc/stable/library.h>

#include "csrc/cuda/panel_eigh.h"
#include "csrc/torch/cuda_device.h"
#include "csrc/torch/inverse_root.h"

namespace kronext {
namespace {

cuda::SpectralTask task_of(const SpectralProblem& p, int32_t* info) {
  return {static_cast<const float*>(p.matrix),
          p.n,
          static_cast<const float*>(p.basis),
          static_cast<float*>(p.values),
          static_cast<float*>(p.vectors),
          static_cast<float*>(p.root),
          info + p.info,
          int32_t(p.n)};
}

void solve_by_kernels(const CudaDevice& device, const std::vector<cuda::SpectralTask>& tasks,
                      const cuda::SpectralOptions& options) {
  const cuda::InverseRootPlan plan =
      cuda::plan_inverse_root(tasks.data(), int64_t(tasks.size()), device.shape());
  device.run(
      plan, [&](void* table, void*) { cuda::fill_inverse_root_table(plan, tasks.data(), table); },
      [&](const void* table, void*) {
        return cuda::inverse_root(plan, table, options, device.stream());
      });
  if (plan.large.empty()) return;
  std::vector<cuda::SpectralTask> large;
  for (int64_t member : plan.large) large.push_back(tasks[size_t(member)]);
  const cuda::PanelEighPlan panels =
      cuda::plan_panel_eigh(large.data(), int64_t(large.size()), device.shape());
  device.run(
      panels, [&](void* table, void*) { cuda::fill_panel_eigh_table(panels, large.data(), table); },
      [&](const void* table, void* workspace) {
        return cuda::panel_eigh(panels, table, workspace, options, device.stream());
      });
}

void copy(const std::optional<Tensor>& to, const Tensor& from) {
  if (!to) return;
  Tensor target = *to;
  torch::stable::copy_(target, from);
}

void solve_by_linalg(const Request& request, const SpectralBatch& batch, const Tensor& info) {
  using torch::stable::detail::from;
  const Damping damping = request.damping.value_or(Damping{1, 0, 0, 0});
  const std::optional<Tensor> kept = request.keep_failed ? batch.results.roots : std::nullopt;
  std::array<StableIValue, 5> stack{from(batch.a), from(damping.root), from(damping.eps),
                                    from(damping.relative_eps), from(kept)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("kronext::inverse_root_by_linalg", "", stack.data(),
                                               TORCH_ABI_VERSION));
  const auto result = [&](int i) { return torch::stable::detail::to<Tensor>(stack[size_t(i)]); };
  const Tensor roots = result(0), vectors = result(1), values = result(2), status = result(3);
  copy(batch.results.roots, roots);
  copy(batch.results.vectors, vectors);
  copy(batch.results.values, values);
  Tensor flat = torch::stable::view(info, {info.numel()});
  copy(torch::stable::narrow(flat, 0, batch.info, batch.count()),
       torch::stable::view(status, {batch.count()}));
}

void solve(const Request& request, const std::vector<SpectralBatch>& batches, const Tensor& info) {
  const CudaDevice device(request.op, info);
  std::vector<cuda::SpectralTask> tasks;
  for (const SpectralBatch& batch : batches) {
    if (batch.wide() || batch.n() > cuda::kLargestPanelMatrix) {
      solve_by_linalg(request, batch, info);
      continue;
    }
    for_each_problem(batch, [&](const SpectralProblem& problem) {
      tasks.push_back(task_of(problem, static_cast<int32_t*>(info.data_ptr())));
    });
  }
  Damping damping = request.damping.value_or(Damping{1, 0, 0, 0});
  damping.cutoff = undamped_cutoff<float>(0);
  if (!tasks.empty()) solve_by_kernels(device, tasks, {damping, request.keep_failed});
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kronext, CUDA, m) {
  m.impl("eigh", TORCH_BOX(&eigh<solve>));
  m.impl("inverse_root", TORCH_BOX(&inverse_root<solve>));
  m.impl("inverse_root_list", TORCH_BOX(&inverse_root_list<solve>));
  m.impl("inverse_root_", TORCH_BOX(&inverse_root_<solve>));
  m.impl("inverse_root_list_", TORCH_BOX(&inverse_root_list_<solve>));
}

}  // namespace kronext
