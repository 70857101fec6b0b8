"""upload: what its machine code must look like, what it costs, and how it could be worse."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_costs import Cost
from kernel_rules import DOUBLE_ARITHMETIC, KernelShape, Rule
from worse import Worse

OP = "upload"
TITLE = "upload"
RULES = (Rule("", registers=32, required=(r"STG.*\.128",), forbidden=DOUBLE_ARITHMETIC),)


def costs(shapes: list[KernelShape]) -> Iterator[tuple[str, str, Cost]]:
    """A full argument."""
    for shape in shapes:
        size = shape.sizes["bytes"]
        yield shape.name, f"{size} bytes", Cost(size, size, 0, "float32")


EXAMPLE = "long"
EXAMPLE_SOURCE = """
#include "csrc/cuda/upload.cuh"
auto* const kernel = &kronext::cuda::upload_kernel<kronext::cuda::kLongUpload>;
"""
COPY = "to[i] = chunk.data[i];"
WORSE = {
    "an argument of its own for every thread": Worse(
        "upload.cuh",
        [("const __grid_constant__ ", ""), (COPY, "chunk.data[i % 7].x = i; " + COPY)],
        "local memory in the loop",
    ),
    "word by word": Worse("upload.cuh", [(COPY, "to[i].x = chunk.data[i].x;")], r"no STG.*\.128"),
}
