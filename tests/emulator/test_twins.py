"""The emulated instructions against the fragment tables of the PTX ISA (sections on mma.m16n8k16,
ldmatrix, cp.async and cvt), element by element."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
HALVES = (torch.bfloat16, torch.float16)


def bits(values: Tensor) -> list[int]:
    """The 16 bits of each number."""
    return [v & 0xFFFF for v in values.contiguous().view(torch.int16).flatten().tolist()]


def packed(low: int, high: int) -> int:
    return low | high << 16


def fragments_of_a(a: Tensor) -> list[int]:
    """Register i of lane 4g + t: rows g, g+8, g, g+8; columns 2t, 2t+1, from 8 on in i = 2, 3."""
    b = [bits(row) for row in a]
    registers = []
    for lane in range(32):
        group, member = lane // 4, lane % 4
        for row, column in ((0, 0), (8, 0), (0, 8), (8, 8)):
            at = b[group + row]
            registers.append(packed(at[2 * member + column], at[2 * member + column + 1]))
    return registers


def fragments_of_b(b: Tensor) -> list[int]:
    """Register i of lane 4g + t: rows 2t + 8i and 2t + 8i + 1 of column g."""
    columns = [bits(column) for column in b.T]
    registers = []
    for lane in range(32):
        group, member = lane // 4, lane % 4
        for row in (2 * member, 2 * member + 8):
            registers.append(packed(columns[group][row], columns[group][row + 1]))
    return registers


def accumulator_index() -> Tensor:
    """Registers of lane 4g + t: rows g, g, g+8, g+8; columns 2t, 2t+1, 2t, 2t+1."""
    index = [
        (lane // 4 + 8 * (i // 2)) * 8 + lane % 4 * 2 + i % 2
        for lane in range(32)
        for i in range(4)
    ]
    return torch.tensor(index)


def mma(emulator: ModuleType, a: Tensor, b: Tensor, d: Tensor, repeats: int = 1) -> Tensor:
    index = accumulator_index()
    out = emulator.run_mma(
        fragments_of_a(a),
        fragments_of_b(b),
        d.flatten()[index].tolist(),
        a.dtype == torch.bfloat16,
        repeats,
    )
    result = torch.empty(128)
    result[index] = torch.tensor(out)
    return result.view(16, 8)


@pytest.mark.parametrize("dtype", HALVES)
def test_mma_multiplies_the_matrices_of_the_isa(dtype: torch.dtype, emulator: ModuleType) -> None:
    """Small integers: exact, so that one misplaced element shows."""
    for seed in range(5):
        torch.manual_seed(seed)
        a = torch.randint(-100, 101, (16, 16))
        b = torch.randint(-100, 101, (16, 8))
        d = torch.randint(-100, 101, (16, 8)).float()
        result = mma(emulator, a.to(dtype), b.to(dtype), d)
        assert torch.equal(result, (a @ b).float() + d)


def test_mma_rounds_towards_zero(emulator: ModuleType) -> None:
    a, b = torch.zeros(16, 16), torch.zeros(16, 8)
    a[0, 0], b[0, 0] = 1, 2.0**-9
    a[1, 0] = -1
    d = torch.zeros(16, 8)
    # 2^-9 is three quarters of a unit in the last place: nearest would round away from zero.
    d[0, 0] = 1.5 * 2.0**14
    d[1, 0] = -1.5 * 2.0**14
    a[:2] *= 0.75
    result = mma(emulator, a.bfloat16(), b.bfloat16(), d)
    assert torch.equal(result, d)


def test_long_sums_in_the_accumulator_are_biased(emulator: ModuleType) -> None:
    """Why kernels flush: 8192 positive terms left in the accumulator fall short by 1e-5."""
    torch.manual_seed(0)
    a, b = torch.rand(16, 16).bfloat16(), torch.rand(16, 8).bfloat16()
    exact = 512 * (a.double() @ b.double())
    bias = ((mma(emulator, a, b, torch.zeros(16, 8), 512).double() - exact) / exact).mean()
    assert -1e-4 < bias < -5e-6


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(transposed: bool, emulator: ModuleType) -> None:
    """Register j of lane 4g + t: elements 2t, 2t+1 of row (transposed: column) g of matrix j."""
    rows = torch.arange(256).view(4, 8, 8) * 257 % 65536
    registers = emulator.run_ldmatrix(rows.flatten().tolist(), transposed)
    for lane in range(32):
        group, member = lane // 4, lane % 4
        for j in range(4):
            matrix = rows[j].T if transposed else rows[j]
            expected = packed(int(matrix[group, 2 * member]), int(matrix[group, 2 * member + 1]))
            assert registers[4 * lane + j] == expected


@pytest.mark.parametrize("size", [4, 16])
def test_copy_async_fills_with_zeros(size: int, emulator: ModuleType) -> None:
    given = list(range(1, 17))
    for valid in range(size + 1):
        expected = given[:valid] + [0] * (size - valid) + [0xFF] * (16 - size)
        assert emulator.run_copy_async(given, valid, size) == expected


def test_packing_rounds_to_nearest_even_bfloat16(emulator: ModuleType) -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.randn(200) * torch.logspace(-38, 38, 200), torch.tensor([
        0.0, -0.0, 1.00390625, 1.01171875, 3.4e38, float("inf"), -float("inf"), 1e-40,
    ])])  # fmt: skip
    for low, high in zip(values, values.flip(0), strict=True):
        expected = packed(*bits(torch.stack([low, high]).bfloat16()))
        assert emulator.run_pack_bfloat16(low.item(), high.item()) == expected
    assert emulator.run_pack_bfloat16(float("nan"), 0.0) == 0x7FFF


@pytest.mark.parametrize("dtype", HALVES)
def test_half_to_float_for_every_number(dtype: torch.dtype, emulator: ModuleType) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    expected = every.view(dtype).float()
    step = 7  # prime: every exponent, sign and many fractions, in a second
    result = torch.tensor(
        [
            emulator.run_half_to_float(b, dtype == torch.bfloat16)
            for b in bits(every.view(dtype)[::step])
        ]
    )
    torch.testing.assert_close(result, expected[::step], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("width", [8, 32])
@pytest.mark.parametrize("kind", ["xor", "up", "down", "index"])
def test_shuffles(kind: str, width: int, emulator: ModuleType) -> None:
    values = [float(i * i) for i in range(32)]
    for argument in (0, 1, 3, 4, 7):
        result = emulator.run_shuffle(kind, values, argument, width)
        for lane in range(32):
            first = lane // width * width
            source = {
                "xor": lane ^ argument,
                "up": lane - argument,
                "down": lane + argument,
                "index": first + argument % width,
            }[kind]
            inside = first <= source < first + width
            assert result[lane] == values[source if inside else lane]


def test_ballot(emulator: ModuleType) -> None:
    for votes in (0, 1, 0x80000000, 0xDEADBEEF, 0xFFFFFFFF):
        assert emulator.run_ballot(votes) == votes


@pytest.mark.parametrize("width", [8, 32])
def test_reductions_stay_in_their_group(width: int, emulator: ModuleType) -> None:
    values = [lane * 37 % 64 * 2 + (lane == 19) for lane in range(32)]
    groups = [values[first : first + width] for first in range(0, 32, width)]
    largest = [max(group) for group in groups for _ in group]
    assert emulator.run_reduce_max(values, width) == largest
    any_odd = [int(any(v % 2 for v in group)) for group in groups for _ in group]
    assert emulator.run_any_odd(values, width) == any_odd


def test_approximate_instructions_are_off_by_two_units_at_most(emulator: ModuleType) -> None:
    torch.manual_seed(0)
    x, y = (torch.rand(300) + 0.5 for _ in range(2))
    quotients = torch.tensor([emulator.run_fdividef(a, b) for a, b in zip(x, y, strict=True)])
    roots = torch.tensor([emulator.run_rsqrt(a) for a in x])
    for result, exact in ((quotients, x.double() / y.double()), (roots, x.double().rsqrt())):
        error = ((result.double() - exact) / exact).abs().max()
        assert 2**-23 < error < 2.5 * 2**-23


@pytest.mark.parametrize("header", ["ptx.cuh", "launch.cuh"])
def test_a_twin_has_the_names_of_its_header(header: str) -> None:
    """A name without a twin would show only when a kernel first uses it."""
    declared = re.compile(r"^(?:__device__ )?.*?\b(\w+)\(", re.MULTILINE)

    def names(path: Path) -> set[str]:
        text = path.read_text()
        return set(declared.findall(re.sub(r"^[ }].*$|^//.*$|^#.*$", "", text, flags=re.MULTILINE)))

    theirs = names(ROOT / "csrc" / "cuda" / header)
    twins = names(ROOT / "tests" / "emulator" / "twins" / "csrc" / "cuda" / header)
    assert len(theirs) > 0
    assert theirs - {"shared_address"} <= twins
