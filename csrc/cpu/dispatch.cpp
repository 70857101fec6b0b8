#include "csrc/cpu/capability.h"
#include "csrc/cpu/kernels.h"

namespace kronext::cpu {

#if defined(__x86_64__)
static Kernels avx512_with(const ProductKernel<OuterSide>& outer,
                           const ProductKernel<PreconditionProblem>& precondition) {
  Kernels kernels = avx512::kKernels;
  kernels.outer = &outer;
  kernels.precondition = &precondition;
  return kernels;
}
#endif

const Kernels& kernels() {
#if defined(__x86_64__)
  static const Kernels with_avx512_bf16 =
      avx512_with(avx512_bf16::kOuter, avx512_bf16::kPrecondition);
  static const Kernels with_amx = avx512_with(amx::kOuter, amx::kPrecondition);
  static const Kernels with_amx_emulated =
      avx512_with(amx_emulated::kOuter, amx_emulated::kPrecondition);
  switch (capability()) {
    case Capability::kAmx:
      return with_amx;
    case Capability::kAmxEmulated:
      return with_amx_emulated;
    case Capability::kAvx512BFloat16:
      return with_avx512_bf16;
    case Capability::kAvx512:
      return avx512::kKernels;
    case Capability::kAvx2:
      return avx2::kKernels;
    case Capability::kPortable:
      break;
  }
#endif
  return portable::kKernels;
}

}  // namespace kronext::cpu
