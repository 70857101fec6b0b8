// C <- decay C + weight X XT on packed panels (csrc/core/outer.h says what a side is).
//
// The depth is read once per side by the packing; the product visits tiles on or below the diagonal
// only, dim^2 * depth operations instead of 2 dim^2 depth, and the epilogue blends and mirrors each
// finished tile while it is in the first-level cache. Bytes: the matrix, its panels twice, one read
// and one write of the factor.
#pragma once

#include "csrc/core/outer.h"
#include "csrc/core/strips.h"

namespace kronext::cpu::KRONEXT_CPU {

// Bytes of the packed panels of a side, and of the tiles that a strip accumulates.
int64_t outer_panel_bytes(const OuterSide& side);
int64_t outer_tile_bytes(const OuterSide& side);
int64_t outer_panels(const OuterSide& side);
int64_t outer_strip_width(const OuterSide& side);

void outer_pack(const OuterSide& side, void* panels, int64_t first_panel, int64_t last_panel);
void outer_strips(const OuterSide& side, const void* panels, const Strip* strips, int64_t count,
                  void* tiles);
// Everything for one side on one thread.
void outer_whole(const OuterSide& side, void* panels, void* tiles);

}  // namespace kronext::cpu::KRONEXT_CPU
