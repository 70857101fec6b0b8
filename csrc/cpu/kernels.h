// The CPU kernels behind one table of function pointers for each instruction set.
#pragma once

#include "csrc/core/inverse_root.h"
#include "csrc/core/job.h"
#include "csrc/core/norms.h"
#include "csrc/core/outer.h"
#include "csrc/core/power_iteration.h"
#include "csrc/core/precondition.h"
#include "csrc/core/single_eigh.h"

namespace kronext::cpu {

struct OuterKernel {
  JobKernel<OuterSide> job;
  bool (*depends_on_precision)(const OuterSide&);  // whether the side's `parts` count
};

struct Kernels {
  const EighKernel<float>& eigh_mixed;
  const EighKernel<float>& eigh_float;
  const EighKernel<double>& eigh_double;
  const SingleEighKernel<float>& single_eigh_mixed;
  const SingleEighKernel<float>& single_eigh_float;
  const SingleEighKernel<double>& single_eigh_double;
  SquaredNorm squared_norm;
  const OuterKernel* outer;  // never null; sets that only bring products of their own exchange it
  const PowerIterationKernel& power_iteration;
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
namespace avx512_bf16 {
extern const OuterKernel kOuter;
}
namespace amx {
extern const OuterKernel kOuter;
}
namespace amx_emulated {
extern const OuterKernel kOuter;
}

}  // namespace kronext::cpu
