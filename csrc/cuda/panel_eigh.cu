#include "csrc/cuda/panel_eigh.h"

#include <algorithm>
#include <numeric>

#include "csrc/cuda/panel_cholesky.cuh"
#include "csrc/cuda/panel_results.cuh"
#include "csrc/cuda/panel_start.cuh"
#include "csrc/cuda/panel_sweep.cuh"

namespace kronext::cuda {
namespace {

// ---- planning ----------------------------------------------------------------------------------

int64_t workspace_of(const SpectralTask& task) {
  return PanelLayout(task.n, task.basis != nullptr).bytes;
}

SizeClasses classes_of(const std::vector<int64_t>& members, const SpectralTask* tasks) {
  SizeClasses classes;
  for (const int64_t i : members) {
    const int pairs = pairs_of(tasks[i].n);
    if (classes.count == 0 || classes.each[classes.count - 1].pairs != pairs) {
      classes.each[classes.count++] = {pairs, 0};
    }
    ++classes.each[classes.count - 1].matrices;
  }
  return classes;
}

// ---- launching ---------------------------------------------------------------------------------

// The launches of one call; after one that failed, none follows.
class Launches {
 public:
  Launches(const PanelEighPlan& plan, const void* table, void* workspace, cudaStream_t stream)
      : status(cudaMemsetAsync(workspace, 0, size_t(plan.state_bytes), stream)),
        plan_(plan),
        tasks_(static_cast<const PanelTask*>(table)),
        workspace_(static_cast<unsigned char*>(workspace)),
        stream_(stream) {}

  // For matrices of `pairs` pairs of panels or more.
  template <class Items, class Kernel, class... Arguments>
  void run(Kernel kernel, int shared_bytes, int pairs, Arguments... arguments) {
    SizeClasses classes;
    int64_t blocks = 0;
    for (int c = 0; c < plan_.classes.count && plan_.classes.each[c].pairs >= pairs; ++c) {
      classes.each[classes.count++] = plan_.classes.each[c];
      blocks += int64_t(classes.each[c].matrices) * Items::blocks(classes.each[c].pairs);
    }
    if (status != cudaSuccess) return;
    status = launch(kernel, {blocks, kTileThreads, shared_bytes}, stream_, tasks_, workspace_,
                    classes, arguments...);
  }

  cudaError_t status;

 private:
  const PanelEighPlan& plan_;
  const PanelTask* tasks_;
  unsigned char* workspace_;
  cudaStream_t stream_;
};

template <class Wide>
void project_on_bases(Launches& launches) {
  launches.run<ForEachLowerTile>(basis_defect_kernel, kTileBytes<float>, 0);
  launches.run<ForEachTile>(mend_basis_kernel, kTileBytes<float>, 0);
  launches.run<ForEachTile>(multiply_basis_kernel<Wide>, kTileBytes<float>, 0);
  launches.run<ForEachLowerTile>(project_kernel<Wide>, kTileBytes<Wide>, 0);
}

template <class Wide>
void factor(Launches& launches, int largest) {
  for (int attempt = 0; attempt < shift_attempts(largest); ++attempt) {
    for (int step = 0; step * kPanel < largest; ++step) {
      launches.run<ForEachLowerTile>(eliminate_kernel<Wide>, kEliminateBytes<Wide>, step / 2 + 1,
                                     attempt, step);
    }
  }
}

void sweep(Launches& launches, int largest) {
  const int rounds = 2 * pairs_of(largest) - 1;
  for (int sweep = 0; sweep < kPanelSweeps; ++sweep) {
    for (int round = 0; round < rounds; ++round) {
      const int pairs = (round + 1) / 2 + 1;  // smaller matrices have fewer rounds
      launches.run<ForEachGramPart>(gram_kernel, kGramBytes, pairs, sweep, round);
      launches.run<ForEachTile>(update_kernel, kTileBytes<float>, pairs, sweep, round);
    }
  }
}

template <class Wide>
cudaError_t run(const PanelEighPlan& plan, Launches& launches, const SpectralOptions& options) {
  launches.run<ForEachStrip>(measure_kernel, 0, 0);
  if (plan.warm) project_on_bases<Wide>(launches);
  factor<Wide>(launches, plan.largest);
  if (plan.warm) launches.run<ForEachTile>(orient_kernel, kTileBytes<float>, 0);
  sweep(launches, plan.largest);
  if (plan.values) launches.run<ForEachTile>(form_kernel<Wide>, kTileBytes<Wide>, 0);
  launches.run<ForEachStrip>(spectrum_kernel, kSpectrumBytes, 0, options);
  if (plan.vectors) launches.run<ForEachTile>(vectors_kernel, 0, 0);
  if (plan.roots) launches.run<ForEachLowerTile>(root_kernel, kTileBytes<float>, 0, options);
  return launches.status;
}

}  // namespace

PanelEighPlan plan_panel_eigh(const SpectralTask* tasks, int64_t count, const DeviceShape& device) {
  PanelEighPlan plan;
  plan.two_floats = device.slow_double;
  for (int64_t i = 0; i < count; ++i) {
    const bool taken = tasks[i].n > 0 && tasks[i].n <= kLargestPanelMatrix;
    (taken ? plan.members : plan.left_out).push_back(i);
  }
  std::stable_sort(plan.members.begin(), plan.members.end(),
                   [&](int64_t a, int64_t b) { return tasks[a].n > tasks[b].n; });
  plan.classes = classes_of(plan.members, tasks);
  const int64_t matrices = int64_t(plan.members.size());
  plan.state_bytes = PanelLayout::aligned(matrices * int64_t(sizeof(PanelState)));
  plan.table_bytes = matrices * int64_t(sizeof(PanelTask));
  plan.workspace_bytes = plan.state_bytes;
  for (const int64_t i : plan.members) {
    plan.largest = std::max(plan.largest, int(tasks[i].n));
    plan.warm |= tasks[i].basis != nullptr;
    plan.values |= tasks[i].values != nullptr;
    plan.vectors |= tasks[i].vectors != nullptr;
    plan.roots |= tasks[i].root != nullptr;
    plan.workspace_bytes += workspace_of(tasks[i]);
  }
  return plan;
}

void fill_panel_eigh_table(const PanelEighPlan& plan, const SpectralTask* tasks, void* table) {
  auto* to = static_cast<PanelTask*>(table);
  int64_t state_at = 0, space_at = plan.state_bytes;
  for (const int64_t i : plan.members) {
    *to++ = {tasks[i], state_at, space_at};
    state_at += int64_t(sizeof(PanelState));
    space_at += workspace_of(tasks[i]);
  }
}

cudaError_t panel_eigh(const PanelEighPlan& plan, const void* table, void* workspace,
                       const SpectralOptions& options, cudaStream_t stream) {
  if (plan.members.empty()) return cudaSuccess;
  Launches launches(plan, table, workspace, stream);
  return plan.two_floats ? run<TwoFloat>(plan, launches, options)
                         : run<double>(plan, launches, options);
}

}  // namespace kronext::cuda
