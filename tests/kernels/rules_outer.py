"""outer_update: what its machine code must look like, what it costs, and how it could be worse."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_costs import Cost
from kernel_rules import DOUBLE_ARITHMETIC, TENSOR_CORES, KernelShape, Rule
from worse import Worse

OP = "outer"
TITLE = "outer_update"
RULES = (
    Rule(
        "float16 small|bfloat16 small",
        registers=168,
        required=(*TENSOR_CORES, "HMMA.16816.F32"),
        forbidden=DOUBLE_ARITHMETIC,
        spill_bytes=48,
        reason="addresses of the epilogue, once a tile",
    ),
    Rule(
        "float16|bfloat16",
        registers=255,
        required=(*TENSOR_CORES, "HMMA.16816.F32"),
        forbidden=DOUBLE_ARITHMETIC,
    ),
    Rule(
        "float32",
        registers=255,
        required=(*TENSOR_CORES, "HMMA.16816.F32.BF16", "F2FP.BF16", r"LDS\.128", r"STS\.64"),
        forbidden=(*DOUBLE_ARITHMETIC, "HMMA.*F16.F32"),
    ),
    Rule("float64", registers=128, required=("DFMA",), forbidden=("HMMA",)),
)

# name, gradients in the list, m, n
SIZES = (
    ("one 1024 x 1024", 1, 1024, 1024),
    ("one 4096 x 1024", 1, 4096, 1024),
    ("1000 of 64 x 64", 1000, 64, 64),
)
PRODUCTS = {"float32 medium": 1, "float32 high": 4, "float32 highest": 6}


def element_bytes(shape: KernelShape) -> int:
    return {"float64": 8, "float32": 4}.get(shape.name.split()[0], 2)


def cost(shape: KernelShape, count: int, m: int, n: int) -> Cost:
    """G is read once, each factor in its lower triangle, and written whole."""
    factor_bytes = 8 if shape.name == "float64" else 4
    products = PRODUCTS.get(shape.name.rsplit(" ", 1)[0], 1)
    tile, tile_depth = shape.sizes["tile"], shape.sizes["depth"]
    read, written, operations = m * n * element_bytes(shape), 0, 0
    for size, depth in ((m, n), (n, m)):
        panels, chunks = -(-size // tile), -(-depth // tile_depth)
        tiles = panels * (panels + 1) // 2
        read += size * (size + 1) // 2 * factor_bytes
        written += size * size * factor_bytes
        operations += 2 * products * tiles * tile**2 * chunks * tile_depth
    arithmetic = "float64" if shape.name == "float64" else "tensor"
    return Cost(count * read, count * written, count * operations, arithmetic)


def costs(shapes: list[KernelShape]) -> Iterator[tuple[str, str, Cost]]:
    """Kernel, list and cost; each kernel with the lists that it is made for."""
    for size, count, m, n in SIZES:
        for shape in shapes:
            if shape.name.endswith("large") != (m == 64):
                yield shape.name, size, cost(shape, count, m, n)


EXAMPLE = "bfloat16 large"
EXAMPLE_SOURCE = """
#include "csrc/cuda/outer_kernel.cuh"
#include "csrc/cuda/outer_tiles.cuh"
namespace kronext::cuda {
template __global__ void outer_kernel<BFloat16Large>(const OuterTask*, const TileCut*, float*,
                                                     int*);
}
"""
COPY = "cp.async.{}.shared.global [%0], [%1], {}"
WORSE = {
    "registers for three blocks": Worse(
        "outer_kernel.cuh",
        [("Tile::kThreads, Tile::kBlocks)", "Tile::kThreads, 3)")],
        "local memory in the loop",
    ),
    "copies of four bytes": Worse(
        "ptx.cuh",
        [(COPY.format("cg", size), COPY.format("ca", size.replace("16", "4")))
         for size in ("16;", "16, %2;")],
        r"no LDGSTS.*\.128",
    ),
    "no turning of matrices": Worse("ptx.cuh", [(".x4.trans.", ".x4.")], "no LDSM.16.MT88.4"),
    "epilogue in float64": Worse(
        "outer_kernel.cuh",
        [("fma(decay, old, weight * sum)", "T(double(decay) * old + weight * sum)")],
        "has D(ADD",
    ),
    "epilogue number by number": Worse(
        "outer_kernel.cuh",
        [("      if (vector) {", "      if (false) {")],
        r"no STG.*\.128",
    ),
}  # fmt: skip
