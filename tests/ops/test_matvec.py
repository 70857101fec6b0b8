"""kron_matvec, kron_matvec_factored and rearranged_matvec: products with the rearranged H."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import (
    DEVICES,
    FLOATING,
    SHAPES,
    assert_refused,
    assert_symmetric,
    name,
    normal,
    sliced,
    transposed_memory,
)
from torch import Tensor
from torch.library import opcheck

from kronext import ops, reference

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


def check_matvec(G: Tensor, L: Tensor, R: Tensor, weights: Tensor | None = None) -> None:
    S, wide = G.shape[-3], wide_dtype(G, L)
    w = torch.ones(S).double() / max(S, 1) if weights is None else weights
    results = ops.kron_matvec(G, L, R, weights=weights)
    plain = plain_matvec(G.to(wide), L, R, w)
    check(results, plain, reference.kron_matvec, G, L, R, weights=weights)


def check_factored(
    D: Tensor, A: Tensor, L: Tensor, R: Tensor, weights: Tensor | None = None
) -> None:
    S, wide = D.shape[-3], wide_dtype(D, L)
    w = torch.ones(S).double() / max(S, 1) if weights is None else weights
    results = ops.kron_matvec_factored(D, A, L, R, weights=weights)
    plain = plain_matvec(D.mT.to(wide) @ A.to(wide), L, R, w)
    check(results, plain, reference.kron_matvec_factored, D, A, L, R, weights=weights)


def check_rearranged(H: Tensor, L: Tensor, R: Tensor) -> None:
    wide, m, n = wide_dtype(H, L), L.shape[-1], R.shape[-1]
    H4 = H.to(wide).unflatten(-1, (m, n)).unflatten(-3, (m, n))
    plain = (
        torch.einsum("...ijkl,...jl->...ik", H4, R.to(wide)),
        torch.einsum("...ijkl,...ik->...jl", H4, L.to(wide)),
    )
    check(ops.rearranged_matvec(H, L, R), plain, reference.rearranged_matvec, H, L, R)


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_shape(kind: str, dtype: torch.dtype) -> None:
    for index, (m, n) in enumerate(SHAPES):
        G = normal(1 + 7 * index, m, n, dtype=dtype)
        check_matvec(G, *inner(m, n, kind))
        check_matvec(G, *inner(m, n, kind, torch.float64))


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_factored_samples_of_every_shape(kind: str, dtype: torch.dtype) -> None:
    for index, (m, n) in enumerate(SHAPES):
        S, T = 1 + 5 * index, POSITIONS[index % len(POSITIONS)]
        D, A = normal(S, T, m, dtype=dtype), normal(S, T, n, dtype=dtype, seed=5)
        check_factored(D, A, *inner(m, n, kind))
        check_factored(D, A, *inner(m, n, kind, torch.float64))


@pytest.mark.parametrize("T", POSITIONS)
def test_factored_positions(T: int) -> None:
    """Every way in which samples fill panels, for more samples than one group holds."""
    for S, m, n in [(70, 40, 50), (3, 100, 90), (600, 9, 8)]:
        check_factored(normal(S, T, m), normal(S, T, n, seed=3), *inner(m, n, "symmetric"))


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("kind", KINDS)
def test_dense_of_every_shape(kind: str, dtype: torch.dtype) -> None:
    for m, n in SHAPES:
        if m * n <= 1100:
            check_rearranged(dense(m * n, m * n, dtype=dtype), *inner(m, n, kind))
    check_rearranged(dense(33, 33, dtype=dtype), *inner(3, 11, kind, torch.float64))
    check_rearranged(dense(300, 300, dtype=dtype), *inner(2, 150, kind))


def test_dense_counts_its_symmetric_part_where_a_factor_is_symmetric() -> None:
    H = normal(30, 30)
    L, R = inner(5, 6, "symmetric")
    for result, expected in zip(
        ops.rearranged_matvec(H, L, R),
        reference.rearranged_matvec((H + H.mT) / 2, L, R),
        strict=True,
    ):
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    check_rearranged(H, *inner(5, 6, "general"))


@pytest.mark.parametrize("kind", KINDS)
def test_weights(kind: str) -> None:
    for dtype in (torch.float32, torch.float64):
        weights = normal(50, dtype=dtype)
        check_matvec(normal(50, 20, 33), *inner(20, 33, kind), weights)
        check_matvec(normal(2, 50, 3, 4), *inner(3, 4, kind), normal(2, 100, dtype=dtype)[:, ::2])
        for T in (1, 3, 40):
            D, A = normal(50, T, 20), normal(50, T, 33, seed=3)
            check_factored(D, A, *inner(20, 33, kind), weights)


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
    check_matvec(view(normal(9, 20, 33)), matrices(L), matrices(R))
    check_matvec(view(normal(9, 20, 33).bfloat16()), matrices(L), matrices(R))
    for T in (2, 40):
        D, A = normal(9, T, 20), normal(9, T, 33, seed=3)
        check_factored(view(D), view(A), matrices(L), matrices(R))
        check_factored(D.transpose(0, 1).contiguous().transpose(0, 1), A, L, R)
    L, R = inner(5, 7, "general")
    H = dense(35, 35)
    check_rearranged(matrices(H), matrices(L), matrices(R))
    check_rearranged(matrices(H.bfloat16()), matrices(L), matrices(R))
    buffer = torch.full((36, 50), float("nan"))
    buffer[:35, :35] = H
    check_rearranged(buffer[:35, :35], L, R)


def test_batch_dimensions_broadcast() -> None:
    L, R = normal(3, 6, 6), normal(2, 1, 7, 7)
    check_matvec(normal(20, 6, 7), L, R)
    check_matvec(normal(20, 6, 7).expand(2, 3, 20, 6, 7), L, R, normal(3, 20))
    check_factored(normal(3, 20, 2, 6), normal(2, 1, 20, 2, 7), L, R)
    check_rearranged(dense(3, 42, 42), L, R)
    assert ops.kron_matvec(normal(20, 6, 7), L, R)[0].shape == (2, 3, 6, 6)


def test_large_matrices_share_threads_by_rows() -> None:
    check_matvec(normal(2, 520, 400), *inner(520, 400, "symmetric"))
    check_matvec(normal(5, 500, 520), *inner(500, 520, "general"))
    check_factored(normal(2, 3, 520), normal(2, 3, 400, seed=3), *inner(520, 400, "symmetric"))


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
    L, R = inner(6, 40, "symmetric")
    G, D, A, H = (
        normal(3, 20, 6, 40),
        normal(3, 20, 2, 6),
        normal(3, 20, 2, 40),
        normal(3, 240, 240),
    )
    calls: list[tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]] = [
        (G, lambda: ops.kron_matvec(G, L, R)),
        (D, lambda: ops.kron_matvec_factored(D, A, L, R)),
        (H, lambda: ops.rearranged_matvec(H, L, R)),
    ]
    for samples, call in calls:
        clean = call()
        samples[1].view(-1)[7] = float("nan")
        for result, before in zip(call(), clean, strict=True):
            assert torch.equal(result[::2], before[::2])
            assert result[1].isnan().any()


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


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    L, R = (t.to(device) for t in inner(4, 5, "general"))
    G, D, A = (normal(*s).to(device) for s in ((2, 3, 4, 5), (3, 2, 4), (3, 2, 5)))
    weights = normal(3).to(device)
    for given in (None, weights):
        options = {"weights": given}
        opcheck(torch.ops.kronext.kron_matvec.default, (G, L, R), options)
        opcheck(torch.ops.kronext.kron_matvec_factored.default, (D, A, L, R), options)
    H = dense(20, 20, dtype=torch.bfloat16).to(device)
    opcheck(torch.ops.kronext.rearranged_matvec.default, (H, L, R.double().float()))


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
