"""Mutants of precondition; those of the tile that it shares are in mutants_outer."""

from __future__ import annotations

from mutants import BARRIER, edit

CHECK = "precondition"
KERNEL, FUSED = "precondition_kernel.cuh", "precondition_fused.cuh"
OUTPUT, OPERAND, PLAN = "product_output.cuh", "tensor_operand.cuh", "precondition.cu"
CAUGHT_BY_VALUES = {
    "no barrier after the spill": edit(KERNEL, BARRIER, "", "Tile::spill"),
    "no barrier after the split": edit(FUSED, BARRIER, "", "if constexpr (Right::kSplits)"),
    "no barrier before the output": edit(FUSED, BARRIER, "", "First::spill"),
    "waits for no second factor": edit(FUSED, "copy_async_wait<0>()", "copy_async_wait<1>()"),
    "registers of z swapped": edit(FUSED, "a[1] = take_part(z[k / 8][2]",
                                   "a[1] = take_part(z[k / 8][0]"),
    "layouts exchanged": edit(
        FUSED, "First::template multiply<decltype(left_transposed)::value,",
        "First::template multiply<!decltype(left_transposed)::value,"),
    "half of a float16 is split": edit(OPERAND, "words[j] >> 16", "words[j]"),
    "columns of the output mixed up": edit(OUTPUT, "value(r + 1, c), value(r + 2, c)",
                                           "value(r + 2, c), value(r + 1, c)"),
    "rims of the output": edit(OUTPUT, "y + c < y_count", "y + c < y_count - 1"),
    "a warp's squares are lost": edit(OUTPUT, "int warp = 0", "int warp = 1"),
    "squares of one tile for all": edit(
        KERNEL, "int64_t(step.row) * task.grid.columns + step.column", "0"),
    "a norm's last tiles are lost": edit(PLAN, "i < task.tiles", "i < task.tiles - 1"),
    "both rounds begin with left": edit(PLAN, "left_first(p) == first", "first"),
    "rows of the intermediate overlap": edit(PLAN, "(length + 3) / 4 * 4", "length / 4 * 4"),
}  # fmt: skip
CAUGHT_BY_TSAN = {
    "no barrier before the epilogue": edit(KERNEL, BARRIER, "", "square_warps"),
    "planes of the left operand are still read": edit(FUSED, BARRIER, "", "copy_async_wait<0>()"),
}
