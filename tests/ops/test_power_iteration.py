"""power_iteration: the Kronecker products nearest to H."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import (
    FACTOR,
    FLOATING,
    SHAPES,
    assert_refused,
    name,
    normal,
    sliced,
    symmetric,
)
from power_iteration_cases import (
    check_pairs,
    check_steps,
    check_values,
    check_zero_samples,
    distance,
    forms,
    gradients,
)
from torch import Tensor
from torch.library import opcheck

from kronext import ops, reference

FORMS = list(forms(torch.zeros(6, 1, 1)))


@pytest.mark.parametrize("form", FORMS)
def test_steps_follow_the_reference(form: str) -> None:
    check_steps(ops.power_iteration, form)


@pytest.mark.parametrize("form", FORMS)
def test_optimum_is_the_svd_of_the_rearranged_matrix(form: str) -> None:
    for m, n, rank in [(5, 7, 3), (20, 30, 1), (30, 4, 2), (1, 6, 1), (2, 2, 4)]:
        G = gradients(40, m, n)
        result = ops.power_iteration(**forms(G)[form], steps=400, tol=1e-10, rank=rank)
        best = reference.best_kronecker(reference.second_moment(G), m, n, rank)
        assert result.info.item() == 0
        torch.testing.assert_close(result.sigma, best.sigma, rtol=1e-9, atol=1e-12)
        gaps = best.sigma.diff().abs().min().item() if rank > 1 else 1.0
        for k in range(rank):
            assert distance(result.left[k], best.left[k]) <= 1e-8 * best.sigma[0] / gaps
            assert distance(result.right[k], best.right[k]) <= 1e-8 * best.sigma[0] / gaps


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("form", FORMS)
def test_values_of_every_dtype_and_shape(form: str, dtype: torch.dtype) -> None:
    check_values(ops.power_iteration, form, dtype, SHAPES[2:15])


def test_first_step_is_shampoo_squared() -> None:
    """Proposition 1: one step from the identity gives E[G GT] and E[GT G]."""
    G = normal(50, 6, 9, dtype=torch.float64)
    result = ops.power_iteration(G, steps=1)
    left, right = (G @ G.mT).mean(0), (G.mT @ G).mean(0)
    torch.testing.assert_close(result.left[0], left / torch.linalg.norm(left))
    torch.testing.assert_close(result.right[0], right / torch.linalg.norm(right))


def test_kronecker_product_is_found_in_one_step() -> None:
    """Corollary 2: exact where H is a Kronecker product."""
    L, R = symmetric(4, 4, dtype=torch.float64), symmetric(5, 5, dtype=torch.float64, seed=1)
    result = ops.power_iteration(reference.kron(L, R), shape=(4, 5), steps=1)
    approximation = result.sigma * reference.kron(result.left[0], result.right[0])
    torch.testing.assert_close(approximation, reference.kron(L, R))


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
@pytest.mark.parametrize("rank", [1, 3])
def test_pairs_are_what_is_promised(rank: int, dtype: torch.dtype) -> None:
    check_pairs(ops.power_iteration, rank, dtype)


def test_rank_above_the_rank_of_h_gives_zeros() -> None:
    for dtype in FACTOR:
        G = (
            normal(7, 1, 1, dtype=dtype)
            * normal(4, 5, dtype=dtype)[:, :1]
            * torch.ones(5, dtype=dtype)
        )
        result = ops.power_iteration(G, rank=3, steps=50, tol=1e-5)
        assert result.info == 0
        assert (result.sigma[1:] <= 1e-6 * result.sigma[0]).all()
        assert result.left.isfinite().all()


def test_tolerance() -> None:
    G = gradients(40, 6, 7)
    exact = ops.power_iteration(G, steps=100)
    stopped = ops.power_iteration(G, steps=100, tol=1e-4)
    assert stopped.info == 0
    assert 1e-12 < distance(stopped.left[0], exact.left[0]) < 1e-3, "it must stop early"
    assert ops.power_iteration(G, steps=2, tol=1e-9).info == 2
    batch = torch.stack([G, torch.eye(6, 7, dtype=torch.float64).expand(40, 6, 7)])
    assert ops.power_iteration(batch, steps=2, tol=1e-9).info.tolist() == [2, 0]
    assert ops.power_iteration([G[:9], G[9:]], steps=2, tol=1e-9).info == 2


def test_init() -> None:
    G = gradients(40, 6, 7)
    exact = ops.power_iteration(G, steps=100)
    warm = ops.power_iteration(G, steps=1, init=(exact.left[0], exact.right[0]))
    assert distance(warm.left[0], exact.left[0]) <= 1e-12
    torch.testing.assert_close(warm.sigma, exact.sigma)
    wide = ops.power_iteration(G.float(), init=(exact.left[0], exact.right[0]))
    assert wide.left.dtype == torch.float64
    batch = ops.power_iteration(
        G.expand(2, 40, 6, 7), init=(exact.left.expand(2, 6, 6), exact.right[0]), steps=1
    )
    torch.testing.assert_close(batch.sigma, exact.sigma.expand(2, 1))


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
@pytest.mark.parametrize("form", FORMS)
def test_zero_samples_give_sigma_zero(form: str, dtype: torch.dtype) -> None:
    check_zero_samples(ops.power_iteration, form, dtype)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_samples_leave_their_neighbours_alone(poison: float) -> None:
    G = gradients(20, 4, 5).expand(3, 20, 4, 5).clone()
    clean = ops.power_iteration(G, rank=2)
    G[1, 3, 2, 1] = poison
    H = reference.second_moment(G)
    for result in (
        ops.power_iteration(G, rank=2, tol=0.5),
        ops.power_iteration([G[:, :9], G[:, 9:]], rank=2, tol=0.5),
        ops.power_iteration(H, shape=(4, 5), rank=2, tol=0.5),
    ):
        assert result.info.tolist() == [0, 1, 0]
        assert torch.equal(result.left[1, 0], torch.eye(4).double() / 2)
        assert torch.equal(result.sigma[1], torch.zeros(2).double())
        assert result.left.isfinite().all()
    assert torch.equal(ops.power_iteration(G, rank=2).left[::2], clean.left[::2])


def test_batches_agree_with_single_matrices() -> None:
    G = gradients(30, 5, 6, torch.float32).unflatten(0, (2, 15))
    for rank in (1, 2):
        both = ops.power_iteration(G, rank=rank)
        for index in range(2):
            single = ops.power_iteration(G[index], rank=rank)
            for mine, other in zip(both, single, strict=True):
                torch.testing.assert_close(mine[index], other, rtol=1e-4, atol=1e-5)


def test_leading_pair_of_strided_samples() -> None:
    G = gradients(10, 9, 8, torch.float32)
    plain, strided = ops.power_iteration(G), ops.power_iteration(sliced(G))
    assert torch.equal(plain.left, strided.left)


def test_repeats_bit_for_bit_and_agrees_across_thread_counts() -> None:
    G = gradients(64, 40, 33, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(ops.power_iteration(G, rank=2))
    finally:
        torch.set_num_threads(threads)
    state = torch.get_rng_state()
    ops.power_iteration(G, rank=2)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    for one, two, again in zip(*results, strict=True):
        assert torch.equal(two, again)
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_first_batch_decides_the_dtype() -> None:
    G = gradients(40, 6, 7)
    exact = ops.power_iteration(G)
    for first, later in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        result = ops.power_iteration([G[:9].to(first), G[9:].to(later)])
        assert result.left.dtype == result.right.dtype == result.sigma.dtype == first
        assert distance(result.left[0].double(), exact.left[0]) <= 1e-6


def test_no_graph_is_recorded() -> None:
    G = gradients(6, 3, 4).requires_grad_()
    init = tuple(torch.eye(k).double().requires_grad_() for k in (3, 4))
    for samples in (G, [G, G]):
        for result in ops.power_iteration(samples, init=init):
            assert not result.requires_grad


@pytest.mark.real
def test_opcheck() -> None:
    left, right = (normal(2, k, k) for k in (4, 5))
    G, D, A = (normal(*s) for s in ((3, 4, 5), (3, 2, 4), (3, 2, 5)))
    options = {"steps": 2, "tol": 0.1}
    opcheck(torch.ops.kronext.power_iteration.default, (G, left, right), options)
    opcheck(torch.ops.kronext.power_iteration_factored.default, (D, A, left, right), options)
    H = symmetric(20, 20)
    opcheck(torch.ops.kronext.power_iteration_dense.default, (H, left, right), options)
    four = (left, right, left.clone(), right.clone())
    opcheck(torch.ops.kronext.power_iteration_normalise.default, four)
    turned = torch.tensor(0.5, dtype=torch.float64)
    opcheck(torch.ops.kronext.power_iteration_triples.default, (*four[:3], turned), {"tol": 0.1})


@pytest.mark.real
def test_compiles_to_one_graph() -> None:
    def step(G: Tensor, H: Tensor, L: Tensor, R: Tensor) -> Tensor:
        whole = ops.power_iteration(G * 2, rank=2, tol=1e-3, init=(L, R))
        factored = ops.power_iteration((G.mT, G.mT @ G))
        dense = ops.power_iteration(H, shape=(4, 5))
        return whole.sigma.sum() + factored.sigma.sum() + dense.sigma.sum()

    G, H = normal(3, 4, 5), symmetric(20, 20)
    expected = step(G, H, torch.eye(4), torch.eye(5))
    compiled = torch.compile(step, fullgraph=True)(G, H, torch.eye(4), torch.eye(5))
    torch.testing.assert_close(compiled, expected)


def one_shot() -> Iterator[Tensor]:
    yield torch.ones(3, 4, 5)


class EmptyOnTheSecondWalk:
    walks = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.walks += 1
        return iter([torch.ones(3, 4, 5)] if self.walks < 3 else [])


G, H = torch.ones(3, 4, 5), torch.ones(20, 20)
BAD: list[tuple[object, dict[str, object], type[Exception], str]] = [
    (one_shot(), {}, TypeError, "must be walkable more than once"),
    (iter([G]), {}, TypeError, "must be walkable more than once"),
    (EmptyOnTheSecondWalk(), {}, ValueError, "must yield a batch in every pass"),
    ([], {}, ValueError, "must yield a batch in every pass"),
    ([1.0], {}, TypeError, "must yield tensors or pairs"),
    ([G, G[:, 1:]], {}, ValueError, "all batches must have the (..., m, n) of the first"),
    ([G, G.expand(2, 3, 4, 5)], {}, ValueError, "all batches must have the (..., m, n)"),
    ([G.expand(2, 3, 4, 5), G.expand(3, 3, 4, 5)], {}, ValueError, "batch dimensions must"),
    ([G.mT, G], {}, ValueError, "a pair (D, A) is a tuple"),
    (3, {}, TypeError, "samples must be a tensor, a pair (D, A) or an iterable"),
    (H, {}, ValueError, "G must have at least 3 dimensions"),
    (G.int(), {}, TypeError, "G must have dtype"),
    (H, {"shape": (4, 4)}, ValueError, "H must be 16 x 16"),
    (H, {"shape": 20}, TypeError, "shape must be (m, n)"),
    ([G], {"shape": (4, 5)}, ValueError, "shape belongs to a dense H"),
    ((G, G.mT), {}, ValueError, "D and A must have the same samples and positions"),
    (G, {"steps": -1}, ValueError, "steps must be at least 0"),
    (G, {"steps": 1.5}, TypeError, "steps must be an integer"),
    (G, {"rank": 0}, ValueError, "rank must be at least 1"),
    (G, {"rank": 17}, ValueError, "rank must be at most min(m, n)^2 = 16"),
    (G, {"tol": "small"}, TypeError, "tol must be a number"),
    (G, {"init": torch.eye(4)}, TypeError, "init must be a pair"),
    (G, {"init": (torch.eye(5), torch.eye(5))}, ValueError, "init[0] must be 4 x 4"),
    (G, {"init": (torch.zeros(2, 4, 4), torch.eye(5))}, ValueError, "the batch of init[0]"),
]


@pytest.mark.parametrize(("samples", "options", "error", "message"), BAD, ids=[b[3] for b in BAD])
def test_bad_input_is_refused(samples, options, error, message: str) -> None:
    call: Callable[[], object] = lambda: ops.power_iteration(samples, **options)  # noqa: E731
    assert_refused(call, error, message)
