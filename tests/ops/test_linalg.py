"""The fallback of the CUDA inverse roots, which runs on any device: against the CPU op."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    FACTOR,
    assert_symmetric,
    name,
    normal,
    relative_error,
    symmetric,
    with_condition,
)
from torch import Tensor

from kronext import ops

by_linalg = torch.ops.kronext.inverse_root_by_linalg.default


def check(A: Tensor, root: float, eps: float = 0.0, relative_eps: float = 0.0) -> None:
    expected = ops.inverse_root(A, root, eps=eps, relative_eps=relative_eps)
    X, vectors, values, info = by_linalg(A, root, eps, relative_eps, None)
    bound = 3e-6 if A.dtype == torch.float32 else 1e-11
    assert torch.equal(info, expected.info)
    assert info.dtype == torch.int32
    assert X.dtype == vectors.dtype == values.dtype == A.dtype
    assert relative_error(X, expected.root) <= bound
    assert relative_error(values, expected.values) <= bound
    assert relative_error(vectors @ (values.unsqueeze(-1) * vectors.mT), A) <= bound
    assert_symmetric(X)


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_values(dtype: torch.dtype) -> None:
    for n in (1, 2, 7, 40):
        check(with_condition(n, 1e4, batch=(3,), dtype=dtype, seed=n), 4)
        check(symmetric(2, n, n, dtype=dtype), 2, eps=1e-2)
        check(symmetric(n, n, dtype=dtype), 1.5, relative_eps=1e-3)
    check(torch.zeros(3, 0, 0, dtype=dtype), 4)


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_singular_matrices_have_the_root_of_their_pseudo_inverse(dtype: torch.dtype) -> None:
    factor = torch.arange(12, dtype=dtype).view(6, 2) % 5 - 2
    check(factor @ factor.mT, 4)
    X, *_ = by_linalg(torch.zeros(4, 4, dtype=dtype), 2.0, 0.0, 0.0, None)
    assert not X.any()


def test_only_the_lower_triangle_is_read() -> None:
    A = symmetric(2, 9, 9)
    poisoned = A.tril() + torch.full((9, 9), float("nan")).triu(1)
    for result, expected in zip(
        by_linalg(poisoned, 4.0, 0.0, 0.0, None), by_linalg(A, 4.0, 0.0, 0.0, None), strict=True
    ):
        assert torch.equal(result, expected)


def test_failures_leave_their_neighbours_and_keep_what_was_there() -> None:
    A = symmetric(4, 6, 6)
    clean = by_linalg(A, 4.0, 1e-3, 0.0, None)
    A[1, 3, 2] = float("nan")
    A[2] = 0.0
    A[2, 0, 0] = 1e-38  # to the power of -4 that is beyond float32
    kept = normal(4, 6, 6)
    X, vectors, values, info = by_linalg(A, 0.25, 0.0, 0.0, kept)
    assert info.tolist() == [0, 1, 2, 0]
    assert torch.equal(X[1:3], kept[1:3])
    assert torch.equal(vectors[1], torch.eye(6))
    assert torch.equal(values[1], torch.ones(6))
    results = by_linalg(A[[0, 1, 3]], 4.0, 1e-3, 0.0, None)
    for result, expected in zip(results, clean, strict=True):
        assert torch.equal(result[[0, 2]], expected[[0, 3]])
    assert torch.equal(results[0][1], torch.eye(6))


@pytest.mark.real
def test_opcheck() -> None:
    torch.library.opcheck(by_linalg, (symmetric(2, 5, 5), 4.0, 0.0, 1e-3, None))
    torch.library.opcheck(by_linalg, (symmetric(5, 5), 4.0, 0.0, 1e-3, torch.zeros(5, 5)))


def test_it_is_known_to_be_unsafe_in_a_graph() -> None:
    assert torch.Tag.cudagraph_unsafe in by_linalg.tags
