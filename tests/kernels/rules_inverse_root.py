"""eigh and inverse_root: what their machine code must look like, what they cost, how worse ones
look."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kernel_costs import Cost
from kernel_rules import KernelShape, Rule
from worse import Worse

OP = "inverse_root"
TITLE = "eigh and inverse_root"
# 128 registers: 16 warps on a multiprocessor. Columns move in 16-byte pieces.
REGISTERS, PIECES = 128, (r"LDS.*\.128", r"STS.*\.128")
SPILLS = "what phases share, outside inner loops"
RULES = (
    Rule(
        "float64",
        REGISTERS,
        required=(*PIECES, "DFMA", "MUFU.RSQ64H"),
        forbidden=(),
        spill_bytes=192,
        reason=SPILLS,
    ),
    Rule(
        "two floats",
        REGISTERS,
        required=PIECES,
        forbidden=("MUFU.RSQ64H",),
        spill_bytes=192,
        reason=SPILLS,
    ),
)

MATRICES = 1000
WARM_SWEEPS = 3
TWO_FLOAT_OPERATIONS = 15  # of a multiply-add


def cost(shape: KernelShape, n: int) -> Cost:
    """All outputs; the factorisation, the projection and the values in wide arithmetic."""
    arithmetic, start = shape.name.rsplit(" ", 2)[:2]
    warm = start == "warm"
    sweeps = WARM_SWEEPS if warm else math.log2(n) + 2
    wide = (1 / 3 + 1 / 2 + 1.5 * warm) * n**3
    operations = 2 * (2.2 * sweeps + 0.5 + 1.5 * warm) * n**3
    read, written = 4 * n * (n + 1) / 2 + warm * 4 * n**2, 4 * (2 * n**2 + n)
    before: dict[str, float] = {}
    if arithmetic == "float64":
        before = {"float64": MATRICES * 2 * wide}
    else:
        operations += TWO_FLOAT_OPERATIONS * wide
    return Cost(MATRICES * read, MATRICES * written, MATRICES * operations, "float32", before)


def costs(shapes: list[KernelShape]) -> Iterator[tuple[str, str, Cost]]:
    """Kernel, list and cost."""
    for shape in shapes:
        n = shape.sizes["rows"]
        yield shape.name, f"{MATRICES} of {n} x {n}", cost(shape, n)


EXAMPLE = "float64 cold 128"
EXAMPLE_SOURCE = """
#include "csrc/cuda/resident_eigh.cuh"
namespace kronext::cuda {
template __global__ void resident_eigh_kernel<Resident128, double, false>(const SpectralTask*, int,
                                                                          int, SpectralOptions);
}
"""
WORSE = {
    "registers for two blocks": Worse(
        "resident_eigh.cuh",
        [("Shape::kBlockThreads, Shape::kBlocks)", "Shape::kBlockThreads, 2)")],
        "local memory in the loop",
    ),
    "columns stored number by number": Worse(
        "jacobi_rotation.cuh",
        [("*reinterpret_cast<float4*>(columns.data + column * columns.pitch + row) =\n"
          "              make_float4(x[c][e], x[c][e + 1], x[c][e + 2], x[c][e + 3]);",
          "for (int i = 0; i < 4; ++i) columns.data[column * columns.pitch + row + i] ="
          " x[c][e + i];")],
        r"no STS.*\.128",
    ),
    "a choice between places": Worse(
        "pivoted_cholesky.cuh",
        [("value = choose(c == k % kTileColumns, s_[e][c], value);",
          "if (c == k % kTileColumns) value = s_[e][c];"),
         ("for (int e = 1; e < kTileRows; ++e) value = choose(e == k % kTileRows, s_[e][c],"
          " value);",
          "for (int e = 1; e < kTileRows; ++e) if (e == k % kTileRows) value = s_[e][c];")],
        "an array lies in local memory",
    ),
    "the pivot's root in float32": Worse(
        "wide_arithmetic.cuh", [("return rsqrt(x);", "return rsqrtf(float(x));")],
        "no MUFU.RSQ64H",
    ),
}  # fmt: skip
