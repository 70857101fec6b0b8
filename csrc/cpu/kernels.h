// The CPU kernels behind one table of function pointers for each instruction set.
#pragma once

#include "csrc/core/outer.h"
#include "csrc/core/strips.h"

namespace kronext::cpu {

struct OuterKernels {
  int64_t (*panels)(const OuterSide&);
  int64_t (*panel_bytes)(const OuterSide&);
  int64_t (*tile_bytes)(const OuterSide&);
  int64_t (*strip_width)(const OuterSide&);
  void (*pack)(const OuterSide&, void* panels, int64_t first, int64_t last);
  void (*strips)(const OuterSide&, const void* panels, const Strip*, int64_t count, void* tiles);
  void (*whole)(const OuterSide&, void* panels, void* tiles);
};

struct Kernels {
  OuterKernels outer;
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
