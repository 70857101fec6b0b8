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

// A kernel that a set with products of its own brings.
template <class Problem>
struct ProductKernel {
  JobKernel<Problem> job;
  bool (*depends_on_precision)(const Problem&);  // whether the problem's `parts` count
};

struct Kernels {
  const EighKernel<float>& eigh_mixed;
  const EighKernel<float>& eigh_float;
  const EighKernel<double>& eigh_double;
  const SingleEighKernel<float>& single_eigh_mixed;
  const SingleEighKernel<float>& single_eigh_float;
  const SingleEighKernel<double>& single_eigh_double;
  SquaredNorm squared_norm;
  // Never null; sets that only bring products of their own exchange them.
  const ProductKernel<OuterSide>* outer;
  const ProductKernel<PreconditionProblem>* precondition;
  const PowerIterationKernel& power_iteration;
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
extern const ProductKernel<OuterSide> kOuter;
extern const ProductKernel<PreconditionProblem> kPrecondition;
}  // namespace avx512_bf16
namespace amx {
extern const ProductKernel<OuterSide> kOuter;
extern const ProductKernel<PreconditionProblem> kPrecondition;
}  // namespace amx
namespace amx_emulated {
extern const ProductKernel<OuterSide> kOuter;
extern const ProductKernel<PreconditionProblem> kPrecondition;
}  // namespace amx_emulated

}  // namespace kronext::cpu
