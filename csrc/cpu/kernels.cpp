#include "csrc/cpu/kernels.h"

#include "csrc/cpu/inverse_root.h"
#include "csrc/cpu/norms.h"
#include "csrc/cpu/outer.h"
#include "csrc/cpu/power_iteration.h"
#include "csrc/cpu/precondition.h"
#include "csrc/cpu/similarity.h"
#include "csrc/cpu/warm_start.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const Kernels kKernels{
    .eigh_mixed = kEighMixed,
    .eigh_float = kEighFloat,
    .eigh_double = kEighDouble,
    .squared_norm = squared_norm,
    .outer = &kOuter,
    .power_iteration = kPowerIteration,
    .precondition = kPrecondition,
    .similarity = kSimilarity,
    .warm_start = kWarmStart,
};

}  // namespace kronext::cpu::KRONEXT_CPU
