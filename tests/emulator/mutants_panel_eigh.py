"""Mutants of the panel eigensolver."""

from __future__ import annotations

from mutants import BARRIER, edit

CHECK = "panel_eigh"
TILE, PROBLEM = "product_tile.cuh", "panel_problem.cuh"
START, CHOLESKY = "panel_start.cuh", "panel_cholesky.cuh"
ROTATION, SWEEP = "panel_rotation.cuh", "panel_sweep.cuh"
RESULTS, LAUNCHES = "panel_results.cuh", "panel_eigh.cu"
CAUGHT_BY_VALUES = {
    "no barrier before operands are read": edit(TILE, BARRIER, ""),
    "depth runs over": edit(TILE, "k < depth ? f", "true ? f"),
    "a step of depth is left out": edit(
        TILE, "first + kTileDepth, depth);", "first + kTileDepth, first + kTileDepth);"
    ),
    "NaN is not seen": edit(START, "& 0x7fffffffu", "& 0x7f7fffffu"),
    "basis is not mended": edit(START, "fmaf(-0.5f, sum,", "fmaf(0.f, sum,"),
    "projected on one side": edit(
        START,
        "Wide(row + i < n ? q[int64_t(k) * n + row + i] : 0.f)",
        "Wide(row + i == k ? 1.f : 0.f)",
    ),
    "no shift": edit(CHOLESKY, "if (step == 0 && i == j) value = value + shift;", ""),
    "a failed attempt goes on": edit(CHOLESKY, "if (!passed) state", "if (false) state"),
    "panel's own columns are left out": edit(CHOLESKY, "c < done; ++c", "c + 1 < done; ++c"),
    "the last panel is not subtracted": edit(CHOLESKY, "remainder[at] - sum", "remainder[at]"),
    "an empty panel is not cleared": edit(
        CHOLESKY, "if (last && step + 1", "if (false && step + 1"
    ),
    "smaller matrices lose a step": edit(LAUNCHES, "{step / 2 + 1}", "{step / 2 + 2}"),
    "smaller matrices lose a round": edit(LAUNCHES, "(round + 1) / 2 + 1", "round / 2 + 2"),
    "only panels against each other": edit(ROTATION, "turn_all(inside)", "turn_all(false)"),
    "rows turn the other way": edit(
        ROTATION,
        "shear(upper, lower, half_tangent, sine)",
        "shear(upper, lower, -half_tangent, -sine)",
    ),
    "J without the diagonal's one": edit(ROTATION, "right + right_one, left", "right, left"),
    "a part of the Gram matrix is lost": edit(
        SWEEP, "int p = 0; p < parts", "int p = 1; p < parts"
    ),
    "parts are not waited for": edit(PROBLEM, "*shared == expected - 1", "true"),
    "no sweep after the first": edit(PROBLEM, "!settled(sweep - 1)", "false"),
    "J less the I": edit(ROTATION, "int(threadIdx.x)) += 1.f", "int(threadIdx.x)) += 0.f"),
    "a row below the matrix is stored": edit(ROTATION, "row >= rows", "row > rows"),
    "columns of the other panel": edit(SWEEP, "x(i, k) : 0.f", "x(i, k ^ kPanel) : 0.f"),
    "X is not waited for": edit(SWEEP, "copy_async_wait<0>();", ""),
    "X is not cleared below its last row": edit(
        SWEEP, "make_float4(0.f, 0.f, 0.f, 0.f)", "*reinterpret_cast<float4*>(to)"
    ),
    "the last rows are left out of G": edit(SWEEP, "first < end;", "first + kTileDepth <= end;"),
    "rows of J of the other panel": edit(SWEEP, "&turn(k + e,", "&turn((k + e) ^ kPanel,"),
    "every second tile of X J is left out": edit(SWEEP, "first += kTile)", "first += 2 * kTile)"),
    "larger matrices are not passed over": edit(
        LAUNCHES, "if (each.pairs > range.most) tasks += each.matrices;", ""
    ),
    "the shift stays in the values": edit(RESULTS, "- problem_.shift()", "- 0 * problem_.shift()"),
    "a strip of the forms is lost": edit(RESULTS, "int strip = 0;", "int strip = 1;"),
    "the root is not scaled back": edit(
        RESULTS, "power_of_two(2 * problem", "power_of_two(0 * problem"
    ),
    "diagonal tile not mirrored": edit(
        RESULTS, "out[int64_t(j) * n + i] = value;", "if (r != c) out[int64_t(j) * n + i] = value;"
    ),
}
CAUGHT_BY_TSAN = {
    "no barrier after operands are read": edit(TILE, BARRIER, "", "four_at(right_at"),
    "no barrier before X is read": edit(SWEEP, BARRIER, "", "copy_async_wait<0>();"),
    "no barrier after the Gram matrix": edit(ROTATION, BARRIER, "", "turn(i, j) = 0.f;"),
    "no barrier between angles and rows": edit(ROTATION, BARRIER, "", "!= 0.f)) continue;"),
    "no barrier after a round": edit(ROTATION, BARRIER, "", "accumulate(columns, r);"),
    "no barrier before J is read": edit(ROTATION, BARRIER, "", "&state.tangent[sweep]"),
    "no barrier before a pivot": edit(
        CHOLESKY, BARRIER, "", "shared.key[threadIdx.x / 32] = best;"
    ),
    "no barrier before the pivot's row": edit(
        CHOLESKY, BARRIER, "", "shared.pivot_row[threadIdx.x]"
    ),
    "no barrier before the spectrum": edit(RESULTS, BARRIER, "", "- problem_.shift()"),
}
