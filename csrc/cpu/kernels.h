// The CPU kernels behind one table of function pointers for each instruction set.
#pragma once

#include "csrc/core/job.h"
#include "csrc/core/outer.h"
#include "csrc/core/precondition.h"

namespace kronext::cpu {

struct Kernels {
  const JobKernel<OuterSide>& outer;
  const JobKernel<PreconditionProblem>& precondition;
};

// The table of the capability in use (capability.h).
const Kernels& kernels();

namespace portable {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

}  // namespace kronext::cpu
