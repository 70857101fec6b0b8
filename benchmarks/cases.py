"""The cases: each op on its own shapes, against the torch calls that it replaces."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import get_args

import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.runner import Case
from kronext import ops, reference
from kronext.ops.inverse_root import Precision

# Inputs beyond the last-level cache are rotated through; one set is enough once it is that large.
_ROTATED_BYTES = 64e6


def _normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(*shape, generator=generator, device="cpu")
    return numbers.to(torch.get_default_device(), dtype)


def _error(result: Tensor, oracle: Tensor) -> float:
    return float((result.double() - oracle.double()).norm() / oracle.double().norm())


def _sets(bytes_of_one: float) -> int:
    return max(1, min(16, int(_ROTATED_BYTES / max(bytes_of_one, 1))))


def outer_update() -> Iterator[Case]:
    """`outer_update_` against the pair of `lerp_` calls on `G @ G.T` and `G.T @ G`."""
    for dtype in (torch.float32, torch.bfloat16):
        for m, n in shapes.SQUARE:
            count = _sets(4.0 * (m * m + n * n + m * n))
            G = [_normal(m, n, dtype=dtype, seed=i) for i in range(count)]
            L = [torch.zeros(m, m) for _ in G]
            R = [torch.zeros(n, n) for _ in G]

            def ours(i: int, G=G, L=L, R=R) -> None:
                ops.outer_update_(L[i], R[i], G[i], decay=0.9, weight=0.1)

            def lerp(i: int, G=G, L=L, R=R) -> None:
                g = G[i].float()
                L[i].lerp_(g @ g.T, 0.1)
                R[i].lerp_(g.T @ g, 0.1)

            def error(G=G, m=m) -> float:
                result = torch.zeros(m, m)
                ops.outer_update_(result, None, G[0], decay=0.0, weight=1.0)
                return _error(result, G[0].double() @ G[0].double().T)

            label = f"{m} x {n} {str(dtype).removeprefix('torch.')}"
            yield Case("outer_update_", label, ours, {"lerp_": lerp}, m * n * (m + n), error, count)
    yield from _outer_lists()


def _outer_lists() -> Iterator[Case]:
    lists = [(f"{c} of {m} x {n}", [(m, n)] * c) for c, m, n in shapes.SMALL]
    lists += [(name, layers * 2) for name, layers in shapes.MODELS.items()]
    for label, layers in lists:
        G = [_normal(m, n, seed=i) for i, (m, n) in enumerate(layers)]
        L = [torch.zeros(m, m) for m, _ in layers]
        R = [torch.zeros(n, n) for _, n in layers]

        def ours(_: int, G=G, L=L, R=R) -> None:
            ops.outer_update_list_(L, R, G, decay=0.9, weight=0.1)

        def loop(_: int, G=G, L=L, R=R) -> None:
            for l, r, g in zip(L, R, G, strict=True):
                l.lerp_(g @ g.T, 0.1)
                r.lerp_(g.T @ g, 0.1)

        def error(G=G, layers=layers) -> float:
            result = [torch.zeros(m, m) for m, _ in layers]
            ops.outer_update_list_(result, None, G, decay=0.0, weight=1.0)
            return _error(result[0], G[0].double() @ G[0].double().T)

        flops = sum(m * n * (m + n) for m, n in layers)
        yield Case("outer_update_list_", label, ours, {"loop of lerp_": loop}, flops, error)


def inverse_root() -> Iterator[Case]:
    """`A^(-1/4)` of a batch against `torch.linalg.eigh` (float32, float64) plus product."""
    for n, precision in itertools.product(shapes.ROOT_SIZES, get_args(Precision)):
        batch = max(32 if n <= 256 else 4, min(512, int(4e6 / n**2.5)))
        X = _normal(batch, n, 2 * n)
        A = X @ X.mT / n
        out = torch.empty_like(A)

        def ours(_: int, A=A, out=out, precision=precision) -> None:
            ops.inverse_root_(out, A, 4, eps=1e-6, precision=precision)

        def by_eigh(dtype: torch.dtype, A=A) -> Callable[[int], Tensor]:
            def call(_: int) -> Tensor:
                values, vectors = torch.linalg.eigh(A.to(dtype))
                powers = (values.clamp_min(0) + 1e-6) ** -0.25
                return ((vectors * powers.unsqueeze(-2)) @ vectors.mT).to(A.dtype)

            return call

        def error(A=A, precision=precision) -> float:
            result = ops.inverse_root(A[:4], 4, eps=1e-6, precision=precision).root
            return _error(result, reference.inverse_root(A[:4], 4, eps=1e-6))

        rivals = {"eigh float32": by_eigh(torch.float32), "eigh float64": by_eigh(torch.float64)}
        # Tridiagonalisation, vectors and the product, whatever the method: about 9 n^3.
        label = f"{batch} of {n} {precision}"
        yield Case("inverse_root_", label, ours, rivals, batch * 9.0 * n**3, error)


def precondition() -> Iterator[Case]:
    """`left G right` against two torch products."""
    lists = [(f"{m} x {n}", [(m, n)]) for m, n in shapes.SQUARE]
    lists += [(f"{c} of {m} x {n}", [(m, n)] * c) for c, m, n in shapes.SMALL]
    lists += [(name, layers * 2) for name, layers in shapes.MODELS.items()]
    for label, layers in lists:
        G = [_normal(m, n, seed=i) for i, (m, n) in enumerate(layers)]
        L = [_normal(m, m, seed=i + 1) for i, (m, _) in enumerate(layers)]
        R = [_normal(n, n, seed=i + 2) for i, (_, n) in enumerate(layers)]

        def ours(_: int, G=G, L=L, R=R) -> None:
            ops.precondition_list(G, L, R)

        def products(_: int, G=G, L=L, R=R) -> list[Tensor]:
            return [left @ g @ right for g, left, right in zip(G, L, R, strict=True)]

        def error(G=G, L=L, R=R) -> float:
            return _error(
                ops.precondition(G[0], L[0], R[0]), reference.precondition(G[0], L[0], R[0])
            )

        flops = sum(2.0 * m * n * (m + n) for m, n in layers)
        yield Case("precondition", label, ours, {"two products": products}, flops, error)


def kron_matvec() -> Iterator[Case]:
    """Both products with the rearranged matrix, from samples, against batched torch products."""
    for samples, m, n in shapes.SAMPLES:
        G, L, R = _normal(samples, m, n), _normal(m, m, seed=1), _normal(n, n, seed=2)
        L, R = L + L.T, R + R.T

        def ours(_: int, G=G, L=L, R=R) -> object:
            return ops.kron_matvec(G, L, R)

        def matmul(_: int, G=G, L=L, R=R) -> object:
            left = torch.einsum("sij,skj->ik", G @ R, G)
            right = torch.einsum("sji,sjk->ik", G, L @ G)
            return left / len(G), right / len(G)

        def error(G=G, L=L, R=R) -> float:
            return _error(ops.kron_matvec(G, L, R)[0], reference.kron_matvec(G, L, R)[0])

        flops = samples * 3.0 * m * n * (m + n)
        yield Case("kron_matvec", f"{samples} of {m} x {n}", ours, {"einsum": matmul}, flops, error)


def rearranged_matvec() -> Iterator[Case]:
    """Both products with the rearranged dense matrix against torch's, which read it twice."""
    for m, n in [(16, 16), (32, 32), (64, 48)]:
        H, L, R = _normal(m * n, m * n), _normal(m, m, seed=1), _normal(n, n, seed=2)

        def ours(_: int, H=H, L=L, R=R) -> object:
            return ops.rearranged_matvec(H, L, R)

        def einsum(_: int, H=H, L=L, R=R, m=m, n=n) -> object:
            H4 = H.view(m, n, m, n)
            return torch.einsum("ijkl,jl->ik", H4, R), torch.einsum("ijkl,ik->jl", H4, L)

        def error(H=H, L=L, R=R) -> float:
            return _error(
                ops.rearranged_matvec(H, L, R)[0], reference.rearranged_matvec(H, L, R)[0]
            )

        label = f"mn = {m * n}"
        yield Case("rearranged_matvec", label, ours, {"einsum": einsum}, 4.0 * (m * n) ** 2, error)


CASES: dict[str, Callable[[], Iterator[Case]]] = {
    "outer_update": outer_update,
    "inverse_root": inverse_root,
    "precondition": precondition,
    "kron_matvec": kron_matvec,
    "rearranged_matvec": rearranged_matvec,
}
