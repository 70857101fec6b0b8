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

// Matrices of up to so many pairs of panels keep them in shared memory; 0: none.
//
// The resident method reads and writes a third of what the two launches do, but has only a block
// for each pair: one matrix of 512 rows would leave 124 of 132 multiprocessors idle. So the pairs
// of a round must fill three quarters of what the device takes at a time: expected to pay, not
// measured. Bits do not depend on it.
int resident_pairs(const SizeClasses& classes, const DeviceShape& device) {
  constexpr int kMostBlocks = 2;  // of a multiprocessor, by their registers
  const auto fitting = [&](int pairs) {
    return device.shared_bytes / (resident_bytes(pairs) + kReservedSharedBytes);
  };
  int largest = 0;
  int64_t pairs = 0;
  for (int c = 0; c < classes.count; ++c) {
    const SizeClass& each = classes.each[c];
    if (fitting(each.pairs) == 0) continue;
    largest = std::max(largest, each.pairs);
    pairs += int64_t(each.pairs) * each.matrices;
  }
  const int64_t together =
      int64_t(device.multiprocessors) * std::min(fitting(largest), kMostBlocks);
  const int64_t turns = (pairs + together - 1) / together;
  return 4 * pairs >= 3 * turns * together ? largest : 0;
}

// ---- launching ---------------------------------------------------------------------------------

// Matrices by their number of pairs of panels.
struct PairRange {
  int least = 1, most = kMaxPairs;
};
constexpr PairRange kEvery;

// The launches of one call; after one that failed, none follows.
class Launches {
 public:
  Launches(const PanelEighPlan& plan, const void* table, void* workspace, cudaStream_t stream)
      : status(cudaMemsetAsync(workspace, 0, size_t(plan.state_bytes), stream)),
        plan_(plan),
        tasks_(static_cast<const PanelTask*>(table)),
        workspace_(static_cast<unsigned char*>(workspace)),
        stream_(stream) {}

  // For the matrices of a range, if there are any.
  template <class Items, class Kernel, class... Arguments>
  void run(Kernel kernel, int shared_bytes, const PairRange& range, Arguments... arguments) {
    SizeClasses classes;
    int64_t blocks = 0;
    const PanelTask* tasks = tasks_;
    for (int c = 0; c < plan_.classes.count; ++c) {
      const SizeClass& each = plan_.classes.each[c];
      if (each.pairs > range.most) tasks += each.matrices;
      if (each.pairs < range.least || each.pairs > range.most) continue;
      classes.each[classes.count++] = each;
      blocks += int64_t(each.matrices) * Items::blocks(each.pairs);
    }
    if (blocks == 0 || status != cudaSuccess) return;
    status = launch(kernel, {blocks, kTileThreads, shared_bytes}, stream_, tasks, workspace_,
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
  launches.run<ForEachLowerTile>(basis_defect_kernel, kTileBytes<float>, kEvery);
  launches.run<ForEachTile>(mend_basis_kernel, kTileBytes<float>, kEvery);
  launches.run<ForEachTile>(multiply_basis_kernel<Wide>, kTileBytes<float>, kEvery);
  launches.run<ForEachLowerTile>(project_kernel<Wide>, kTileBytes<Wide>, kEvery);
}

template <class Wide>
void factor(Launches& launches, int largest) {
  for (int attempt = 0; attempt < shift_attempts(largest); ++attempt) {
    for (int step = 0; step * kPanel < largest; ++step) {
      launches.run<ForEachLowerTile>(eliminate_kernel<Wide>, kEliminateBytes<Wide>, {step / 2 + 1},
                                     attempt, step);
    }
  }
}

void sweep(Launches& launches, int largest, int resident) {
  const int rounds = 2 * pairs_of(largest) - 1;
  for (int sweep = 0; sweep < kPanelSweeps; ++sweep) {
    for (int round = 0; round < rounds; ++round) {
      const int least = (round + 1) / 2 + 1;  // smaller matrices have fewer rounds
      const PairRange in_two_launches = {std::max(least, resident + 1)};
      launches.run<ForEachPair>(resident_pair_kernel, resident_bytes(resident), {least, resident},
                                sweep, round);
      launches.run<ForEachGramPart>(gram_kernel, kGramBytes, in_two_launches, sweep, round);
      launches.run<ForEachTile>(update_kernel, kTileBytes<float>, in_two_launches, sweep, round);
    }
  }
}

template <class Wide>
cudaError_t run(const PanelEighPlan& plan, Launches& launches, const SpectralOptions& options) {
  launches.run<ForEachStrip>(measure_kernel, 0, kEvery);
  if (plan.warm) project_on_bases<Wide>(launches);
  factor<Wide>(launches, plan.largest);
  if (plan.warm) launches.run<ForEachTile>(orient_kernel, kTileBytes<float>, kEvery);
  sweep(launches, plan.largest, plan.resident_pairs);
  if (plan.values) launches.run<ForEachTile>(form_kernel<Wide>, kTileBytes<Wide>, kEvery);
  launches.run<ForEachStrip>(spectrum_kernel, kSpectrumBytes, kEvery, options);
  if (plan.vectors) launches.run<ForEachTile>(vectors_kernel, 0, kEvery);
  if (plan.roots) launches.run<ForEachLowerTile>(root_kernel, kTileBytes<float>, kEvery, options);
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
  plan.resident_pairs = resident_pairs(plan.classes, device);
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
