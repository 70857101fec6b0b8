"""precondition: what its machine code must look like, what it costs, and how it could be worse."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_costs import Cost
from kernel_rules import DOUBLE_ARITHMETIC, TENSOR_CORES, KernelShape, Rule
from worse import Worse

OP = "precondition"
TITLE = "precondition"
SPLIT_PRODUCTS = {
    "required": (*TENSOR_CORES, "HMMA.16816.F32.BF16", "F2FP.BF16", r"LDS\.128", r"STS\.64"),
    "forbidden": (*DOUBLE_ARITHMETIC, "HMMA.*F16.F32"),
}
RULES = (
    Rule("float64", registers=128, required=("DFMA",), forbidden=("HMMA",)),
    Rule("norms of float64", registers=40, required=("SHFL", "DADD"), forbidden=()),
    Rule("norms", registers=40, required=("SHFL",), forbidden=DOUBLE_ARITHMETIC),
    Rule("", registers=255, **SPLIT_PRODUCTS),
)

# name, matrices in the list, m, n, the tiles that are made for them
SIZES = (
    ("one 1024 x 1024", 1, 1024, 1024, "large"),
    ("one 4096 x 1024", 1, 4096, 1024, "large"),
    ("100 of 256 x 128", 100, 256, 128, "small"),
    ("1000 of 64 x 64", 1000, 64, 64, "fused"),
)
# Products of parts: of G with a factor, and of what that leaves with the other.
PRODUCTS = {
    "bfloat16 medium": (1, 1),
    "bfloat16 high": (2, 3),
    "bfloat16 highest": (3, 6),
    "float16 medium": (2, 1),
    "float16 high": (3, 3),
    "float16 highest": (5, 6),
    "float32 medium": (1, 1),
    "float32 high": (3, 3),
    "float32 highest": (6, 6),
    "float64": (1, 1),
}


def cost(shape: KernelShape, count: int, m: int, n: int) -> Cost:
    """Both products, the longer side first; only a fused one keeps its intermediate to itself."""
    value = 8 if shape.name == "float64" else 4
    g = {"float64": 8, "float32": 4}.get(shape.name.split()[0], 2)
    tile, depth = shape.sizes["tile"], shape.sizes["depth"]
    panels_m, panels_n = -(-m // tile), -(-n // tile)
    padded = {size: -(-size // depth) * depth for size in (m, n)}
    operations = 0
    arithmetic = shape.name if shape.name == "float64" else shape.name.rsplit(" ", 1)[0]
    for products, side in zip(PRODUCTS[arithmetic], (max(m, n), min(m, n)), strict=True):
        operations += 2 * products * panels_m * panels_n * tile**2 * padded[side]
    intermediate = 0 if shape.name.endswith("fused") else m * n * value
    read = (m * m + n * n) * value + m * n * g + intermediate
    written = m * n * value + intermediate
    kind = "float64" if shape.name == "float64" else "tensor"
    return Cost(count * read, count * written, count * operations, kind)


def costs(shapes: list[KernelShape]) -> Iterator[tuple[str, str, Cost]]:
    """Kernel of the first product, list and cost of both; each with the lists it is made for."""
    for size, count, m, n, tiles in SIZES:
        for shape in shapes:
            if shape.name.endswith(tiles) or (shape.name == "float64" and tiles == "small"):
                yield shape.name, size, cost(shape, count, m, n)


EXAMPLE = "float32 highest fused"
EXAMPLE_SOURCE = """
#include "csrc/cuda/precondition_tiles.cuh"
namespace kronext::cuda {
using Fused = ProductTile<FusedShape, Dtype::kFloat32, 3>;
template __global__ void fused_kernel<Fused, Fused>(const FusedTask*);
}
"""
WORSE = {
    "registers for four blocks": Worse(
        "precondition_fused.cuh", [("First::kThreads, First::kBlocks)", "First::kThreads, 4)")],
        "bytes of spills",
    ),
    "output number by number": Worse(
        "product_output.cuh", [("if (out.vector", "if (false")], r"no STG.*\.128"
    ),
    "norm in float64": Worse(
        "product_output.cuh",
        [("  Value square = 0;", "  double square = 0;"),
         ("fma(flat[e], flat[e], square)", "square + flat[e] * flat[e]")],
        "has D(ADD",
    ),
}  # fmt: skip
