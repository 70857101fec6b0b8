"""What power_iteration of the CPU and the emulated CUDA kernels are both held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from helpers import assert_accurate, assert_symmetric, normal
from torch import Tensor

from kronext import reference
from kronext.ops import KroneckerSum

Op: TypeAlias = Callable[..., KroneckerSum]
Shapes: TypeAlias = Sequence[tuple[int, int]]


def gradients(S: int, m: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Samples whose second moment has well separated singular values."""
    scales = 0.6 ** torch.arange(n, dtype=torch.float64)
    return (normal(S, m, n, dtype=torch.float64, seed=seed) * scales).to(dtype)


def distance(a: Tensor, b: Tensor) -> float:
    """Between unit matrices, up to sign."""
    return min(torch.linalg.norm(a - b).item(), torch.linalg.norm(a + b).item())


def forms(G: Tensor) -> dict[str, dict[str, object]]:
    """The same H in every form that the op takes."""
    S, m, n = G.shape
    eye = torch.eye(m, dtype=G.dtype).expand(S, m, m)
    return {
        "tensor": {"samples": G},
        "factored": {"samples": (eye, G)},
        "dense": {"samples": reference.second_moment(G), "shape": (m, n)},
        "batches": {"samples": [G[:3], G[3:5], G[5:]]},
        "factored batches": {"samples": [(eye[:4], G[:4]), (eye[4:], G[4:])]},
    }


def check_steps(power_iteration: Op, form: str) -> None:
    G = gradients(12, 5, 7)
    for steps in (0, 1, 2, 5):
        result = power_iteration(**forms(G)[form], steps=steps)
        expected = reference.power_iteration(G, steps=steps)
        for mine, other in zip(result, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


def check_values(power_iteration: Op, form: str, dtype: torch.dtype, shapes: Shapes) -> None:
    for m, n in shapes:
        if form == "dense" and m * n > 300:
            continue
        G = normal(8, m, n, dtype=dtype)
        if form == "dense":
            H = reference.second_moment(G).to(dtype)
            result = power_iteration(H, shape=(m, n))
            expected = reference.power_iteration(H, shape=(m, n))
        else:
            result = power_iteration(**forms(G)[form])
            expected = reference.power_iteration(G)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        bound = 1e-5 if wide == torch.float32 else 1e-12
        assert result.left.dtype == result.right.dtype == result.sigma.dtype == wide
        assert distance(result.left[0].double(), expected.left[0]) <= bound
        assert distance(result.right[0].double(), expected.right[0]) <= bound
        torch.testing.assert_close(result.sigma.double(), expected.sigma, rtol=bound, atol=0)


def check_pairs(
    power_iteration: Op,
    rank: int,
    dtype: torch.dtype,
    samples: tuple[int, int, int] = (40, 17, 33),
) -> None:
    result = power_iteration(gradients(*samples, dtype), rank=rank, steps=30)
    unit = torch.finfo(dtype).eps
    for factors in (result.left, result.right):
        torch.testing.assert_close(
            torch.linalg.matrix_norm(factors), torch.ones(rank, dtype=dtype), rtol=8 * unit, atol=0
        )
        assert_symmetric(factors[0])
        assert torch.linalg.eigvalsh(factors[0].double()).min() >= -16 * unit
        assert factors[0].trace() >= 0
        inner = torch.einsum("aij,bij->ab", factors.double(), factors.double())
        torch.testing.assert_close(inner, torch.eye(rank).double(), rtol=0, atol=64 * unit)
    assert (result.sigma >= 0).all()
    assert (result.sigma.diff() <= 0).all()
    image, _ = reference.kron_matvec(gradients(*samples), result.left[0], result.right[0])
    quotient = (result.left[0].double() * image).sum()
    torch.testing.assert_close(result.sigma[0].double(), quotient, rtol=4e-6, atol=0)


def check_zero_samples(power_iteration: Op, form: str, dtype: torch.dtype) -> None:
    for rank in (1, 2):
        given = forms(torch.zeros(7, 3, 4, dtype=dtype))[form]
        result = power_iteration(**given, rank=rank)
        assert torch.equal(result.sigma, result.sigma.new_zeros(rank))
        assert result.info == 0
        torch.testing.assert_close(
            torch.linalg.matrix_norm(result.left).double(), torch.ones(rank).double()
        )
        assert torch.equal(result.left[0], torch.eye(3, dtype=result.left.dtype) / 3**0.5)


DECAY, WEIGHT = 0.9, 0.3


def zeros(m: int, n: int, *batch: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(*batch, k, k, dtype=dtype) for k in (m, n)]


def check_online_steps(
    power_iteration_list_: Callable[..., None],
    dtype: torch.dtype,
    factor_dtype: torch.dtype,
    shapes: Shapes,
) -> None:
    """Three steps of power_iteration_list_ from zero."""
    wide = torch.float64 if torch.float64 in (dtype, factor_dtype) else torch.float32
    pairs = [zeros(*shape, dtype=factor_dtype) for shape in shapes]
    oracles = [tuple(t.double() for t in pair) for pair in pairs]
    Ls, Rs = ([pair[side] for pair in pairs] for side in (0, 1))
    for step in range(3):
        Gs = [normal(*shape, dtype=dtype, seed=step) for shape in shapes]
        plain = [online_step(L, R, G, wide) for L, R, G in zip(Ls, Rs, Gs, strict=True)]
        oracles = [
            reference.power_iteration_update(L, R, G, decay=DECAY, weight=WEIGHT)
            for L, R, G in zip(Ls, Rs, Gs, strict=True)
        ]
        power_iteration_list_(Ls, Rs, Gs, decay=DECAY, weight=WEIGHT)
        for pair, oracle, simple in zip(zip(Ls, Rs, strict=True), oracles, plain, strict=True):
            for mine, expected, other in zip(pair, oracle, simple, strict=True):
                assert_accurate(mine, expected, other.to(factor_dtype))
                assert_symmetric(mine)


def online_step(L: Tensor, R: Tensor, G: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    def unit(A: Tensor) -> Tensor:
        A = A.to(dtype)
        eye = torch.eye(A.shape[-1], dtype=dtype) / max(A.shape[-1], 1) ** 0.5
        return A / torch.linalg.norm(A) if A.any() else eye

    G, left, right = G.to(dtype), unit(L), unit(R)
    return DECAY * L + WEIGHT * (G @ right @ G.mT), DECAY * R + WEIGHT * (G.mT @ left @ G)
