"""`left G right`, alone and in lists, against two torch products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks import shapes
from benchmarks.inputs import error_of, normal, sets_of
from benchmarks.outer import list_cases
from benchmarks.runner import Case, Growth, Job
from kronext import ops, reference


def one() -> Iterator[Case]:
    """One matrix at a time."""
    for m, n in (*shapes.SQUARE, *shapes.OBLONG):
        growth = Growth("square", "n", n) if m == n else None
        yield Case("precondition", f"{m} x {n}", partial(_one, m, n), growth=growth)


def lists() -> Iterator[Case]:
    """Ragged lists."""
    for name, layers, growth in list_cases():
        yield Case("precondition_list", name, partial(_list, layers), growth=growth)


def _one(m: int, n: int, wants: Callable[[str], bool]) -> Job:
    sets = sets_of(4 * (m * m + n * n + 2 * m * n))
    G = [normal(m, n, seed=index) for index in range(sets)]
    left = [normal(m, m, seed=index + 1) for index in range(sets)]
    right = [normal(n, n, seed=index + 2) for index in range(sets)]

    def ours(i: int) -> object:
        return ops.precondition(G[i], left[i], right[i])

    def products(i: int) -> object:
        return left[i] @ G[i] @ right[i]

    return Job(
        [ours],
        {"two products": [products]} if wants("two products") else {},
        lambda: error_of(
            ops.precondition(G[0], left[0], right[0]),
            reference.precondition(G[0], left[0], right[0]),
        ),
        flops=2.0 * m * n * (m + n),
        moved=4.0 * (m * m + n * n + 2 * m * n),
        sets=sets,
    )


def _list(layers: Sequence[shapes.Shape], wants: Callable[[str], bool]) -> Job:
    G = [normal(m, n, seed=index) for index, (m, n) in enumerate(layers)]
    lefts = [normal(m, m, seed=index + 1) for index, (m, _) in enumerate(layers)]
    rights = [normal(n, n, seed=index + 2) for index, (_, n) in enumerate(layers)]

    def ours(_: int) -> object:
        return ops.precondition_list(G, lefts, rights)

    def products(_: int) -> object:
        return [left @ g @ right for g, left, right in zip(G, lefts, rights, strict=True)]

    return Job(
        [ours],
        {"two products": [products]} if wants("two products") else {},
        lambda: error_of(
            ops.precondition_list(G, lefts, rights)[0],
            reference.precondition(G[0], lefts[0], rights[0]),
        ),
        flops=float(sum(2 * m * n * (m + n) for m, n in layers)),
        moved=float(sum(4 * (m * m + n * n + 2 * m * n) for m, n in layers)),
    )
