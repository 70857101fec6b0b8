"""Mutants of the resident eigensolvers."""

from __future__ import annotations

from mutants import edit

CHECK = "inverse_root"
SOLVER, PRODUCTS, SPECTRUM = "resident_eigh.cuh", "resident_products.cuh", "resident_spectrum.cuh"
CHOLESKY, ROTATION = "pivoted_cholesky.cuh", "jacobi_rotation.cuh"
SYNC = "threads.sync();"
CAUGHT_BY_VALUES = {
    "NaN is not seen": edit(SOLVER, "& 0x7fffffffu", "& 0x7f7fffffu"),
    "basis is not mended": edit(SOLVER, "0.5f * off;", "0.f * off;"),
    "inner pairs are left out": edit(SOLVER, "rotate(round == 0,", "rotate(false,"),
    "a round is lost": edit(SOLVER, "round < blocks - 1", "round < blocks - 2"),
    "no sweep after the first": edit(SOLVER, "if (converged(record)) return", "return"),
    "memory of a neighbour": edit(SOLVER, "shared + place * matrix_bytes", "shared"),
    "rows of the projection are lost": edit(
        PRODUCTS, "first += kProjectionRows", "first += 2 * kProjectionRows"
    ),
    "no shift": edit(CHOLESKY, "+ Wide(shift)", "+ Wide(0 * shift)"),
    "small pivots pass": edit(CHOLESKY, "if (best == kTooSmall)", "if (false)"),
    "a pivot is taken twice": edit(CHOLESKY, "was_pivot ? 0u", "false ? 0u"),
    "another column of the tile": edit(CHOLESKY, "c == k % kTileColumns", "c == k / kTileColumns"),
    "a lane's share is lost": edit(ROTATION, "bit < kLanes", "bit < kLanes / 2"),
    "the shift stays in the values": edit(SPECTRUM, "- Wide(shift)", "- Wide(0 * shift)"),
    "diagonal of the form twice": edit(SPECTRUM, "(i == j ? 0.5f : 1.f)", "1.f"),
    "not in order": edit(SPECTRUM, "order[rank_of(i)]", "order[i]"),
    "the root is not scaled back": edit(SPECTRUM, "(2 * exponent)", "(0 * exponent)"),
    "the root is not mirrored": edit(SPECTRUM, "task.root[j * n + i] = product * up;", ""),
}
CAUGHT_BY_TSAN = {
    "no barrier after a round": edit(SOLVER, SYNC, "", "pair.store"),
    "no barrier after the basis' product": edit(SOLVER, SYNC, "", "0.5f * off;"),
    "no barrier before the pivot": edit(CHOLESKY, SYNC, "", "publish_pivot(l.n"),
    "no barrier after a step": edit(CHOLESKY, SYNC, "", "memory.column[j]"),
    "no barrier before the product is stored": edit(PRODUCTS, SYNC, "", "sum[round][c][3] = fmaf"),
    "no barrier in the projection": edit(PRODUCTS, SYNC, "", "rows[k] = i < n"),
    "no barrier before columns change": edit(SPECTRUM, SYNC, "", "up = power_of_two"),
}
