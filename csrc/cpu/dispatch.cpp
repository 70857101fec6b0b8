#include "csrc/cpu/capability.h"
#include "csrc/cpu/kernels.h"

namespace kronext::cpu {

const Kernels& kernels() {
#if defined(__x86_64__)
  switch (capability()) {
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
