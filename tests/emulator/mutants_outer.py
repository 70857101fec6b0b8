"""Mutants of outer_update."""

from __future__ import annotations

from mutants import BARRIER, edit

CHECK = "outer"
OPERAND, TILE, WALK = "tensor_operand.cuh", "tensor_tile.cuh", "tile_walk.cuh"
KERNEL, TILES = "outer_kernel.cuh", "outer_tiles.cuh"
CAUGHT_BY_VALUES = {
    "no barrier in the loop": edit(TILE, BARRIER, "", "out = next(out)"),
    "no barrier before the mirror": edit(KERNEL, BARRIER, "", "write_vector_rows();"),
    "no barrier after the spill": edit(KERNEL, BARRIER, "", "Tile::spill"),
    "waits for one copy too few": edit(TILE, "wait<Shape::kLead - 1>", "wait<Shape::kLead>"),
    "diagonal not mirrored": edit(KERNEL, "diagonal && r < c", "false", "mirrored(int r"),
    "row tail reads too far": edit(OPERAND, "left > kUnit ? kUnit : left", "kUnit"),
    "rows beyond the rim": edit(OPERAND, "< rows ? valid : 0", "< rows + 1 ? valid : 0"),
    "swizzle of one reader": edit(OPERAND, "8 + line", "8 + (line ^ 1)", "void right_fragments"),
    "registers of a swapped": edit(
        OPERAND, "down = matrix % 2, along = matrix / 2", "down = matrix / 2, along = matrix % 2"
    ),
    "the smallest products are left out": edit(TILE, "sum = order", "sum = order - 1"),
    "both sides of a pair are the first": edit(TILES, "if (transposed)", "if (false)"),
    "no barrier before a pair": edit(TILES, BARRIER, "", "split<false>"),
    "a split tile loses a part": edit(WALK, "int part = 0", "int part = 1"),
    "old factor always read": edit(KERNEL, "sum.w, old.w", "sum.w, old.z"),
}
CAUGHT_BY_TSAN = {
    "no barrier before the epilogue": edit(KERNEL, BARRIER, "", "the operands that lie there"),
    "one buffer of planes": edit(TILE, "(i & 1) * kPlanesBytes", "0"),
    "one stage too few": edit(TILE, "Left::kSplits && Right::kSplits ? 0 : 1", "0"),
    "no barrier after the last step": edit(WALK, BARRIER, "", "bool next_step"),
}
NO_FLUSH = (
    edit(TILE, "float fresh[kTogether][4] = {};", """float fresh[kTogether][4];
          for (int j = 0; j < kTogether; ++j) {
            for (int e = 0; e < 4; ++e) fresh[j][e] = sums[i][j0 + j][e];
          }""")
    + edit(TILE, "sums[i][j0 + j][e] += fresh", "sums[i][j0 + j][e] = fresh")
)  # fmt: skip
CAUGHT_QUICKLY = {"sums left in the tensor core": ("outer-bias", NO_FLUSH)}
