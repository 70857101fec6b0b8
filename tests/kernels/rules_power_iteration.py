"""The matvecs and power iteration: what their machine code must look like, what they cost, and how
they could be worse."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_costs import Cost
from kernel_rules import KernelShape, Rule
from worse import Worse

OP = "power_iteration"
TITLE = "kron_matvec, rearranged_matvec, power_iteration"
# Scales and weights are converted, but nothing is computed in float64.
DOUBLE_SUMS = ("D(ADD|MUL|FMA)",)
TENSOR_CORES = ("LDSM.16.M88.4", "LDSM.16.MT88.4", r"LDGSTS.*\.128")
RULES = (
    Rule("product float64", registers=128, required=("DFMA",), forbidden=("HMMA",)),
    Rule(
        "product .* pairs",
        registers=168,
        required=(*TENSOR_CORES, "HMMA.16816.F32"),
        forbidden=DOUBLE_SUMS,
    ),
    Rule(
        "product",
        registers=255,
        required=(*TENSOR_CORES, "HMMA.16816.F32.BF16", "F2FP.BF16", r"LDS\.128", r"STS\.64"),
        forbidden=(*DOUBLE_SUMS, "HMMA.*F16.F32"),
    ),
    Rule("dense .*float64", registers=168, required=(r"LDG.*\.128", "DFMA"), forbidden=()),
    Rule(
        "dense",
        registers=168,
        required=(r"LDG.*\.128", r"STS\.128", "FFMA"),
        forbidden=DOUBLE_SUMS,
        spill_bytes=64,
        reason="columns of a thread, once a block",
    ),
    Rule("orthonormalise|triples", registers=128, required=("DFMA", "SHFL"), forbidden=("HMMA",)),
    Rule("", registers=64, required=(), forbidden=("HMMA",)),
)

# name, matrices, samples of each, m, n
SIZES = (
    ("one 1024 x 1024", 1, 1, 1024, 1024),
    ("64 samples of 512 x 512", 1, 64, 512, 512),
    ("4096 samples of 64 x 64", 1, 4096, 64, 64),
)
# Products of parts of a sample with a float32 number.
PRODUCTS = {
    "bfloat16 medium": 1,
    "bfloat16 high": 2,
    "bfloat16 highest": 3,
    "float16 medium": 2,
    "float16 high": 3,
    "float16 highest": 5,
    "float32 medium": 1,
    "float32 high": 3,
    "float32 highest": 6,
    "float64": 1,
}
# name, m, n
DENSE_SIZES = (("H of 64 x 64", 64, 64), ("H of 128 x 128", 128, 128))
PART_DEPTH = 2048


def matvec_cost(shape: KernelShape, count: int, samples: int, m: int, n: int) -> Cost:
    """Both sides of kron_matvec with symmetric L and R: T_s = X_s B, then the lower triangle of
    sum_s T_s X_sT, in parts of at most 2048 of depth."""
    arithmetic = shape.name.removeprefix("product ")
    value = 8 if arithmetic == "float64" else 4
    g = {"float64": 8, "float32": 4}.get(arithmetic.split()[0], 2) * samples * m * n
    tile, chunk = shape.sizes["tile"], shape.sizes["depth"]
    t = samples * m * n * value
    read, written, operations = 0.0, 0.0, 0.0
    for dim, depth in ((m, n), (n, m)):
        panels, others = -(-dim // tile), -(-depth // tile)
        padded = -(-depth // chunk) * chunk
        parts = -(-samples * depth // PART_DEPTH)
        tiles = samples * panels * others + samples * panels * (panels + 1) // 2
        operations += 2 * PRODUCTS[arithmetic] * tiles * tile**2 * padded
        read += 2 * g + t + depth**2 * value + parts * dim * (dim + 1) // 2 * value
        written += t + parts * dim * (dim + 1) // 2 * value + dim**2 * value
    kind = "float64" if arithmetic == "float64" else "tensor"
    return Cost(count * read, count * written, count * operations, kind)


def dense_cost(shape: KernelShape, m: int, n: int) -> Cost:
    """H once; four operations for each of its values."""
    size = (m * n) ** 2
    kind = "float64" if shape.name.endswith("float64") else "float32"
    value = 8 if kind == "float64" else 4
    small = (m * m + n * n) * value
    return Cost(size * shape.sizes["bytes"] + small, small, 4 * size, kind)


def costs(shapes: list[KernelShape]) -> Iterator[tuple[str, str, Cost]]:
    for size, count, samples, m, n in SIZES:
        for shape in shapes:
            if shape.name.removeprefix("product ") in PRODUCTS:
                yield shape.name, size, matvec_cost(shape, count, samples, m, n)
    for size, m, n in DENSE_SIZES:
        for shape in shapes:
            if shape.name.startswith("dense"):
                yield shape.name, size, dense_cost(shape, m, n)


EXAMPLE = "dense float32"
EXAMPLE_SOURCE = """
#include "csrc/cuda/rearranged.cuh"
namespace kronext::cuda {
template __global__ void rearranged_kernel<RearrangedTile<float, Dtype::kFloat32>>(
    const RearrangedTask*, int, const int*);
}
"""
WORSE = {
    "registers for eight blocks": Worse(
        "rearranged.cuh", [("kThreads = 128, kBlocks = 3", "kThreads = 128, kBlocks = 8")],
        "local memory in the loop",
    ),
    "sums one by one into shared memory": Worse(
        "rearranged.cuh",
        [("*reinterpret_cast<Values*>(shared + row * kColumns + my_column() + u) = v;",
          "for (int e = 0; e < kAtOnce; ++e) "
          "((volatile T*)shared)[row * kColumns + my_column() + u + e] = v.value[e];")],
        r"no STS\.128",
    ),
    "sums in float64": Worse(
        "rearranged.cuh",
        [("left[u] = fma(h[row][u], r[row][u], left[u])",
          "left[u] = T(double(left[u]) + double(h[row][u]) * double(r[row][u]))")],
        "has D(ADD",
    ),
}  # fmt: skip
