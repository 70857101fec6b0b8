"""kron_matvec, kron_matvec_factored and rearranged_matvec: products with the rearranged H."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import (
    FLOATING,
    SHAPES,
    assert_refused,
    name,
    normal,
    sliced,
    transposed_memory,
)
from matvec_cases import (
    KINDS,
    POSITIONS,
    check_factored,
    check_matvec,
    check_non_finite,
    check_rearranged,
    dense,
    inner,
)
from torch import Tensor
from torch.library import opcheck

from kronext import ops, reference


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_shape(kind: str, dtype: torch.dtype) -> None:
    for index, (m, n) in enumerate(SHAPES):
        G = normal(1 + 7 * index, m, n, dtype=dtype)
        check_matvec(ops, G, *inner(m, n, kind))
        check_matvec(ops, G, *inner(m, n, kind, torch.float64))


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_factored_samples_of_every_shape(kind: str, dtype: torch.dtype) -> None:
    for index, (m, n) in enumerate(SHAPES):
        S, T = 1 + 5 * index, POSITIONS[index % len(POSITIONS)]
        D, A = normal(S, T, m, dtype=dtype), normal(S, T, n, dtype=dtype, seed=5)
        check_factored(ops, D, A, *inner(m, n, kind))
        check_factored(ops, D, A, *inner(m, n, kind, torch.float64))


@pytest.mark.parametrize("T", POSITIONS)
def test_factored_positions(T: int) -> None:
    """Every way in which samples fill panels, for more samples than one group holds."""
    for S, m, n in [(70, 40, 50), (3, 100, 90), (600, 9, 8)]:
        check_factored(ops, normal(S, T, m), normal(S, T, n, seed=3), *inner(m, n, "symmetric"))


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_dense_of_every_shape(kind: str, dtype: torch.dtype) -> None:
    for m, n in SHAPES:
        if m * n <= 1100:
            check_rearranged(ops, dense(m * n, m * n, dtype=dtype), *inner(m, n, kind))
    check_rearranged(ops, dense(33, 33, dtype=dtype), *inner(3, 11, kind, torch.float64))
    check_rearranged(ops, dense(300, 300, dtype=dtype), *inner(2, 150, kind))


def test_dense_counts_its_symmetric_part_where_a_factor_is_symmetric() -> None:
    H = normal(30, 30)
    L, R = inner(5, 6, "symmetric")
    for result, expected in zip(
        ops.rearranged_matvec(H, L, R),
        reference.rearranged_matvec((H + H.mT) / 2, L, R),
        strict=True,
    ):
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    check_rearranged(ops, H, *inner(5, 6, "general"))


@pytest.mark.parametrize("kind", KINDS)
def test_weights(kind: str) -> None:
    for dtype in (torch.float32, torch.float64):
        weights = normal(50, dtype=dtype)
        check_matvec(ops, normal(50, 20, 33), *inner(20, 33, kind), weights)
        check_matvec(
            ops, normal(2, 50, 3, 4), *inner(3, 4, kind), normal(2, 100, dtype=dtype)[:, ::2]
        )
        for T in (1, 3, 40):
            D, A = normal(50, T, 20), normal(50, T, 33, seed=3)
            check_factored(ops, D, A, *inner(20, 33, kind), weights)


def test_no_samples_or_no_positions_give_zeros() -> None:
    L, R = inner(4, 5, "general")
    empty = [
        ops.kron_matvec(torch.zeros(0, 4, 5), L, R),
        ops.kron_matvec_factored(torch.zeros(0, 2, 4), torch.zeros(0, 2, 5), L, R),
        ops.kron_matvec_factored(torch.zeros(3, 0, 4), torch.zeros(3, 0, 5), L, R),
    ]
    for left, right in empty:
        assert torch.equal(left, torch.zeros(4, 4))
        assert torch.equal(right, torch.zeros(5, 5))


@pytest.mark.parametrize("view", [sliced, transposed_memory, lambda t: t.flip(-3).flip(-3)])
def test_strided_operands(view: Callable[[Tensor], Tensor]) -> None:
    L, R = inner(20, 33, "general")
    matrices = (lambda t: t) if view not in (sliced, transposed_memory) else view
    check_matvec(ops, view(normal(9, 20, 33)), matrices(L), matrices(R))
    check_matvec(ops, view(normal(9, 20, 33).bfloat16()), matrices(L), matrices(R))
    for T in (2, 40):
        D, A = normal(9, T, 20), normal(9, T, 33, seed=3)
        check_factored(ops, view(D), view(A), matrices(L), matrices(R))
        check_factored(ops, D.transpose(0, 1).contiguous().transpose(0, 1), A, L, R)
    L, R = inner(5, 7, "general")
    H = dense(35, 35)
    check_rearranged(ops, matrices(H), matrices(L), matrices(R))
    check_rearranged(ops, matrices(H.bfloat16()), matrices(L), matrices(R))
    buffer = torch.full((36, 50), float("nan"))
    buffer[:35, :35] = H
    check_rearranged(ops, buffer[:35, :35], L, R)


def test_batch_dimensions_broadcast() -> None:
    L, R = normal(3, 6, 6), normal(2, 1, 7, 7)
    check_matvec(ops, normal(20, 6, 7), L, R)
    check_matvec(ops, normal(20, 6, 7).expand(2, 3, 20, 6, 7), L, R, normal(3, 20))
    check_factored(ops, normal(3, 20, 2, 6), normal(2, 1, 20, 2, 7), L, R)
    check_rearranged(ops, dense(3, 42, 42), L, R)
    assert ops.kron_matvec(normal(20, 6, 7), L, R)[0].shape == (2, 3, 6, 6)


def test_large_matrices_share_threads_by_rows() -> None:
    check_matvec(ops, normal(2, 520, 400), *inner(520, 400, "symmetric"))
    check_matvec(ops, normal(5, 500, 520), *inner(500, 520, "general"))
    check_factored(ops, normal(2, 3, 520), normal(2, 3, 400, seed=3), *inner(520, 400, "symmetric"))


def test_many_samples_do_not_lose_accuracy() -> None:
    G = normal(20_000, 8, 8) + 1
    L, R = inner(8, 8, "identity")
    oracle = reference.kron_matvec(G, L, R)
    for result, expected in zip(ops.kron_matvec(G, L, R), oracle, strict=True):
        assert torch.linalg.norm(result - expected) <= 2e-7 * torch.linalg.norm(expected)


def test_dense_equals_samples() -> None:
    G = normal(30, 5, 6, dtype=torch.float64)
    L, R = inner(5, 6, "general", torch.float64)
    from_samples = ops.kron_matvec(G, L, R)
    from_matrix = ops.rearranged_matvec(reference.second_moment(G), L, R)
    torch.testing.assert_close(from_samples, from_matrix, rtol=1e-12, atol=1e-12)


def test_non_finite_values_stay_in_their_batch_entry() -> None:
    check_non_finite(ops, 20, (6, 40))


def every_op() -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    L, R = inner(70, 40, "symmetric")
    G, D, A = normal(300, 70, 40), normal(300, 2, 70), normal(300, 2, 40)
    H, (small_L, small_R) = dense(800, 800), inner(20, 40, "general")
    return {
        "kron_matvec": lambda: ops.kron_matvec(G, L, R),
        "kron_matvec_factored": lambda: ops.kron_matvec_factored(D, A, L, R),
        "rearranged_matvec": lambda: ops.rearranged_matvec(H, small_L, small_R),
    }


@pytest.mark.parametrize("op", list(every_op()))
def test_repeats_bit_for_bit_and_agrees_across_thread_counts(op: str) -> None:
    call = every_op()[op]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(call())
    finally:
        torch.set_num_threads(threads)
    for one, two, again in zip(*results, strict=True):
        assert torch.equal(two, again)
        assert torch.linalg.norm(one - two) <= 1e-6 * torch.linalg.norm(one)


def test_no_graph_is_recorded() -> None:
    L, R = (t.requires_grad_() for t in inner(4, 5, "general"))
    G = normal(3, 4, 5).requires_grad_()
    for result in (*ops.kron_matvec(G, L, R), *ops.rearranged_matvec(dense(20, 20), L, R)):
        assert not result.requires_grad


@pytest.mark.real
def test_opcheck() -> None:
    L, R = inner(4, 5, "general")
    G, D, A = (normal(*s) for s in ((2, 3, 4, 5), (3, 2, 4), (3, 2, 5)))
    weights = normal(3)
    for given in (None, weights):
        options = {"weights": given}
        opcheck(torch.ops.kronext.kron_matvec.default, (G, L, R), options)
        opcheck(torch.ops.kronext.kron_matvec_factored.default, (D, A, L, R), options)
    H = dense(20, 20, dtype=torch.bfloat16)
    opcheck(torch.ops.kronext.rearranged_matvec.default, (H, L, R.double().float()))


@pytest.mark.real
def test_compiles_to_one_graph() -> None:
    def step(G: Tensor, D: Tensor, A: Tensor, H: Tensor, L: Tensor, R: Tensor) -> Tensor:
        left, right = ops.kron_matvec(G * 2, L, R, weights=G[:, 0, 0])
        more = ops.kron_matvec_factored(D, A, L, R)
        dense = ops.rearranged_matvec(H, left, right)
        return sum(t.sum() for t in (left, right, *more, *dense))

    given = (normal(3, 4, 5), normal(3, 2, 4), normal(3, 2, 5), dense(20, 20))
    given = (*given, *inner(4, 5, "general"))
    torch.testing.assert_close(torch.compile(step, fullgraph=True)(*given), step(*given))


GIVEN = {"G": torch.ones(3, 4, 5), "L": torch.ones(4, 4), "R": torch.ones(5, 5)}
BAD = [
    ({"G": torch.zeros(4, 5)}, ValueError, "G must have at least 3 dimensions"),
    ({"G": [1.0]}, TypeError, "G must be a tensor"),
    ({"G": torch.zeros(3, 4, 5, dtype=torch.int64)}, TypeError, "G must have dtype"),
    ({"L": torch.zeros(5, 5)}, ValueError, "L must be 4 x 4"),
    ({"R": torch.zeros(5, 5, dtype=torch.float16)}, TypeError, "R must have dtype"),
    ({"R": torch.zeros(5, 5).double()}, TypeError, "L and R must have one dtype"),
    ({"L": torch.zeros(2, 4, 4), "R": torch.zeros(3, 5, 5)}, ValueError, "batch dimensions"),
    ({"weights": torch.zeros(4)}, ValueError, "weights must have shape (..., 3)"),
    ({"weights": torch.zeros(3).int()}, TypeError, "weights must be a float32 or float64 tensor"),
    ({"R": torch.zeros(5, 5, device="meta")}, ValueError, "tensors must be on one device"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_samples_are_refused(change, error, message: str) -> None:
    assert_refused(lambda: ops.kron_matvec(**GIVEN | change), error, f"kron_matvec: {message}")


def test_bad_factored_and_dense_are_refused() -> None:
    L, R = GIVEN["L"], GIVEN["R"]
    D, A, H = torch.zeros(3, 2, 4), torch.zeros(3, 2, 5), torch.zeros(20, 20)
    cases = [
        (lambda: ops.kron_matvec_factored(D, A[:2], L, R), ValueError, "the same samples and"),
        (lambda: ops.kron_matvec_factored(D, A[:, :1], L, R), ValueError, "samples and positions"),
        (lambda: ops.kron_matvec_factored(D, A.double(), L, R), TypeError, "one dtype"),
        (lambda: ops.rearranged_matvec(H[:, :19], L, R), ValueError, "H must be 20 x 20"),
        (lambda: ops.rearranged_matvec(H, L[:3], R), ValueError, "L must be square"),
        (lambda: ops.rearranged_matvec(H.cfloat(), L, R), TypeError, "H must have dtype"),
    ]
    for call, error, message in cases:
        assert_refused(call, error, message)
