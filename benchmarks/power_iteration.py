"""The best Kronecker product by power iteration against the same rounds of torch products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks import shapes
from benchmarks.inputs import error_of, normal
from benchmarks.runner import Case, Job
from kronext import ops, reference

STEPS = 5


def samples() -> Iterator[Case]:
    """From samples, five rounds as in the paper."""
    for count, m, n in shapes.SAMPLES:
        label = f"{count} of {m} x {n}"
        yield Case("power_iteration", label, partial(_samples, count, m, n))


def online() -> Iterator[Case]:
    """One round a training step for a list of parameters, as the estimator `optimal` does."""
    for name, layers in shapes.MODELS.items():
        yield Case("power_iteration_list_", name, partial(_online, layers * 2))


def _samples(count: int, m: int, n: int, wants: Callable[[str], bool]) -> Job:
    G = normal(count, m, n) + normal(m, n, seed=1)

    def ours(_: int) -> object:
        return ops.power_iteration(G, steps=STEPS)

    def einsum(_: int) -> object:
        left, right = torch.eye(m), torch.eye(n)
        for _round in range(STEPS):
            next_left = torch.einsum("sij,skj->ik", G @ right, G)
            next_right = torch.einsum("sji,sjk->ik", G, left @ G)
            left, right = next_left / next_left.norm(), next_right / next_right.norm()
        return left, right

    def error() -> float:
        result, oracle = (
            ops.power_iteration(G, steps=STEPS),
            reference.power_iteration(G, steps=STEPS),
        )
        return error_of(result.left, oracle.left)

    return Job(
        [ours],
        {"einsum": [einsum]} if wants("einsum") else {},
        error,
        flops=STEPS * count * 3.0 * m * n * (m + n),
        moved=float(STEPS * G.nbytes),
    )


def _online(layers: list[shapes.Shape], wants: Callable[[str], bool]) -> Job:
    G = [normal(m, n, seed=index) for index, (m, n) in enumerate(layers)]
    L, R = [torch.eye(m) for m, _ in layers], [torch.eye(n) for _, n in layers]

    def ours(_: int) -> None:
        ops.power_iteration_list_(L, R, G, decay=0.9, weight=0.1)

    def loop(_: int) -> None:
        for l, r, g in zip(L, R, G, strict=True):
            left, right = g @ (r / r.norm()) @ g.T, g.T @ (l / l.norm()) @ g
            l.lerp_(left, 0.1)
            r.lerp_(right, 0.1)

    def error() -> float:
        left, right = [torch.eye(m) for m, _ in layers], [torch.eye(n) for _, n in layers]
        ops.power_iteration_list_(left, right, G, decay=0.0, weight=1.0)
        g, inner = G[0].double(), torch.eye(layers[0][1], dtype=torch.float64)
        return error_of(left[0], g @ (inner / inner.norm()) @ g.T)

    return Job(
        [ours],
        {"loop of products": [loop]} if wants("loop of products") else {},
        error,
        flops=float(sum(3 * m * n * (m + n) for m, n in layers)),
        moved=float(sum(4 * m * n + 6 * (m * m + n * n) for m, n in layers)),
    )
