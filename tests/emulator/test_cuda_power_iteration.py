"""The CUDA kernels of the matvecs and of power iteration, executed on the CPU: the cases and the
oracles of the CPU ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from emulated_power_iteration import EmulatedPowerIteration
from helpers import (
    FACTOR,
    FLOATING,
    assert_symmetric,
    name,
    normal,
    sliced,
    symmetric,
    transposed_memory,
)
from matvec_cases import (
    KINDS,
    check_factored,
    check_matvec,
    check_non_finite,
    check_rearranged,
    dense,
    inner,
)
from power_iteration_cases import (
    DECAY,
    WEIGHT,
    check_online_steps,
    check_pairs,
    check_steps,
    check_values,
    check_zero_samples,
    distance,
    gradients,
    zeros,
)
from torch import Tensor

from kronext import ops, reference

Schedules = Callable[[], Iterator[str]]
FORMS = ["tensor", "factored", "dense"]
# Empty, one, and the sizes of tiles, chunks and vectors +- 1.
SHAPES = [(0, 3), (3, 0), (1, 1), (1, 7), (7, 1), (5, 5), (15, 17), (31, 33), (63, 65)]


@pytest.fixture
def emulated(emulator: ModuleType) -> EmulatedPowerIteration:
    return EmulatedPowerIteration(emulator)


# ---- matvecs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_samples(dtype: torch.dtype, kind: str, emulated: EmulatedPowerIteration) -> None:
    for index, (m, n) in enumerate(SHAPES):
        check_matvec(emulated, normal(1 + 2 * index % 7, m, n, dtype=dtype), *inner(m, n, kind))
    wide = inner(15, 17, kind, torch.float64)
    check_matvec(emulated, normal(3, 15, 17, dtype=dtype), *wide)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_factored_samples(dtype: torch.dtype, kind: str, emulated: EmulatedPowerIteration) -> None:
    """Positions that fill blocks of samples, that leave a rest, and so many that G is formed."""
    for S, T, m, n in [
        (3, 1, 1, 7),
        (70, 1, 33, 20),
        (9, 20, 70, 66),
        (2, 70, 80, 75),
        (3, 80, 9, 8),
    ]:
        D, A = normal(S, T, m, dtype=dtype), normal(S, T, n, dtype=dtype, seed=5)
        check_factored(emulated, D, A, *inner(m, n, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_dense(dtype: torch.dtype, kind: str, emulated: EmulatedPowerIteration) -> None:
    """Segments of a row that share a block, and one that takes several."""
    for m, n in [*SHAPES[:6], (15, 17), (33, 4)]:
        check_rearranged(emulated, dense(m * n, m * n, dtype=dtype), *inner(m, n, kind))
    check_rearranged(emulated, dense(33, 33, dtype=dtype), *inner(3, 11, kind, torch.float64))
    check_rearranged(emulated, dense(1100, 1100, dtype=dtype), *inner(1, 1100, kind))


@pytest.mark.parametrize("view", [sliced, transposed_memory])
def test_strided_operands(
    view: Callable[[Tensor], Tensor], emulated: EmulatedPowerIteration
) -> None:
    L, R = (view(x) for x in inner(20, 33, "general"))
    for dtype in FLOATING:
        check_matvec(emulated, view(normal(4, 20, 33, dtype=dtype)), L, R)
    for T in (2, 40):
        D, A = normal(9, T, 20), normal(9, T, 33, seed=3)
        check_factored(emulated, view(D), view(A), L, R)
        check_factored(emulated, D.transpose(0, 1).contiguous().transpose(0, 1), A, L, R)
    L, R = (view(x) for x in inner(5, 7, "general"))
    for dtype in FLOATING:
        check_rearranged(emulated, view(dense(35, 35, dtype=dtype)), L, R)
        buffer = torch.full((36, 50), float("nan"), dtype=dtype)
        buffer[:35, 1:36] = dense(35, 35)
        check_rearranged(emulated, buffer[:35, 1:36], L, R)


@pytest.mark.parametrize("kind", KINDS)
def test_weights(kind: str, emulated: EmulatedPowerIteration) -> None:
    for dtype in FACTOR:
        weights = normal(11, dtype=dtype)
        check_matvec(emulated, normal(11, 20, 33), *inner(20, 33, kind), weights)
        strided = normal(2, 10, dtype=dtype)[:, ::2]
        check_matvec(emulated, normal(2, 5, 3, 4), *inner(3, 4, kind), strided)
        for T in (1, 9, 40):
            D, A = normal(11, T, 20), normal(11, T, 33, seed=3)
            check_factored(emulated, D, A, *inner(20, 33, kind), weights)


def test_batch_dimensions_broadcast(emulated: EmulatedPowerIteration) -> None:
    L, R = normal(3, 6, 6), normal(2, 1, 7, 7)
    check_matvec(emulated, normal(9, 6, 7).expand(2, 3, 9, 6, 7), L, R, normal(3, 9))
    check_factored(emulated, normal(3, 9, 2, 6), normal(2, 1, 9, 2, 7), L, R)
    check_rearranged(emulated, dense(3, 42, 42), L, R)


def test_no_samples_or_no_positions_give_zeros(emulated: EmulatedPowerIteration) -> None:
    L, R = inner(4, 5, "general")
    for left, right in (
        emulated.kron_matvec(torch.zeros(0, 4, 5), L, R),
        emulated.kron_matvec_factored(torch.zeros(0, 2, 4), torch.zeros(0, 2, 5), L, R),
        emulated.kron_matvec_factored(torch.zeros(3, 0, 4), torch.zeros(3, 0, 5), L, R),
    ):
        assert torch.equal(left, torch.zeros(4, 4))
        assert torch.equal(right, torch.zeros(5, 5))


def test_many_samples_do_not_lose_accuracy(emulated: EmulatedPowerIteration) -> None:
    """Long sums of positive terms, which tensor cores round towards zero."""
    for dtype in (torch.float32, torch.bfloat16):
        G = (normal(400, 8, 8) + 1).to(dtype)
        L, R = inner(8, 8, "identity")
        oracle = reference.kron_matvec(G, L, R)
        for result, expected in zip(emulated.kron_matvec(G, L, R), oracle, strict=True):
            assert torch.linalg.norm(result - expected) <= 2e-7 * torch.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_take_many_rounds(kind: str, emulated: EmulatedPowerIteration) -> None:
    """Sums go on from round to round, for batch entries whose samples share rounds too."""
    L, R = inner(9, 12, kind)
    for emulated.round_bytes in (1, 4000, 20_000):
        check_matvec(emulated, normal(2, 13, 9, 12), L, R, normal(2, 13))
        for T in (3, 70):
            D, A = normal(2, 13, T, 9), normal(2, 13, T, 12, seed=3)
            check_factored(emulated, D, A, L, R, normal(2, 13))
        assert emulated.launches[1] > 1


def test_precision_chooses_the_products(emulated: EmulatedPowerIteration) -> None:
    L, R = inner(40, 33, "symmetric")
    for dtype, medium in [(torch.float32, 8e-3), (torch.bfloat16, 8e-3), (torch.float16, 8e-3)]:
        G = normal(5, 40, 33, dtype=dtype)
        exact = reference.kron_matvec(G, L, R)
        for precision, low, high in [
            ("highest", 0, 4e-7),
            ("high", 1e-6, 5e-5),
            ("medium", 3e-4, medium),
        ]:
            emulated.precision = precision
            for result, expected in zip(emulated.kron_matvec(G, L, R), exact, strict=True):
                error = (torch.linalg.norm(result - expected) / torch.linalg.norm(expected)).item()
                assert low <= error <= high, f"{dtype} {precision}: {error:.1e}"


def test_non_finite_values_stay_in_their_batch_entry(emulated: EmulatedPowerIteration) -> None:
    check_non_finite(emulated, 9, (5, 7))


# ---- power iteration -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_steps_follow_the_reference(form: str, emulated: EmulatedPowerIteration) -> None:
    check_steps(emulated.power_iteration, form)


@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("form", FORMS)
def test_values(form: str, dtype: torch.dtype, emulated: EmulatedPowerIteration) -> None:
    check_values(emulated.power_iteration, form, dtype, [(1, 1), (7, 1), (5, 7), (33, 9)])


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
@pytest.mark.parametrize("rank", [1, 3])
def test_pairs_are_what_is_promised(
    rank: int, dtype: torch.dtype, emulated: EmulatedPowerIteration
) -> None:
    emulated.multiprocessors = 1
    check_pairs(emulated.power_iteration, rank, dtype, samples=(5, 3, 4))


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
@pytest.mark.parametrize("form", FORMS)
def test_zero_samples(form: str, dtype: torch.dtype, emulated: EmulatedPowerIteration) -> None:
    check_zero_samples(emulated.power_iteration, form, dtype)


def test_optimum_is_the_svd(emulated: EmulatedPowerIteration) -> None:
    for m, n, rank in [(5, 7, 3), (1, 6, 1), (2, 2, 4)]:
        H = reference.second_moment(gradients(40, m, n))
        result = emulated.power_iteration(H, shape=(m, n), steps=400, tol=1e-10, rank=rank)
        best = reference.best_kronecker(H, m, n, rank)
        assert result.info.item() == 0
        torch.testing.assert_close(result.sigma, best.sigma, rtol=1e-9, atol=1e-12)
        for k in range(rank):
            assert distance(result.left[k], best.left[k]) <= 1e-6
            assert distance(result.right[k], best.right[k]) <= 1e-6


def test_rank_above_the_rank_of_h(emulated: EmulatedPowerIteration) -> None:
    for dtype in FACTOR:
        column = normal(4, 1, dtype=dtype) * torch.ones(5, dtype=dtype)
        G = normal(7, 1, 1, dtype=dtype) * column
        result = emulated.power_iteration(G, rank=3, steps=6, tol=1e-5)
        assert result.info == 0
        assert (result.sigma[1:] <= 1e-6 * result.sigma[0]).all()
        assert result.left.isfinite().all()


def test_tolerance_stops_where_the_cpu_stops(emulated: EmulatedPowerIteration) -> None:
    G = gradients(12, 4, 5)
    for samples, options in [
        (G, {}),
        ((torch.eye(4).double().expand(12, 4, 4), G), {}),
        (reference.second_moment(G), {"shape": (4, 5)}),
    ]:
        stopped = emulated.power_iteration(samples, steps=30, tol=1e-3, **options)
        expected = ops.power_iteration(samples, steps=30, tol=1e-3, **options)
        longer = ops.power_iteration(samples, steps=30, **options)
        assert stopped.info == 0
        assert distance(stopped.left[0], expected.left[0]) <= 1e-11
        assert distance(stopped.left[0], longer.left[0]) > 1e-9, "it must stop early"
        assert emulated.power_iteration(samples, steps=2, tol=1e-9, **options).info == 2
        assert emulated.power_iteration(samples, steps=0, tol=0.5, **options).info == 2
    batch = torch.stack([G, torch.eye(4, 5, dtype=torch.float64).expand(12, 4, 5)])
    assert emulated.power_iteration(batch, steps=2, tol=1e-9).info.tolist() == [2, 0]


def test_init(emulated: EmulatedPowerIteration) -> None:
    G = gradients(12, 4, 5)
    exact = ops.power_iteration(G, steps=100)
    warm = emulated.power_iteration(G, steps=1, init=(exact.left[0], exact.right[0]))
    assert distance(warm.left[0], exact.left[0]) <= 1e-12
    torch.testing.assert_close(warm.sigma, exact.sigma)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_samples(poison: float, emulated: EmulatedPowerIteration) -> None:
    G = gradients(9, 4, 5).expand(3, 9, 4, 5).clone()
    clean = emulated.power_iteration(G, rank=2)
    G[1, 3, 2, 1] = poison
    for result in (
        emulated.power_iteration(G, rank=2, tol=0.5),
        emulated.power_iteration(reference.second_moment(G), shape=(4, 5), rank=2, tol=0.5),
    ):
        assert result.info.tolist() == [0, 1, 0]
        assert torch.equal(result.left[1, 0], torch.eye(4).double() / 2)
        assert torch.equal(result.sigma[1], torch.zeros(2).double())
        assert result.left.isfinite().all()
    assert torch.equal(emulated.power_iteration(G, rank=2).left[::2], clean.left[::2])


@pytest.mark.parametrize("dtype", FACTOR, ids=name)
def test_ends_of_a_step_equal_the_cpu(dtype: torch.dtype, emulated: EmulatedPowerIteration) -> None:
    """What an iterable of samples needs: bases made orthonormal, and triples made of them."""
    start = [normal(2, 3, k, k, dtype=dtype, seed=k) for k in (4, 5)]
    start[0][0, 2] = 2 * start[0][0, 1]  # a column that vanishes
    before = [normal(2, 3, k, k, dtype=dtype, seed=k + 9) for k in (4, 5)]
    previous = torch.ops.kronext.power_iteration_normalise(*before, *before)[:2]
    expected = torch.ops.kronext.power_iteration_normalise(*start, *previous)
    result = emulated.normalise(*start, previous)
    unit = torch.finfo(dtype).eps
    for mine, other in zip(result, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=200 * unit)
    image = normal(2, 3, 4, 4, dtype=dtype, seed=3)
    turned = torch.tensor([0.1, 0.3], dtype=torch.float64)
    triples = torch.ops.kronext.power_iteration_triples(*expected[:2], image, turned, tol=0.2)
    for mine, other in zip(
        emulated.triples(*expected[:2], image, turned, tol=0.2), triples, strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=200 * unit)


# ---- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_online_steps(
    dtype: torch.dtype, factor_dtype: torch.dtype, emulated: EmulatedPowerIteration
) -> None:
    check_online_steps(emulated.power_iteration_list_, dtype, factor_dtype, [*SHAPES, (130, 20)])


def test_list_takes_a_number_for_each_gradient(emulated: EmulatedPowerIteration) -> None:
    """Mixed dtypes, in one launch for each arithmetic and stage."""
    Gs = [normal(4, 5), normal(33, 20, dtype=torch.bfloat16), normal(6, 7, dtype=torch.float64)]
    factors = [[torch.eye(G.shape[side]) for G in Gs] for side in (0, 1)]
    expected = [[factor.clone() for factor in side] for side in factors]
    numbers = {"decay": [0.5, 0.9, 0.0], "weight": [1.0, 2.0, 0.25]}
    emulated.power_iteration_list_(*factors, Gs, **numbers)
    ops.power_iteration_list_(*expected, Gs, **numbers)
    assert emulated.launches == (6, 2)
    for side, other_side in zip(factors, expected, strict=True):
        for mine, other in zip(side, other_side, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
            assert_symmetric(mine)


def test_zero_decay_and_other_scales(emulated: EmulatedPowerIteration) -> None:
    G, garbage = normal(5, 6), torch.full((5, 5), float("nan"))
    emulated.power_iteration_list_([garbage], [zeros(5, 6)[1]], [G], decay=0.0, weight=WEIGHT)
    torch.testing.assert_close(garbage, WEIGHT * G @ G.mT / 6**0.5, rtol=1e-5, atol=1e-6)
    for scale in (1e-150, 1e150):
        L, R = (scale * symmetric(k, k, dtype=torch.float64) for k in (5, 6))
        result = [L.clone(), R.clone()]
        emulated.power_iteration_list_(result[:1], result[1:], [G], decay=0.0, weight=WEIGHT)
        unit = reference.power_iteration_update(L / scale, R / scale, G, decay=0.0, weight=WEIGHT)
        torch.testing.assert_close(result[0], unit[0])


# ---- schedules -----------------------------------------------------------------------------------


def test_every_schedule_gives_the_same_bits(
    emulated: EmulatedPowerIteration, schedules: Schedules
) -> None:
    for emulated.multiprocessors in (1, 8):
        L, R = inner(70, 20, "symmetric")
        general = inner(20, 33, "general")
        D, A = normal(20, 3, 70), normal(20, 3, 20, dtype=torch.float32, seed=1)
        G16 = normal(9, 20, 33, dtype=torch.float16)
        H, small = dense(60, 60, dtype=torch.bfloat16), inner(6, 10, "symmetric")
        results = []
        for _ in schedules():
            Ls, Rs = [torch.eye(70)], [torch.eye(20)]
            emulated.power_iteration_list_(Ls, Rs, [normal(70, 20)], decay=DECAY, weight=WEIGHT)
            results.append([
                *emulated.kron_matvec_factored(D, A, L, R),
                *emulated.kron_matvec(G16, *general),
                *emulated.rearranged_matvec(H, *small),
                *emulated.power_iteration(gradients(5, 4, 5), rank=2, steps=2, tol=1e-3),
                *Ls, *Rs,
            ])  # fmt: skip
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
        assert all(t.isfinite().all() for t in results[0])
