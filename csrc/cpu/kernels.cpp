#include "csrc/cpu/kernels.h"

#include "csrc/cpu/outer.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const Kernels kKernels{
    .outer = {outer_panels, outer_panel_bytes, outer_tile_bytes, outer_strip_width, outer_pack,
              outer_strips, outer_whole},
};

}  // namespace kronext::cpu::KRONEXT_CPU
