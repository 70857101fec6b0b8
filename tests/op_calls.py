"""One call of every op: for tests of what a device makes of it.

Each entry makes inputs, the same ones every time, and gives back a call on them. What it returns
are all tensors that the call wrote.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from helpers import normal, symmetric, with_condition
from torch import Tensor

from kronext import ops

Call = Callable[[], list[Tensor]]
NUMBERS = {"decay": 0.9, "weight": 0.1}


def factors(m: int, n: int) -> tuple[Tensor, Tensor]:
    return symmetric(m, m, seed=1), symmetric(n, n, seed=2)


def outer_update_() -> Call:
    G, (L, R) = normal(33, 70), factors(33, 70)

    def call() -> list[Tensor]:
        ops.outer_update_(L, R, G, **NUMBERS)
        return [L, R]

    return call


def outer_update_list_() -> Call:
    Gs = [normal(33, 70), normal(5, 9), normal(200, 16).bfloat16()]
    Ls, Rs = (list(side) for side in zip(*(factors(*G.shape) for G in Gs), strict=True))

    def call() -> list[Tensor]:
        ops.outer_update_list_(Ls, Rs, Gs, **NUMBERS)
        return [*Ls, *Rs]

    return call


def eigh() -> Call:
    A = with_condition(40, 1e3, batch=(3,))
    return lambda: list(ops.eigh(A))


def inverse_root() -> Call:
    A = with_condition(40, 1e3, batch=(3,))
    return lambda: list(ops.inverse_root(A, 4, eps=1e-6))


def inverse_root_() -> Call:
    A = with_condition(200, 1e3)
    out, basis = torch.zeros_like(A), ops.eigh(A).vectors
    return lambda: [ops.inverse_root_(out, A, 4, relative_eps=1e-6, basis=basis), out]


def matrices() -> list[Tensor]:
    return [with_condition(n, 1e3, seed=n) for n in (4, 20, 33, 130)]


def inverse_root_list() -> Call:
    As = matrices()

    def call() -> list[Tensor]:
        roots, bases, values, info = ops.inverse_root_list(As, 4)
        return [*roots, *bases, *values, info]

    return call


def inverse_root_list_() -> Call:
    As = matrices()
    outs = [torch.zeros_like(A) for A in As]
    return lambda: [ops.inverse_root_list_(outs, As, 4), *outs]


def precondition() -> Call:
    G, left, right = normal(2, 33, 70), normal(33, 33), normal(70, 70)
    return lambda: [ops.precondition(G, left, right)]


def gradients_and_sides() -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
    Gs = [normal(33, 70), normal(5, 9), normal(200, 16).bfloat16()]
    lefts, rights = (list(side) for side in zip(*(factors(*G.shape) for G in Gs), strict=True))
    return Gs, [None, *lefts[1:]], rights


def precondition_list() -> Call:
    lists = gradients_and_sides()
    return lambda: ops.precondition_list(*lists)


def precondition_list_with_squares() -> Call:
    lists = gradients_and_sides()

    def call() -> list[Tensor]:
        outputs, squares = ops.precondition_list_with_squares(*lists)
        return [*outputs, squares]

    return call


def kron_matvec() -> Call:
    G, (L, R) = normal(9, 33, 70), factors(33, 70)
    return lambda: list(ops.kron_matvec(G, L, R))


def kron_matvec_factored() -> Call:
    D, A, (L, R) = normal(9, 4, 33), normal(9, 4, 70), factors(33, 70)
    return lambda: list(ops.kron_matvec_factored(D, A, L, R))


def rearranged_matvec() -> Call:
    H, (L, R) = symmetric(120, 120), factors(10, 12)
    return lambda: list(ops.rearranged_matvec(H, L, R))


def power_iteration() -> Call:
    G, H = normal(9, 12, 20), symmetric(120, 120)

    def call() -> list[Tensor]:
        whole = ops.power_iteration(G, rank=2, steps=3, tol=1e-3)
        factored = ops.power_iteration((G.mT, G.mT @ G))
        return [*whole, *factored, *ops.power_iteration(H, shape=(10, 12))]

    return call


def power_iteration_list_() -> Call:
    Gs = [normal(33, 70), normal(5, 9)]
    Ls, Rs = (list(side) for side in zip(*(factors(*G.shape) for G in Gs), strict=True))

    def call() -> list[Tensor]:
        ops.power_iteration_list_(Ls, Rs, Gs, **NUMBERS)
        return [*Ls, *Rs]

    return call


CALLS: dict[str, Callable[[], Call]] = {
    make.__name__: make
    for make in (
        outer_update_, outer_update_list_, eigh, inverse_root, inverse_root_, inverse_root_list,
        inverse_root_list_, precondition, precondition_list, precondition_list_with_squares,
        kron_matvec, kron_matvec_factored, rearranged_matvec, power_iteration,
        power_iteration_list_,
    )
}  # fmt: skip
