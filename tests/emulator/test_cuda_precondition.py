"""The CUDA kernels of precondition, executed on the CPU: the cases and the oracle of the CPU op."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from emulated_precondition import EmulatedPrecondition
from helpers import (
    FACTOR,
    FLOATING,
    SHAPES,
    assert_accurate,
    name,
    normal,
    relative_error,
    sliced,
    transposed_memory,
)
from precondition_cases import (
    check_every_16_bit_value,
    check_non_finite,
    check_product,
    check_sides,
    operands,
    plain,
)
from torch import Tensor

from kronext import reference

Schedules = Callable[[], Iterator[str]]
TILES = ("fastest", "small", "large")
TENSOR_CORES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def emulated(emulator: ModuleType) -> EmulatedPrecondition:
    return EmulatedPrecondition(emulator)


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("dtype", TENSOR_CORES, ids=name)
def test_values_of_every_shape(
    dtype: torch.dtype, tiles: str, emulated: EmulatedPrecondition
) -> None:
    emulated.tiles = tiles
    for m, n in SHAPES:
        check_sides(emulated.precondition, *operands(m, n, dtype))


@pytest.mark.parametrize("factor_dtype", FACTOR, ids=name)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
def test_values_in_float64(
    dtype: torch.dtype, factor_dtype: torch.dtype, emulated: EmulatedPrecondition
) -> None:
    if torch.float64 not in (dtype, factor_dtype):
        factor_dtype = torch.float64
    for m, n in SHAPES:
        check_sides(emulated.precondition, *operands(m, n, dtype, factor_dtype))
    G, left, right = operands(9, 12, dtype)
    check_product(emulated.precondition, G, left.double(), right)


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("dtype", FLOATING, ids=name)
@pytest.mark.parametrize("view", [sliced, transposed_memory])
def test_strided_operands(
    view, dtype: torch.dtype, tiles: str, emulated: EmulatedPrecondition
) -> None:
    """Every layout of each operand: its rows or its columns together in memory, or neither."""
    emulated.tiles = tiles
    for m, n in [(5, 7), (33, 17), (64, 72)]:
        G, left, right = operands(m, n, dtype)
        check_product(emulated.precondition, view(G), left, right)
        check_product(emulated.precondition, G, view(left), view(right))
        check_product(emulated.precondition, view(G), view(left), None)
        check_product(emulated.precondition, view(G), None, view(right))


@pytest.mark.parametrize("tiles", ["fastest", "large"])
@pytest.mark.parametrize("dtype", TENSOR_CORES, ids=name)
def test_unaligned_memory(dtype: torch.dtype, tiles: str, emulated: EmulatedPrecondition) -> None:
    """Every offset of an operand inside 16 bytes."""

    def moved(x: Tensor, offset: int) -> Tensor:
        buffer = torch.full((offset + x.numel(),), float("nan"), dtype=x.dtype)
        return buffer[offset:].view(x.shape).copy_(x)

    emulated.tiles = tiles
    G, left, right = operands(20, 24, dtype)
    for offset in range(8):
        check_product(
            emulated.precondition, moved(G, offset), moved(left, offset), moved(right, offset)
        )


def test_batch_dimensions_broadcast(emulated: EmulatedPrecondition) -> None:
    G, left, right = normal(2, 1, 17, 9), normal(3, 17, 17), normal(9, 9)
    check_product(emulated.precondition, G, left, right)
    check_product(emulated.precondition, normal(17, 9).expand(4, 17, 9), left[0], None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name)
def test_every_16_bit_value_is_exact(dtype: torch.dtype, emulated: EmulatedPrecondition) -> None:
    for emulated.precision, width in [("highest", 33), ("medium", 64)]:
        check_every_16_bit_value(emulated.precondition, dtype, width)


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_matrix(
    poison: float, tiles: str, emulated: EmulatedPrecondition
) -> None:
    emulated.tiles = tiles
    check_non_finite(emulated.precondition, poison)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_non_finite_factors_show_in_the_rows_they_touch(
    poison: float, emulated: EmulatedPrecondition
) -> None:
    for emulated.tiles in TILES:
        G, left, right = operands(40, 24)
        clean = emulated.precondition(G, left, right)
        left[3, 5] = poison
        result = emulated.precondition(G, left, right)
        assert not result[3].isfinite().any(), emulated.tiles
        assert torch.equal(result[:3], clean[:3]), emulated.tiles
        assert torch.equal(result[4:], clean[4:]), emulated.tiles


RAGGED = [(40, 33), (7, 530), (130, 20), (0, 5), (1, 1)]


def ragged(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]:
    rows = [operands(*shape, dtype) for shape in RAGGED]
    Gs = [sliced(G) if i % 3 == 1 else G for i, (G, _, _) in enumerate(rows)]
    lefts: list[Tensor | None] = [left for _, left, _ in rows]
    rights: list[Tensor | None] = [right for _, _, right in rows]
    lefts[2] = rights[4] = None
    return Gs, lefts, rights


SCHEDULED = [
    *((torch.float32, tiles) for tiles in TILES),
    (torch.bfloat16, "fastest"),
    (torch.float16, "large"),
    (torch.float64, "fastest"),
]


@pytest.mark.parametrize(("dtype", "tiles"), SCHEDULED, ids=lambda p: p if p in TILES else name(p))
def test_every_schedule_gives_the_same_bits(
    dtype: torch.dtype, tiles: str, emulated: EmulatedPrecondition, schedules: Schedules
) -> None:
    """A ragged list, on few blocks (many tiles each) and on many (tiles split in depth)."""
    Gs, lefts, rights = ragged(dtype)
    emulated.tiles = tiles
    for emulated.multiprocessors in (1, 20):
        results = []
        for _ in schedules():
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            emulated.norms = torch.full((len(Gs),), float("nan"), dtype=wide)
            results.append([*emulated.precondition_list(Gs, lefts, rights), emulated.norms])
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))
    assert emulated.split_tiles > 0
    *outputs, norms = results[0]
    for i, given in enumerate(zip(Gs, lefts, rights, strict=True)):
        oracle = reference.precondition(*given)
        if dtype == torch.float64:  # which sums in an order of its own
            assert relative_error(outputs[i], oracle) < 4e-15, RAGGED[i]
        else:
            assert_accurate(outputs[i], oracle, plain(*given), str(RAGGED[i]))
        exact = outputs[i].double().square().sum().item()
        assert abs(norms[i].item() - exact) <= 8 * torch.finfo(wide).eps * exact, RAGGED[i]


@pytest.mark.parametrize("dtype", TENSOR_CORES, ids=name)
def test_precision_chooses_the_products(dtype: torch.dtype, emulated: EmulatedPrecondition) -> None:
    """Errors of three, two and one part of the factors."""
    G, left, right = operands(64, 60, dtype)
    expected = reference.precondition(G, left, right)
    for emulated.tiles in TILES:
        for precision, low, high in [
            ("highest", 0, 3e-7),
            ("high", 1e-6, 2e-5),
            ("medium", 3e-4, 8e-3),
        ]:
            emulated.precision = precision
            error = relative_error(emulated.precondition(G, left, right), expected)
            assert low <= error <= high, f"{emulated.tiles} {precision}: {error:.1e}"


def test_long_sums_are_not_biased(emulated: EmulatedPrecondition) -> None:
    """Tensor cores truncate, so sums of positive terms show whether they are flushed."""
    emulated.tiles = "small"
    for dtype in TENSOR_CORES:
        G, right = (normal(8, 1024) + 8).to(dtype), torch.full((1024, 1024), 1.0)
        result = emulated.precondition(G, None, right)[:, :8]
        exact = G.double().sum(1, keepdim=True).expand(8, 8)
        bias = ((result.double() - exact) / exact).mean().item()
        assert abs(bias) < 5e-7, f"{dtype}: {bias:.1e}"


def test_small_matrices_are_fused_and_large_ones_take_two_rounds(
    emulated: EmulatedPrecondition,
) -> None:
    shapes = [(6, 9), (64, 64), (65, 3), (100, 90)]
    rows = [operands(m, n, dtype) for dtype in FLOATING for m, n in shapes]
    Gs, lefts, rights = (list(column) for column in zip(*rows, strict=True))
    outputs = emulated.precondition_list(Gs, lefts, rights)
    for output, given in zip(outputs, rows, strict=True):
        assert_accurate(output, reference.precondition(*given), plain(*given))
    fused = [n for n in emulated.launched if n.endswith("fused")]
    assert sorted(fused) == [f"{g} highest fused" for g in ("bfloat16", "float16", "float32")]
    rounds = [n.split()[0] for n in emulated.launched if not n.endswith("fused")]
    assert rounds == ["float64", "float32", "bfloat16", "float16", "float64", "float32"]
    assert emulated.precondition_list([], None, []) == []
    assert not emulated.launched
