"""The CUDA kernels of outer_update, executed on the CPU: the cases and the oracle of the CPU op."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from emulated_outer import EmulatedOuter
from helpers import (
    FACTOR,
    FLOATING,
    SHAPES,
    assert_accurate,
    assert_symmetric,
    name,
    normal,
    sliced,
    symmetric,
    transposed_memory,
)
from outer_cases import DECAY, WEIGHT, check_update, factors
from torch import Tensor

Schedules = Callable[[], Iterator[str]]
SIZES = ("small", "large")
TENSOR_CORES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def emulated(emulator: ModuleType) -> EmulatedOuter:
    return EmulatedOuter(emulator)


@pytest.mark.parametrize("tiles", SIZES)
@pytest.mark.parametrize("dtype", TENSOR_CORES, ids=name)
def test_values_of_every_shape(dtype: torch.dtype, tiles: str, emulated: EmulatedOuter) -> None:
    emulated.tiles = tiles
    for m, n in SHAPES:
        check_update(emulated.outer_update_, normal(m, n, dtype=dtype), *factors(m, n))


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_values_in_float64(
    dtype: torch.dtype, factor_dtype: torch.dtype, emulated: EmulatedOuter
) -> None:
    if torch.float64 not in (dtype, factor_dtype):
        factor_dtype = torch.float64
    for m, n in SHAPES:
        L, R = factors(m, n, dtype=factor_dtype)
        check_update(emulated.outer_update_, normal(m, n, dtype=dtype), L, R)


@pytest.mark.parametrize("tiles", SIZES)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("view", [sliced, transposed_memory])
def test_strided_gradients(view, dtype: torch.dtype, tiles: str, emulated: EmulatedOuter) -> None:
    emulated.tiles = tiles
    for m, n in [(5, 7), (33, 17), (64, 72), (40, 136)]:
        check_update(emulated.outer_update_, view(normal(m, n, dtype=dtype)), *factors(m, n))


@pytest.mark.parametrize("dtype", TENSOR_CORES, ids=name)
def test_unaligned_memory(dtype: torch.dtype, emulated: EmulatedOuter) -> None:
    """Every offset of a gradient and of a factor inside 16 bytes."""
    for offset in range(8):
        m, n = 20, 24
        G = torch.full((offset + m * n,), float("nan"), dtype=dtype)[offset:].view(m, n)
        G.copy_(normal(m, n, dtype=dtype))
        L, R = (
            torch.full((offset + d * d,), float("nan"))[offset:].view(d, d).copy_(symmetric(d, d))
            for d in (m, n)
        )
        check_update(emulated.outer_update_, G, L, R)


def test_batch_dimensions_broadcast_from_gradient_to_factor(emulated: EmulatedOuter) -> None:
    check_update(emulated.outer_update_, normal(2, 17, 9), *factors(3, 2, 17, 9))
    check_update(
        emulated.outer_update_, normal(1, 17, 9).expand(3, 2, 17, 9), *factors(3, 2, 17, 9)
    )


@pytest.mark.parametrize("tiles", SIZES)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_every_schedule_gives_the_same_bits(
    dtype: torch.dtype, tiles: str, emulated: EmulatedOuter, schedules: Schedules
) -> None:
    """A ragged list, on few blocks (many tiles each) and on many (tiles split in depth)."""
    shapes = [(40, 40), (7, 2100), (129, 20), (0, 5), (1, 1)]
    Gs = [normal(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]
    Gs[1] = sliced(Gs[1])
    lefts = [symmetric(m, m, seed=1) for m, _ in shapes]
    rights = [None if n > 1000 else symmetric(n, n, seed=2) for _, n in shapes]
    emulated.tiles = tiles
    for emulated.multiprocessors in (1, 20):
        results = []
        for _ in schedules():
            Ls, Rs = ([None if f is None else f.clone() for f in side] for side in (lefts, rights))
            emulated.outer_update_list_(Ls, Rs, Gs, decay=DECAY, weight=WEIGHT)
            results.append([factor for factor in Ls + Rs if factor is not None])
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
        for factor in results[0]:
            assert_symmetric(factor)
            assert factor.isfinite().all()
    assert emulated.split_tiles > 0


def test_split_tiles_are_accurate(emulated: EmulatedOuter) -> None:
    emulated.multiprocessors = 16
    for dtype in FLOATING:
        G = normal(24, 2000, dtype=dtype)
        L, R = factors(24, 24)[0], None
        expected = DECAY * L.double() + WEIGHT * G.double() @ G.double().mT
        torch_result = DECAY * L + WEIGHT * (G @ G.mT).to(L.dtype)
        if dtype != torch.float64:
            torch_result = DECAY * L + WEIGHT * (G.float() @ G.float().mT)
        emulated.outer_update_(L, R, G, decay=DECAY, weight=WEIGHT)
        assert emulated.split_tiles > 0, dtype
        assert_accurate(L, expected, torch_result, str(dtype))


@pytest.mark.parametrize("tiles", SIZES)
def test_long_sums_are_not_biased(tiles: str, emulated: EmulatedOuter) -> None:
    """Tensor cores truncate, so a diagonal of positive terms shows whether sums are flushed."""
    for dtype in TENSOR_CORES:
        G = (normal(16, 8192) + 8).to(dtype)
        L = torch.zeros(16, 16)
        emulated.tiles = tiles
        emulated.multiprocessors = 1
        emulated.outer_update_(L, None, G, decay=0.0, weight=1.0)
        exact = (G.double() ** 2).sum(1)
        bias = ((L.diagonal().double() - exact) / exact).mean().item()
        assert abs(bias) < 5e-7, f"{dtype}: {bias:.1e}"


def test_factors_inside_a_larger_buffer(emulated: EmulatedOuter) -> None:
    buffer = torch.full((4, 40, 40), float("nan"))
    L = buffer[::2, :, :]
    L.copy_(symmetric(2, 40, 40))
    G = normal(2, 40, 11)
    expected = DECAY * L.double() + WEIGHT * G.double() @ G.double().mT
    emulated.outer_update_(L, None, G, decay=DECAY, weight=WEIGHT)
    torch.testing.assert_close(L.double(), expected, rtol=1e-6, atol=1e-6)
    assert buffer[1::2].isnan().all(), "memory between the factors was written"


def test_only_the_lower_triangle_is_read(emulated: EmulatedOuter) -> None:
    for m in (5, 32, 70):
        L = symmetric(m, m)
        poisoned = L.tril() + torch.full((m, m), float("nan")).triu(1)
        G = normal(m, 9)
        emulated.outer_update_(L, None, G, decay=DECAY, weight=WEIGHT)
        emulated.outer_update_(poisoned, None, G, decay=DECAY, weight=WEIGHT)
        assert torch.equal(L, poisoned), f"m={m}: the upper triangle was read"


def test_zero_decay_does_not_read_the_factor(emulated: EmulatedOuter) -> None:
    for dtype in FLOATING:
        for m in (5, 32, 45):
            L, G = torch.full((m, m), float("nan")), normal(m, 9, dtype=dtype)
            emulated.outer_update_(L, None, G, decay=0.0, weight=1.0)
            expected = G.double() @ G.double().mT
            torch.testing.assert_close(L.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name)
def test_16_bit_products_are_exact(dtype: torch.dtype, emulated: EmulatedOuter) -> None:
    G = torch.randint(-8, 9, (37, 50), generator=torch.Generator().manual_seed(0)).to(dtype)
    L, R = torch.zeros(37, 37), torch.zeros(50, 50)
    emulated.outer_update_(L, R, G, decay=1.0, weight=1.0)
    assert torch.equal(L, G.float() @ G.float().mT)
    assert torch.equal(R, G.float().mT @ G.float())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_matrix(poison: float, emulated: EmulatedOuter) -> None:
    for dtype in FLOATING:
        G = normal(3, 20, 33, dtype=dtype)
        L, R = factors(3, 20, 33)
        clean_L, clean_R = L.clone(), R.clone()
        emulated.outer_update_(clean_L, clean_R, G, decay=DECAY, weight=WEIGHT)
        G[1, 4, 5] = poison
        emulated.outer_update_(L, R, G, decay=DECAY, weight=WEIGHT)
        for index in (0, 2):
            assert torch.equal(L[index], clean_L[index])
            assert torch.equal(R[index], clean_R[index])
        assert not L[1, 4].isfinite().any()
        assert L[1, :4, :4].isfinite().all()


def test_list_takes_a_number_for_each_gradient_and_any_side(emulated: EmulatedOuter) -> None:
    shapes = [(4, 4), (33, 20), (7, 9)]
    Gs = [normal(*shape, dtype=torch.bfloat16, seed=i) for i, shape in enumerate(shapes)]
    listed = [factors(*shape) for shape in shapes]
    single = [factors(*shape) for shape in shapes]
    decays, weights = [0.5, 0.0, 1.0], [1.0, 2.0, 0.25]
    for (L, R), G, decay, weight in zip(single, Gs, decays, weights, strict=True):
        check_update(emulated.outer_update_, G, L, R, decay=decay, weight=weight)
    Ls, Rs = [L for L, _ in listed], [R for _, R in listed]
    emulated.outer_update_list_([Ls[0], None, Ls[2]], Rs, Gs, decay=decays, weight=weights)
    assert emulated.launched == ["bfloat16 small"]
    assert torch.equal(Ls[1], factors(33, 20)[0]), "a side that was left out was written"
    emulated.outer_update_list_([Ls[1]], None, Gs[1:2], decay=decays[1:2], weight=weights[1])
    for mine, other in zip(Ls + Rs, [s[0] for s in single] + [s[1] for s in single], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_mixed_list_is_one_launch_for_each_arithmetic(emulated: EmulatedOuter) -> None:
    Gs = [normal(6, 9, dtype=dtype, seed=i) for i, dtype in enumerate(FLOATING * 2)]
    pairs = [factors(6, 9) for _ in Gs]
    emulated.outer_update_list_(
        [L for L, _ in pairs], [R for _, R in pairs], Gs, decay=DECAY, weight=WEIGHT
    )
    kinds = {name.split()[0] for name in emulated.launched}
    assert kinds == {"float64", "float32", "bfloat16", "float16"}
    assert len(emulated.launched) == 4
    for (L, R), G in zip(pairs, Gs, strict=True):
        for mine, old, x in zip((L, R), factors(6, 9), (G, G.mT), strict=True):
            expected = DECAY * old.double() + WEIGHT * x.double() @ x.double().mT
            torch.testing.assert_close(mine.double(), expected, rtol=1e-6, atol=1e-6)
    emulated.outer_update_list_([], [], [], decay=1.0, weight=1.0)
    assert not emulated.launched


def smallest_eigenvalue_ratio(L: Tensor) -> float:
    values = torch.linalg.eigvalsh(L.double())
    return (values[0] / values[-1]).item()


@pytest.mark.parametrize("tiles", SIZES)
def test_precision_chooses_the_products(tiles: str, emulated: EmulatedOuter) -> None:
    """Errors of one and two parts, and a Gram matrix of two parts that stays PSD at rank 1."""
    emulated.tiles = tiles
    G = normal(48, 100)
    exact = G.double() @ G.double().mT
    for precision, low, high in [
        ("highest", 0, 3e-7),
        ("high", 1e-6, 2e-5),
        ("medium", 3e-4, 4e-3),
    ]:
        emulated.precision = precision
        L = torch.zeros(48, 48)
        emulated.outer_update_(L, None, G, decay=0.0, weight=1.0)
        error = ((L.double() - exact).norm() / exact.norm()).item()
        assert low <= error <= high, f"{precision}: {error:.1e}"
    emulated.precision = "high"
    L = torch.zeros(48, 48)
    emulated.outer_update_(L, None, G[:, :1], decay=0.0, weight=1.0)
    assert smallest_eigenvalue_ratio(L) > -1e-6


def test_tiles_follow_the_size_of_the_matrices(emulated: EmulatedOuter) -> None:
    emulated.multiprocessors = 1
    for size, tiles in ((64, "small"), (256, "large")):
        G = normal(size, 32, dtype=torch.bfloat16)
        L, _ = factors(size, size)
        emulated.outer_update_(L, None, G, decay=0.0, weight=1.0)
        assert emulated.launched == [f"bfloat16 {tiles}"]
