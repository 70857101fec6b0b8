"""Products with the rearranged matrix against batched torch products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks import shapes
from benchmarks.inputs import error_of, normal, sets_of
from benchmarks.runner import Case, Growth, Job
from kronext import ops, reference


def whole() -> Iterator[Case]:
    """`kron_matvec`, samples as matrices."""
    for samples, m, n in (*shapes.SAMPLES, *((count, 64, 64) for count in shapes.SAMPLE_COUNTS)):
        growth = Growth("64 x 64", "samples", samples) if (m, n) == (64, 64) else None
        label = f"{samples} of {m} x {n}"
        yield Case("kron_matvec", label, partial(_whole, samples, m, n), growth=growth)


def factored() -> Iterator[Case]:
    """`kron_matvec_factored`, samples as products of outputs' and inputs' sides."""
    for samples, positions, m, n in shapes.FACTORED:
        label = f"{samples} of {m} x {n}, T = {positions}"
        yield Case("kron_matvec_factored", label, partial(_factored, samples, positions, m, n))


def rearranged() -> Iterator[Case]:
    """`rearranged_matvec`, a dense matrix."""
    for m, n in shapes.DENSE:
        growth = Growth("dense", "mn", m * n)
        yield Case("rearranged_matvec", f"mn = {m * n}", partial(_rearranged, m, n), growth=growth)


def _whole(samples: int, m: int, n: int, wants: Callable[[str], bool]) -> Job:
    G, L, R = normal(samples, m, n), normal(m, m, seed=1), normal(n, n, seed=2)
    L, R = L + L.T, R + R.T

    def ours(_: int) -> object:
        return ops.kron_matvec(G, L, R)

    def einsum(_: int) -> object:
        left = torch.einsum("sij,skj->ik", G @ R, G)
        right = torch.einsum("sji,sjk->ik", G, L @ G)
        return left / samples, right / samples

    return Job(
        [ours],
        {"einsum": [einsum]} if wants("einsum") else {},
        lambda: error_of(ops.kron_matvec(G, L, R)[0], reference.kron_matvec(G, L, R)[0]),
        flops=samples * 3.0 * m * n * (m + n),
        moved=float(G.nbytes),
    )


def _factored(samples: int, positions: int, m: int, n: int, wants: Callable[[str], bool]) -> Job:
    D, A = normal(samples, positions, m), normal(samples, positions, n, seed=1)
    L, R = normal(m, m, seed=2), normal(n, n, seed=3)
    L, R = L + L.T, R + R.T

    def ours(_: int) -> object:
        return ops.kron_matvec_factored(D, A, L, R)

    def products(_: int) -> object:
        """`G R GT = DT (A R AT) D`, in the order that is cheap for few positions."""
        left = torch.einsum("sti,stj->ij", D, (A @ R @ A.mT) @ D)
        right = torch.einsum("sti,stj->ij", A, (D @ L @ D.mT) @ A)
        return left / samples, right / samples

    def formed(_: int) -> object:
        G = D.mT @ A
        left = torch.einsum("sij,skj->ik", G @ R, G)
        right = torch.einsum("sji,sjk->ik", G, L @ G)
        return left / samples, right / samples

    T = positions
    apart = 3.0 * T * (m * m + n * n) + 4.0 * T * T * (m + n)
    together = 2.0 * T * m * n + 3.0 * m * n * (m + n)
    rivals = {"products of D and A": [products], "einsum of G": [formed]}
    return Job(
        [ours],
        {name: calls for name, calls in rivals.items() if wants(name)},
        lambda: error_of(
            ops.kron_matvec_factored(D, A, L, R)[0], reference.kron_matvec(D.mT @ A, L, R)[0]
        ),
        flops=samples * min(apart, together),
        moved=float(D.nbytes + A.nbytes),
    )


def _rearranged(m: int, n: int, wants: Callable[[str], bool]) -> Job:
    sets = sets_of(4.0 * (m * n) ** 2)
    H = [normal(m * n, m * n, seed=index) for index in range(sets)]
    L, R = normal(m, m, seed=1), normal(n, n, seed=2)

    def ours(i: int) -> object:
        return ops.rearranged_matvec(H[i], L, R)

    def einsum(i: int) -> object:
        H4 = H[i].view(m, n, m, n)
        return torch.einsum("ijkl,jl->ik", H4, R), torch.einsum("ijkl,ik->jl", H4, L)

    return Job(
        [ours],
        {"einsum": [einsum]} if wants("einsum") else {},
        lambda: error_of(
            ops.rearranged_matvec(H[0], L, R)[0], reference.rearranged_matvec(H[0], L, R)[0]
        ),
        flops=4.0 * (m * n) ** 2,
        moved=4.0 * (m * n) ** 2,
        sets=sets,
    )
