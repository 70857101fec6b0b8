#include "csrc/cpu/kernels.h"

#include "csrc/cpu/inverse_root.h"
#include "csrc/cpu/outer.h"
#include "csrc/cpu/power_iteration.h"
#include "csrc/cpu/precondition.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const Kernels kKernels{
    .eigh_single = {eigh_group_size, eigh_workspace_bytes<float>, eigh_group<float>},
    .eigh_double = {eigh_group_size, eigh_workspace_bytes<double>, eigh_group<double>},
    .outer = kOuter,
    .power_iteration = kPowerIteration,
    .precondition = kPrecondition,
};

}  // namespace kronext::cpu::KRONEXT_CPU
