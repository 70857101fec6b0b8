"""Mutants of outer_update."""

from __future__ import annotations

from mutants import BARRIER, edit

CHECK = "outer"
TENSOR, KERNEL = "outer_tensor.cuh", "outer_kernel.cuh"
CAUGHT_BY_VALUES = {
    "no barrier in the 16-bit loop": edit(TENSOR, BARRIER, "", "wait<stages - 2>"),
    "no barrier in the split loop": edit(TENSOR, BARRIER, "", "has just read"),
    "no barrier before the mirror": edit(KERNEL, BARRIER, "", "write_vector_rows();"),
    "no barrier after the spill": edit(KERNEL, BARRIER, "", "Tile::spill"),
    "waits for one copy too few": edit(TENSOR, "wait<stages - 2>", "wait<stages - 1>"),
    "diagonal not mirrored": edit(KERNEL, "diagonal && r < c", "false", "mirrored(int r"),
    "row tail reads too far": edit(TENSOR, "left > kUnit ? kUnit : left", "kUnit"),
    "rows beyond the rim": edit(TENSOR, "< x.rows ? valid : 0", "< x.rows + 1 ? valid : 0"),
    "swizzle of one reader": edit(TENSOR, "8 + line", "8 + (line ^ 1)", "void right_fragments"),
    "registers of a swapped": edit(
        TENSOR, "down = matrix % 2, along = matrix / 2", "down = matrix / 2, along = matrix % 2"
    ),
    "a part is left out": edit(TENSOR, "{1, 1}, ", "{0, 2}, "),
    "a split tile loses a part": edit(KERNEL, "int part = 0", "int part = 1"),
    "old factor always read": edit(KERNEL, "sum.w, old.w", "sum.w, old.z"),
}
CAUGHT_BY_TSAN = {
    "no barrier before the epilogue": edit(KERNEL, BARRIER, "", "the operands that lie there"),
    "one buffer of planes": edit(TENSOR, "(i & 1) * 2 * kPlanes", "0"),
    "no barrier after the last step": edit(KERNEL, BARRIER, "", "while (true) {"),
}
NO_FLUSH = (
    edit(TENSOR, "float fresh[kTogether][4] = {};", """float fresh[kTogether][4];
          for (int j = 0; j < kTogether; ++j) {
            for (int e = 0; e < 4; ++e) fresh[j][e] = sums[i][j0 + j][e];
          }""")
    + edit(TENSOR, "sums[i][j0 + j][e] += fresh", "sums[i][j0 + j][e] = fresh")
)  # fmt: skip
CAUGHT_QUICKLY = {"sums left in the tensor core": ("outer-bias", NO_FLUSH)}
