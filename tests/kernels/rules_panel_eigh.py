"""The panel eigensolver: what its machine code must look like, what it costs, what is worse."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_costs import Cost
from kernel_rules import DOUBLE_ARITHMETIC, KernelShape, Rule
from worse import Worse

OP = "panel_eigh"
TITLE = "eigh and inverse_root above 160 rows"
GENERIC = (r"LD\.", r"ST\.")  # accesses that must find out first which memory they are for
ADDRESSES = "addresses of the epilogue, once a tile"
RULES = (
    Rule("measure|vectors", registers=40, required=(), forbidden=(*DOUBLE_ARITHMETIC, *GENERIC)),
    Rule("spectrum", registers=80, required=("DFMA",), forbidden=GENERIC),
    Rule(
        "(eliminate|form|multiply basis|project) float64",
        registers=128,
        required=("DFMA", r"LDS\.128"),
        forbidden=GENERIC,
        spill_bytes=48,
        reason=ADDRESSES,
    ),
    Rule(
        "(eliminate|form|multiply basis|project) two floats",
        registers=128,
        required=("FFMA", r"LDS\.128"),
        forbidden=("DFMA", *GENERIC),
        spill_bytes=48,
        reason=ADDRESSES,
    ),
    Rule(
        "resident pair",
        registers=96,
        required=("FFMA", r"LDS\.128", r"LDGSTS.*\.128", r"STG.*\.128"),
        forbidden=(*DOUBLE_ARITHMETIC, *GENERIC),
    ),
    Rule(
        "update",
        registers=104,
        required=("FFMA", r"LDS\.128", r"STG.*\.128"),
        forbidden=(*DOUBLE_ARITHMETIC, *GENERIC),
    ),
    Rule(
        "gram|root",
        registers=104,
        required=("FFMA", r"LDS\.128"),
        forbidden=(*DOUBLE_ARITHMETIC, *GENERIC),
    ),
    Rule(
        "basis defect|mend basis|orient",
        registers=128,
        required=("FFMA", r"LDS\.128"),
        forbidden=(*DOUBLE_ARITHMETIC, *GENERIC),
        spill_bytes=16,
        reason=ADDRESSES,
    ),
)

TILE, PANEL, GRAM_ROWS = 64, 32, 128
LARGEST_RESIDENT = 768  # rows, where a multiprocessor has 228 KB of shared memory
# float32 instructions for a multiply-add of two floats, each counted as two operations.
TWO_FLOATS = 15


def costs_of(name: str, n: int) -> Cost:
    """All launches of a kernel for one matrix; of resident pair, gram and update those of a sweep.

    What tiles read twice counts twice: it comes from the second-level cache.
    """
    tiles = -(-n // TILE)
    lower, every = tiles * (tiles + 1) // 2, tiles**2
    square, entry = n * n, 2 * TILE * TILE  # operations for each of depth
    meetings = (2 * tiles - 1) * tiles
    parts = -(-n // GRAM_ROWS)
    operand, tile = TILE * n * 4, TILE * TILE * 4
    steps = -(-n // PANEL)
    read, written, operations = {
        "measure": (square * 2, 0, 0),
        "basis defect": (lower * 2 * operand, square * 4, lower * entry * n),
        "mend basis": (every * 2 * operand, square * 4, every * entry * n),
        "multiply basis": (every * 2 * operand, square * 8, every * entry * n),
        "project": (lower * 3 * operand, square * 8, lower * entry * n),
        "eliminate": (steps * lower * tile * 2, steps * square * 8,
                      steps * lower * entry * PANEL),
        "orient": (every * 2 * operand, square * 4, every * entry * n),
        "resident pair": (meetings * operand, meetings * operand, 2 * meetings * entry * n),
        "gram": (meetings * (2 * operand + parts * tile), meetings * (parts + 1) * tile,
                 meetings * entry * n),
        "update": (meetings * (operand + tiles * tile), meetings * operand, meetings * entry * n),
        "form": (every * 2 * operand, tiles * n * 8, every * entry * n),
        "spectrum": (square * 4, n * 24, 2 * square),
        "vectors": (square * 4, square * 4, 0),
        "root": (lower * 2 * operand, square * 4, lower * entry * n),
    }[name.removesuffix(" float64").removesuffix(" two floats")]  # fmt: skip
    if name.endswith("two floats"):
        return Cost(read, written, operations * TWO_FLOATS, "float32")
    wide = name.endswith("float64") or name == "spectrum"
    return Cost(read, written, operations, "float64" if wide else "float32")


def costs(shapes: list[KernelShape]) -> Iterator[tuple[str, str, Cost]]:
    """Kernel, matrix and cost."""
    for n in (512, 2048):
        for shape in shapes:
            if shape.name == "resident pair" and n > LARGEST_RESIDENT:
                continue
            yield shape.name, f"n = {n}", costs_of(shape.name, n)


EXAMPLE = "gram"
EXAMPLE_SOURCE = '#include "csrc/cuda/panel_sweep.cuh"\n'
WORSE = {
    "registers for four blocks": Worse(
        "panel_sweep.cuh",
        [("__launch_bounds__(kTileThreads, 2)", "__launch_bounds__(kTileThreads, 4)")],
        "local memory in the loop",
    ),
    "a loop over registers": Worse(
        "jacobi_rotation.cuh",
        [("#pragma unroll\n  for (int e = 0; e < kRows; ++e) {\n    x[e] = fmaf(",
          "#pragma unroll 1\n  for (int e = 0; e < kRows; ++e) {\n    x[e] = fmaf(")],
        "an array lies in local memory",
    ),
    "sums in float64": Worse(
        "product_tile.cuh",
        [("return fmaf(x, y, sum);", "return float(double(x) * y + sum);")],
        "has D(ADD",
    ),
}  # fmt: skip
