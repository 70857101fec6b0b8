#include "csrc/cpu/kernels.h"

#include "csrc/cpu/inverse_root.h"
#include "csrc/cpu/norms.h"
#include "csrc/cpu/outer.h"
#include "csrc/cpu/power_iteration.h"
#include "csrc/cpu/precondition.h"
#include "csrc/cpu/single_eigh.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const Kernels kKernels{
    .eigh_mixed = kEighMixed,
    .eigh_float = kEighFloat,
    .eigh_double = kEighDouble,
    .single_eigh_mixed = kSingleEighMixed,
    .single_eigh_float = kSingleEighFloat,
    .single_eigh_double = kSingleEighDouble,
    .squared_norm = squared_norm,
    .outer = &kOuter,
    .precondition = &kPrecondition,
    .power_iteration = kPowerIteration,
};

}  // namespace kronext::cpu::KRONEXT_CPU
