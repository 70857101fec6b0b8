#include "csrc/cpu/kernels.h"

#include "csrc/cpu/outer.h"
#include "csrc/cpu/precondition.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const Kernels kKernels{
    .outer = kOuter,
    .precondition = kPrecondition,
};

}  // namespace kronext::cpu::KRONEXT_CPU
