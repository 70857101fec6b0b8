"""What the CPU ops and the emulated CUDA kernels of the matvecs are both held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from helpers import assert_symmetric, normal
from torch import Tensor

from kronext import reference


class Matvecs(Protocol):
    """`kronext.ops`, or the emulated kernels behind its signatures."""

    kron_matvec: Callable[..., tuple[Tensor, Tensor]]
    kron_matvec_factored: Callable[..., tuple[Tensor, Tensor]]
    rearranged_matvec: Callable[..., tuple[Tensor, Tensor]]


# Small T keeps D and A apart, large T forms G; panel widths +- 1 in between.
POSITIONS = [1, 2, 5, 15, 17, 31, 33, 80]


def inner(m: int, n: int, kind: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    match kind:
        case "general":
            return normal(m, m, dtype=dtype, seed=1), normal(n, n, dtype=dtype, seed=2)
        case "symmetric":
            L, R = (normal(k, k, dtype=dtype, seed=k) for k in (m, n))
            return (L + L.mT) / 2, (R + R.mT) / 2
    return 3 * torch.eye(m, dtype=dtype), torch.eye(n, dtype=dtype)


KINDS = ["general", "symmetric", "identity"]


def plain_matvec(G: Tensor, L: Tensor, R: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    weighted = weights.to(G.dtype)[..., None, None] * G
    L, R = L.to(G.dtype).unsqueeze(-3), R.to(G.dtype).unsqueeze(-3)
    return (weighted @ R @ G.mT).sum(-3), (weighted.mT @ L @ G).sum(-3)


def dense(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Symmetric bit for bit."""
    H = normal(*shape, dtype=torch.float64)
    return ((H + H.mT) / 2).to(dtype)


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def check(
    results: tuple[Tensor, Tensor],
    plain: tuple[Tensor, Tensor],
    oracle: Callable[..., tuple[Tensor, Tensor]],
    *arguments: Tensor,
    **options: Tensor | None,
) -> None:
    """At most twice the error of plain torch, and the rounding of sums that do not cancel."""
    L, R = arguments[-2:]
    magnitudes = {k: None if t is None else t.abs() for k, t in options.items()}
    sizes = oracle(*(t.abs() for t in arguments), **magnitudes)
    for result, simple, expected, size, inner_matrix in zip(
        results, plain, oracle(*arguments, **options), sizes, (R, L), strict=True
    ):
        # float64 results are held against an oracle that rounds as they do.
        floor = torch.finfo(result.dtype).eps * (32 if result.dtype == torch.float64 else 4)
        bound = 2 * torch.linalg.norm(simple - expected) + floor * torch.linalg.norm(size)
        assert result.dtype == simple.dtype
        assert torch.linalg.norm(result - expected) <= bound
        if torch.equal(inner_matrix, inner_matrix.mT):
            assert_symmetric(result)


def check_matvec(
    ops: Matvecs, G: Tensor, L: Tensor, R: Tensor, weights: Tensor | None = None
) -> None:
    S, wide = G.shape[-3], wide_dtype(G, L)
    w = torch.ones(S).double() / max(S, 1) if weights is None else weights
    results = ops.kron_matvec(G, L, R, weights=weights)
    plain = plain_matvec(G.to(wide), L, R, w)
    check(results, plain, reference.kron_matvec, G, L, R, weights=weights)


def check_factored(
    ops: Matvecs, D: Tensor, A: Tensor, L: Tensor, R: Tensor, weights: Tensor | None = None
) -> None:
    S, wide = D.shape[-3], wide_dtype(D, L)
    w = torch.ones(S).double() / max(S, 1) if weights is None else weights
    results = ops.kron_matvec_factored(D, A, L, R, weights=weights)
    plain = plain_matvec(D.mT.to(wide) @ A.to(wide), L, R, w)
    check(results, plain, reference.kron_matvec_factored, D, A, L, R, weights=weights)


def check_rearranged(ops: Matvecs, H: Tensor, L: Tensor, R: Tensor) -> None:
    wide, m, n = wide_dtype(H, L), L.shape[-1], R.shape[-1]
    H4 = H.to(wide).unflatten(-1, (m, n)).unflatten(-3, (m, n))
    plain = (
        torch.einsum("...ijkl,...jl->...ik", H4, R.to(wide)),
        torch.einsum("...ijkl,...ik->...jl", H4, L.to(wide)),
    )
    check(ops.rearranged_matvec(H, L, R), plain, reference.rearranged_matvec, H, L, R)


def check_non_finite(ops: Matvecs, samples: int, dense_shape: tuple[int, int]) -> None:
    """A NaN in one of three batch entries leaves the other two bit for bit."""
    L, R = inner(6, 40, "symmetric")
    dense_L, dense_R = inner(*dense_shape, "symmetric")
    size = dense_shape[0] * dense_shape[1]
    G, H = normal(3, samples, 6, 40), normal(3, size, size)
    D, A = normal(3, samples, 2, 6), normal(3, samples, 2, 40)
    calls: list[tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]] = [
        (G, lambda: ops.kron_matvec(G, L, R)),
        (D, lambda: ops.kron_matvec_factored(D, A, L, R)),
        (H, lambda: ops.rearranged_matvec(H, dense_L, dense_R)),
    ]
    for poisoned, call in calls:
        clean = call()
        poisoned[1].view(-1)[7] = float("nan")
        for result, before in zip(call(), clean, strict=True):
            assert torch.equal(result[::2], before[::2])
            assert result[1].isnan().any()
