"""precondition by bfloat16 products: what they round, and what they must not harm.

On processors with units for them (capability avx512_bf16, amx) and on amx_emulated, which computes
their instructions in C++. Where there is none the same holds of float32 arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import assert_accurate, integers, relative_error, sliced, transposed_memory
from precondition_cases import SIDES, check_squares, operands, plain
from torch import Tensor

from kronext import build_info, ops, reference

pytestmark = pytest.mark.cpu

CAPABILITY = str(build_info()["cpu_capability"])
HAS_TILES = CAPABILITY in ("amx", "amx_emulated")
HAS_UNIT = HAS_TILES or CAPABILITY == "avx512_bf16"
# Large enough for the unit with either side alone; both sides of every edge of its tiles.
LARGE = [(192, 192), (193, 175), (161, 208), (130, 305), (400, 113), (97, 577)]
SMALL = (64, 70)


@pytest.fixture(autouse=True)
def default_afterwards() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def sides_of(left: Tensor, right: Tensor) -> list[tuple[Tensor | None, Tensor | None]]:
    return [(left if has else None, right if also else None) for has, also in SIDES]


def rounded(tensor: Tensor, parts: int) -> Tensor:
    """The sum of bfloat16 numbers, each the nearest to what is left."""
    total = torch.zeros_like(tensor)
    for _ in range(parts):
        total = total + (tensor - total).bfloat16().float()
    return total


def is_rounded_at(precision: str) -> bool:
    """Whether large float32 matrices go to the unit."""
    return HAS_TILES or (HAS_UNIT and precision == "medium")


def with_rounding(G: Tensor, left: Tensor | None, right: Tensor | None, parts: int) -> Tensor:
    """The same computation in float64 of numbers rounded to so many parts."""
    result = rounded(G.float(), parts).double()
    if left is not None:
        result = rounded(left, parts).double() @ result
    if right is not None:
        if left is not None:
            result = rounded(result.float(), parts).double()
        result = result @ rounded(right, parts).double()
    return result


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("view", [lambda t: t, sliced, transposed_memory])
def test_one_part_is_the_product_of_rounded_numbers(
    view: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    torch.set_float32_matmul_precision("medium")
    for m, n in LARGE:
        G, left, right = operands(m, n, dtype)
        for a, b in sides_of(left, right):
            views = view(G), None if a is None else view(a), None if b is None else view(b)
            result = ops.precondition(*views)
            if not HAS_UNIT:
                assert_accurate(result, reference.precondition(G, a, b), plain(G, a, b))
                continue
            # left G is rounded from float32 sums: some of its numbers fall to the other neighbour.
            bound = 1e-6 if a is None or b is None else 3e-4
            assert relative_error(result, with_rounding(G, a, b, 1)) <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("precision", "bound"), [("highest", None), ("high", 2e-5), ("medium", 6e-3)]
)
def test_error_of_each_precision(precision: str, bound: float | None, dtype: torch.dtype) -> None:
    """At "highest" that of float32, whatever multiplies."""
    torch.set_float32_matmul_precision(precision)
    for m, n in LARGE:
        G, left, right = operands(m, n, dtype)
        for a, b in sides_of(left, right):
            result, oracle = ops.precondition(G, a, b), reference.precondition(G, a, b)
            if bound is None or not is_rounded_at(precision):
                assert_accurate(result, oracle, plain(G, a, b))
            else:
                assert relative_error(result, oracle) <= bound


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_integers_are_exact(precision: str) -> None:
    """What needs no rounding gets none: every element is made, of the right numbers."""
    torch.set_float32_matmul_precision(precision)
    for m, n in LARGE:
        G = integers(-8, 9, m, n).float()
        left, right = torch.eye(m).roll(1, 0) * 3, integers(-8, 9, n, n, seed=1).float()
        for a, b in sides_of(left, right):
            assert torch.equal(ops.precondition(G, a, b), plain(G, a, b))


def test_small_matrices_float16_and_float64_are_not_rounded() -> None:
    cases = [operands(*SMALL), operands(*LARGE[1], torch.float16)]
    cases += [operands(*LARGE[1], torch.bfloat16, torch.float64)]
    cases += [operands(*LARGE[1], torch.float64, torch.float32)]
    expected = [ops.precondition(*case) for case in cases]
    torch.set_float32_matmul_precision("medium")
    for case, same in zip(cases, expected, strict=True):
        assert torch.equal(ops.precondition(*case), same)


# ---- scales, and what is not finite --------------------------------------------------------------


@pytest.mark.parametrize("exponents", [(-64, 0, 0), (0, -70, 40), (-100, 30, 80), (50, -126, 50)])
def test_small_numbers_lose_nothing(exponents: tuple[int, int, int]) -> None:
    """Operands and products below float32's normal range, which the units flush to zero."""
    torch.set_float32_matmul_precision("medium")
    m, n = LARGE[1]
    G, right = integers(-8, 9, m, n).float(), integers(-8, 9, n, n, seed=1).float()
    left = torch.eye(m).roll(1, 0)
    scaled = [x * 2.0**e for x, e in zip((G, left, right), exponents, strict=True)]
    for a, b in sides_of(*scaled[1:]):
        exact = reference.precondition(scaled[0], a, b).double()
        smallest = torch.finfo(torch.float32).smallest_normal
        result = ops.precondition(scaled[0], a, b).double()
        torch.testing.assert_close(result, exact, rtol=0, atol=2.0**-20 * smallest)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_rows_and_columns_of_different_size_lose_nothing(precision: str) -> None:
    """Each panel of rows and of columns is lifted out of the range in which numbers vanish."""
    torch.set_float32_matmul_precision(precision)
    sizes = 2.0 ** torch.tensor([0, -20, -40, -64, -80, -100]).repeat_interleave(32).double()
    G = integers(-8, 9, 192, 192).float()
    by_row = ((sizes[:, None] * G).float(), torch.eye(192) * 2.0**-3, None)
    by_column = (G, None, (torch.eye(192) * sizes).float())
    for case in (by_row, by_column):
        exact = reference.precondition(*case).double()
        assert torch.equal(ops.precondition(*case).double(), exact)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_infinity_and_nan_spread_as_in_float32(precision: str) -> None:
    m, n = LARGE[1]
    G, left, right = integers(-3, 4, m, n).float(), torch.eye(m), integers(-3, 4, n, n).float()
    G[3, 4], G[40, 50], G[41, 50], G[100, 2] = (float(x) for x in ("inf", "-inf", "inf", "nan"))
    expected = [ops.precondition(G, a, b).isfinite() for a, b in sides_of(left, right)]
    plain_finite = [plain(G, a, b).isfinite() for a, b in sides_of(left, right)]
    torch.set_float32_matmul_precision(precision)
    for (a, b), same, other in zip(sides_of(left, right), expected, plain_finite, strict=True):
        finite = ops.precondition(G, a, b).isfinite()
        assert torch.equal(finite, same)
        assert torch.equal(finite, other)


# ---- lists, squares, threads ---------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_lists_of_every_dtype_equal_single_calls_bit_for_bit(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    shapes = [LARGE[1], (33, 20), LARGE[3], (7, 300), (0, 5), (129, 200), LARGE[2]]
    dtypes = [torch.float32, torch.bfloat16, torch.bfloat16, torch.float64, torch.float32]
    dtypes += [torch.float16, torch.float32]
    rows = [operands(*shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    Gs, lefts, rights = (list(column) for column in zip(*rows, strict=True))
    lefts[0] = rights[2] = None
    results = ops.precondition_list(Gs, lefts, rights)
    for result, G, left, right in zip(results, Gs, lefts, rights, strict=True):
        assert torch.equal(result, ops.precondition(G, left, right))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_sums_of_squares(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    rows = [operands(*shape) for shape in [*LARGE, SMALL]]
    check_squares(ops, *(list(column) for column in zip(*rows, strict=True)))


def test_row_panels_share_a_right_factor_larger_than_the_cache() -> None:
    torch.set_float32_matmul_precision("medium")
    G, left, right = operands(421, 900)
    result = ops.precondition(G, left, right)
    alone = [ops.precondition(G[i : i + 200], None, right) for i in (0, 221)]
    assert relative_error(result, reference.precondition(G, left, right)) <= 6e-3
    whole = ops.precondition(G, None, right)
    assert torch.equal(whole[:200], alone[0])
    assert torch.equal(whole[221:], alone[1])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_bits_do_not_depend_on_threads(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    G, left, right = operands(200, 300)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(ops.precondition(G, left, right))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
