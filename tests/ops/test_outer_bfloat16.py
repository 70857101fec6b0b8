"""outer_update_ by bfloat16 products: what they round, and what they must not harm.

On processors with units for them (capability avx512_bf16, amx) and on amx_emulated, which computes
their instructions in C++. Where there is none the same holds of float32 arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import (
    assert_accurate,
    integers,
    normal,
    relative_error,
    sliced,
    symmetric,
    transposed_memory,
    with_condition,
)
from outer_cases import DECAY, WEIGHT, check_update, factors
from torch import Tensor

from kronext import build_info, ops

pytestmark = pytest.mark.cpu

CAPABILITY = str(build_info()["cpu_capability"])
HAS_TILES = CAPABILITY in ("amx", "amx_emulated")
HAS_UNIT = HAS_TILES or CAPABILITY == "avx512_bf16"
# Float32 matrices that are large enough for the unit; none is a multiple of its tiles.
LARGE = [(161, 163), (129, 260), (70, 900), (300, 130)]
SMALL = (64, 70)


@pytest.fixture(autouse=True)
def default_afterwards() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def outer_products(G: Tensor) -> tuple[Tensor, Tensor]:
    L, R = torch.zeros(G.shape[0], G.shape[0]), torch.zeros(G.shape[1], G.shape[1])
    ops.outer_update_(L, R, G, decay=0.0, weight=1.0)
    return L, R


def rounded(G: Tensor, parts: int) -> Tensor:
    """The sum of bfloat16 numbers, each the nearest to what is left of G."""
    total = torch.zeros_like(G)
    for _ in range(parts):
        total = total + (G - total).bfloat16().float()
    return total


def parts_at(precision: str) -> int | None:
    """In how many parts a large float32 matrix is multiplied; None: as it is."""
    parts = {"highest": None, "high": 2, "medium": 1}[precision]
    return parts if HAS_TILES or (HAS_UNIT and parts == 1) else None


# ---- bfloat16 gradients --------------------------------------------------------------------------


def test_long_sums_of_bfloat16_stay_accurate() -> None:
    G = normal(24, 30_000, dtype=torch.bfloat16)
    L, _ = factors(24, 1)
    oracle = DECAY * L.double() + WEIGHT * G.double() @ G.double().mT
    plain = DECAY * L + WEIGHT * G.float() @ G.float().mT
    ops.outer_update_(L, None, G, decay=DECAY, weight=WEIGHT)
    assert_accurate(L, oracle, plain)


@pytest.mark.parametrize("exponent", [-31, -33, -50, -64, -70])
def test_small_numbers_lose_nothing(exponent: int) -> None:
    """Products below float32's normal range, which the units flush to zero, are exact here."""
    G = integers(-8, 9, 70, 50).bfloat16()
    L, R = outer_products(G * 2.0**exponent)
    exact = G.double() * 2.0**exponent
    assert torch.equal(L.double(), exact @ exact.mT)
    assert torch.equal(R.double(), exact.mT @ exact)


def test_rows_of_different_size_lose_nothing() -> None:
    """Each panel of rows is lifted out of the range in which numbers vanish; columns share one."""
    sizes = 2.0 ** torch.tensor([0, -20, -40, -64, -80, -130])
    G = (integers(-8, 9, 192, 50) * sizes.repeat_interleave(32)[:, None]).bfloat16()
    L, R = outer_products(G)
    exact = G.double()
    torch.testing.assert_close(L.double(), exact @ exact.mT, rtol=0, atol=2.0**-140)
    bound = torch.finfo(torch.float32).smallest_normal
    torch.testing.assert_close(R.double(), exact.mT @ exact, rtol=1e-7, atol=bound)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_infinity_and_nan_spread_as_in_float32(precision: str, dtype: torch.dtype) -> None:
    G = integers(-3, 4, 165, 164).to(dtype)
    G[3, 4], G[40, 50], G[41, 50], G[100, 2] = (float(x) for x in ("inf", "-inf", "inf", "nan"))
    expected = G.float() @ G.float().mT, G.float().mT @ G.float()
    torch.set_float32_matmul_precision(precision)
    results = outer_products(G)
    for result, same in zip(results, expected, strict=True):
        if HAS_TILES and dtype == torch.float32 and precision == "highest":
            # Parts of infinity are infinity and NaN.
            assert torch.equal(result.isfinite(), same.isfinite())
            result, same = result.nan_to_num(0, 0, 0), same.nan_to_num(0, 0, 0)
        torch.testing.assert_close(result, same, rtol=0, atol=0, equal_nan=True)


# ---- float32 gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("view", [lambda G: G, sliced, transposed_memory])
def test_values_of_large_matrices(view: Callable[[Tensor], Tensor], precision: str) -> None:
    """Float32-grade products of the numbers, rounded as the precision allows and no more."""
    torch.set_float32_matmul_precision(precision)
    parts = parts_at(precision)
    for m, n in LARGE:
        G = normal(m, n)
        L, R = factors(m, n)
        check_update(
            lambda L, R, _, G=G, **numbers: ops.outer_update_(L, R, view(G), **numbers),
            G if parts is None else rounded(G, parts),
            L,
            R,
        )


def test_small_matrices_are_not_rounded() -> None:
    G = normal(*SMALL)
    expected = outer_products(G)
    torch.set_float32_matmul_precision("medium")
    for result, same in zip(outer_products(G), expected, strict=True):
        assert torch.equal(result, same)


@pytest.mark.parametrize(
    ("precision", "bound"), [("highest", 3e-7), ("high", 3e-5), ("medium", 1e-2)]
)
def test_error_of_each_precision(precision: str, bound: float) -> None:
    G = normal(200, 300)
    torch.set_float32_matmul_precision(precision)
    for result, X in zip(outer_products(G), (G, G.mT), strict=True):
        assert relative_error(result, X.double() @ X.double().mT) <= bound


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_results_stay_positive_semidefinite(precision: str) -> None:
    """Up to float32 rounding, whatever the spectrum: the parts' products are all made."""
    torch.set_float32_matmul_precision(precision)
    for G in (normal(40, 900), with_condition(160, 1e5)):
        for result in outer_products(G):
            values = torch.linalg.eigvalsh(result.double())
            assert values[0] >= -4 * torch.finfo(torch.float32).eps * values[-1]


def test_lists_of_every_dtype_equal_single_calls_bit_for_bit() -> None:
    torch.set_float32_matmul_precision("medium")
    shapes = [(170, 171), (33, 20), (160, 100), (7, 300), (0, 5), (129, 64)]
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.bfloat16, torch.bfloat16]
    dtypes.append(torch.float16)
    Gs = [normal(*shape, dtype=t) for shape, t in zip(shapes, dtypes, strict=True)]
    single, listed = ([factors(*shape) for shape in shapes] for _ in range(2))
    for (L, R), G in zip(single, Gs, strict=True):
        ops.outer_update_(L, R, G, decay=DECAY, weight=WEIGHT)
    Ls, Rs = zip(*listed, strict=True)
    ops.outer_update_list_(Ls, Rs, Gs, decay=DECAY, weight=WEIGHT)
    for mine, other in zip(listed, single, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a, b)


def test_a_float64_factor_is_never_rounded() -> None:
    torch.set_float32_matmul_precision("medium")
    for dtype in (torch.float32, torch.bfloat16):
        G = normal(130, 131, dtype=dtype)
        L = symmetric(130, 130, dtype=torch.float64)
        oracle = DECAY * L + WEIGHT * G.double() @ G.double().mT
        ops.outer_update_(L, None, G, decay=DECAY, weight=WEIGHT)
        torch.testing.assert_close(L, oracle, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bits_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    torch.set_float32_matmul_precision("medium")
    G = normal(200, 300, dtype=dtype)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(outer_products(G))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
