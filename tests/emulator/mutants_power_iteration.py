"""Mutants of the matvecs and of power iteration."""

from __future__ import annotations

from mutants import BARRIER, edit

CHECK = "power_iteration"
PRODUCT, DENSE, BASIS = "congruence.cuh", "rearranged.cuh", "kronecker_basis.cuh"
CAUGHT_BY_VALUES = {
    "a part of a sum is left out": edit(PRODUCT, "int part = 0", "int part = 1"),
    "sums of earlier rounds are lost": edit(PRODUCT, "task.first ? 0", "true ? 0"),
    "half of a product where it is not symmetric": edit(
        PRODUCT, "task.mirrored && task.mirrored->symmetric()", "task.mirrored"
    ),
    "products between samples": edit(PRODUCT, "x / task.positions != y / task.positions", "false"),
    "weight of the first sample of a block": edit(
        PRODUCT, " + x / task.positions", "", "sample = int64_t(output)"
    ),
    "no barrier after the spill": edit(PRODUCT, BARRIER, "", "Tile::spill"),
    "no barrier before the mirror": edit(PRODUCT, BARRIER, "", "if (!task.last) return;"),
    "every chunk in the first sample": edit(
        "operand.h", "chunk -= index * operand.chunks", "chunk -= 0"
    ),
    "samples at their chunks": edit("operand.h", "index * operand.stride_bytes", "index"),
    "every matrix is symmetric": edit("structure.cu", "!(lower == upper)", "false"),
    "no matrix is symmetric": edit("structure.cu", "!(lower == upper)", "true"),
    "segments beyond the last": edit(
        DENSE, "left < task.segments ? left : task.segments", "task.segments"
    ),
    "columns of R run on": edit(DENSE, "column % task.n", "column"),
    "no barrier before left is added": edit(DENSE, BARRIER, "", "keep(left, b);"),
    "no barrier before right is added": edit(DENSE, BARRIER, "", "keep(right[row], row);"),
    "a slice of right is left out": edit(DENSE, "part < parts", "part + 1 < parts"),
    "columns stay as they are": edit(BASIS, "pass > 0 && i < k", "pass > 0 && i < 0"),
    "stops while it moves": edit(BASIS, "moving == 0", "moving > 0"),
    "factors of the wrong side": edit(
        BASIS, "rotate(right_, n_ * n_, q)", "rotate(right_, n_ * n_, b)"
    ),
}
CAUGHT_BY_TSAN = {
    "no barrier before the epilogue": edit(PRODUCT, BARRIER, "", "Tile::accumulate("),
    "no barrier after left is added": edit(DENSE, BARRIER, "", "write_left(i0, batch);"),
    "no barrier between reductions": edit("block.cuh", BARRIER, "", "Combine& of) const"),
    "no barrier before the symmetric part": edit(BASIS, BARRIER, "", "void symmetrise("),
    "no barrier after the small matrix": edit(BASIS, BARRIER, "", "small_svd(b, q"),
    "no barrier after the coordinates": edit(BASIS, BARRIER, "", "task_.inside[i] = along"),
}
