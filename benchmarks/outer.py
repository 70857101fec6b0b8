"""`outer_update_` and its list against `lerp_` of `G @ G.T` and `G.T @ G`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.inputs import NAMES, error_of, normal, sets_of
from benchmarks.runner import Case, Growth, Job
from kronext import ops
from tests.shapes import SHAPES

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def one() -> Iterator[Case]:
    """One matrix at a time."""
    for dtype in DTYPES:
        for m, n in (*shapes.SQUARE, *shapes.OBLONG):
            yield Case(
                "outer_update_",
                f"{m} x {n}",
                partial(_one, m, n, dtype),
                NAMES[dtype],
                Growth("square", "n", n) if m == n else None,
            )


def lists() -> Iterator[Case]:
    """Ragged lists: many small parameters, layers of models, the shapes of the tests."""
    for name, layers, growth in list_cases():
        yield Case("outer_update_list_", name, partial(_list, layers), growth=growth)


def list_cases() -> Iterator[tuple[str, list[shapes.Shape], Growth | None]]:
    """The lists of outer_update and precondition: label, shapes, place in a plot."""
    for count, m, n in shapes.SMALL:
        yield f"{count} of {m} x {n}", [(m, n)] * count, None
    for count in (1, 10, 100, 1000):
        yield f"{count} of 32 x 32", [(32, 32)] * count, Growth("32 x 32", "parameters", count)
    for name, layers in shapes.MODELS.items():
        yield name, layers * 2, None
    yield "shapes of the tests", [shape for shape in SHAPES if 0 not in shape], None


def _one(m: int, n: int, dtype: torch.dtype, wants: Callable[[str], bool]) -> Job:
    factor_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    item = 8 if dtype == torch.float64 else 4
    sets = sets_of(item * (m * m + n * n + m * n))
    G = [normal(m, n, dtype=dtype, seed=index) for index in range(sets)]
    L = [torch.zeros(m, m, dtype=factor_dtype) for _ in G]
    R = [torch.zeros(n, n, dtype=factor_dtype) for _ in G]

    def ours(i: int) -> None:
        ops.outer_update_(L[i], R[i], G[i], decay=0.9, weight=0.1)

    def lerp(i: int) -> None:
        g = G[i].to(factor_dtype)
        L[i].lerp_(g @ g.T, 0.1)
        R[i].lerp_(g.T @ g, 0.1)

    def error() -> float:
        result = torch.zeros(m, m, dtype=factor_dtype)
        ops.outer_update_(result, None, G[0], decay=0.0, weight=1.0)
        return error_of(result, G[0].double() @ G[0].double().T)

    flops = float(m * n * (m + n))
    return Job(
        [ours],
        {"lerp_": [lerp]} if wants("lerp_") else {},
        error,
        flops=flops if dtype == torch.float32 else 0.0,
        wide_flops=flops if dtype == torch.float64 else 0.0,
        bfloat16_flops=flops if dtype == torch.bfloat16 else 0.0,
        moved=G[0].element_size() * m * n + item * 1.5 * (m * m + n * n),
        sets=sets,
    )


def _list(layers: Sequence[shapes.Shape], wants: Callable[[str], bool]) -> Job:
    G = [normal(m, n, seed=index) for index, (m, n) in enumerate(layers)]
    L = [torch.zeros(m, m) for m, _ in layers]
    R = [torch.zeros(n, n) for _, n in layers]

    def ours(_: int) -> None:
        ops.outer_update_list_(L, R, G, decay=0.9, weight=0.1)

    def loop(_: int) -> None:
        for l, r, g in zip(L, R, G, strict=True):
            l.lerp_(g @ g.T, 0.1)
            r.lerp_(g.T @ g, 0.1)

    def error() -> float:
        results: list[Tensor] = [torch.zeros(m, m) for m, _ in layers]
        ops.outer_update_list_(results, None, G, decay=0.0, weight=1.0)
        return error_of(results[0], G[0].double() @ G[0].double().T)

    return Job(
        [ours],
        {"loop of lerp_": [loop]} if wants("loop of lerp_") else {},
        error,
        flops=float(sum(m * n * (m + n) for m, n in layers)),
        moved=float(sum(4 * m * n + 6 * (m * m + n * n) for m, n in layers)),
    )
