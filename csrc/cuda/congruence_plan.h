// Which products a list of KroneckerSteps is made of (congruence.cuh says what they are), and where
// their operands lie.
//
// Samples are taken in rounds that the workspace holds. A round makes its products stage by stage:
// all of a stage and of one arithmetic, whatever the step, are one launch.
#pragma once

#include <map>
#include <vector>

#include "csrc/cuda/congruence.cuh"
#include "csrc/cuda/power_iteration.h"

namespace kronext::cuda {

// Matrices of one shape, at equal distances in memory.
struct Stack {
  Matrix first;
  int64_t stride;  // in elements
  int64_t count;

  Stack transposed() const { return {first.transposed(), stride, count}; }
};

class CongruencePlanner {
 public:
  // Reads the arguments that the plan holds. A null workspace serves to find the sizes.
  CongruencePlanner(const WeightedStep* steps, int64_t count, const KroneckerPlan& plan,
                    void* workspace);

  const Inspections& inspections() const { return inspections_; }
  const std::vector<CongruenceTask>& products() const { return products_; }
  const std::vector<CongruenceSumTask>& sums() const { return sums_; }
  const std::vector<CongruenceLaunch>& launches() const { return launches_; }
  int64_t workspace_bytes() const { return space_.most(); }

 private:
  enum Stage { kForm, kPairs, kTimes, kSquare, kStages };

  // A step, and what follows from its shapes.
  struct Step {
    const WeightedStep* given;
    const Inspected* inspected[2];  // of the inner matrices
    double* sums[2];                // where the samples are more than a round's
    int64_t dim[2];
    int64_t positions;
    bool wide;         // computed in float64
    bool factored;     // never formed
    bool rows_follow;  // the positions of all samples are rows of one matrix
    int64_t block;     // factored samples that are multiplied together
    int64_t bytes;     // of workspace for a sample
  };
  // Consecutive samples of a step.
  struct Group {
    Step* step;
    int64_t first, count;
    bool last;
  };
  struct Extras {
    const Inspected* inner = nullptr;
    const Inspected* mirrored = nullptr;
    bool weighted = false;
    int64_t first_sample = 0;
    int64_t positions = 0;
    int64_t chunks = 0;  // of an output; 0: those of one matrix
  };

  static const CongruenceSide& side_of(const Step& step, int side);
  Step describe(const WeightedStep& given);
  void run_round(const std::vector<Group>& groups);
  void add_whole_side(const Group& group, int side, const Stack& g);
  void add_factored_side(const Group& group, int side);
  void add_square(const Group& group, int side, const Stack& x, const Stack& t);
  void add_product(const Group& group, Stage stage, bool pair, const Stack& left,
                   const Stack& right, const Stack& out, const Extras& extras);
  CongruenceKernel kernel_for(const Step& step, Dtype left, bool pair) const;
  Stack make_stack(const Step& step, int64_t rows, int64_t columns, int64_t count);

  MatmulPrecision precision_;
  DeviceShape device_;
  Placement space_;
  Inspections inspections_;
  std::map<std::pair<Stage, CongruenceKernel>, std::vector<CongruenceTask>> round_products_;
  std::map<bool, std::vector<CongruenceSumTask>> round_sums_;  // of float64 steps, of others
  std::vector<CongruenceTask> products_;
  std::vector<CongruenceSumTask> sums_;
  std::vector<CongruenceLaunch> launches_;
};

}  // namespace kronext::cuda
