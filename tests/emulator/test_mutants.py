"""Would the tests notice? Each mutant of the kernels has one thing wrong, and must be caught."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc" / "cuda"
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str  # the first occurrence after `after`
    new: str
    after: str = ""

    def text(self) -> str:
        text = (KERNELS / self.file).read_text()
        start = text.index(self.old, text.index(self.after))
        return text[:start] + self.new + text[start + len(self.old) :]


BARRIER = "__syncthreads();"
TENSOR, KERNEL = "outer_tensor.cuh", "outer_kernel.cuh"
CAUGHT_BY_VALUES = {
    "no barrier in the 16-bit loop": Mutant(TENSOR, BARRIER, "", "wait<stages - 2>"),
    "no barrier in the split loop": Mutant(TENSOR, BARRIER, "", "has just read"),
    "no barrier before the mirror": Mutant(KERNEL, BARRIER, "", "write_vector_rows();"),
    "no barrier after the spill": Mutant(KERNEL, BARRIER, "", "Tile::spill"),
    "waits for one copy too few": Mutant(TENSOR, "wait<stages - 2>", "wait<stages - 1>"),
    "diagonal not mirrored": Mutant(KERNEL, "diagonal && r < c", "false", "mirrored(int r"),
    "row tail reads too far": Mutant(TENSOR, "left > kUnit ? kUnit : left", "kUnit"),
    "rows beyond the rim": Mutant(TENSOR, "< x.rows ? valid : 0", "< x.rows + 1 ? valid : 0"),
    "swizzle of one reader": Mutant(TENSOR, "8 + line", "8 + (line ^ 1)", "void right_fragments"),
    "registers of a swapped": Mutant(
        TENSOR, "down = matrix % 2, along = matrix / 2", "down = matrix / 2, along = matrix % 2"
    ),
    "a part is left out": Mutant(TENSOR, "{1, 1}, ", "{0, 2}, "),
    "a split tile loses a part": Mutant(KERNEL, "int part = 0", "int part = 1"),
    "old factor always read": Mutant(KERNEL, "sum.w, old.w", "sum.w, old.z"),
}
CAUGHT_BY_TSAN = {
    "no barrier before the epilogue": Mutant(KERNEL, BARRIER, "", "the operands that lie there"),
    "one buffer of planes": Mutant(TENSOR, "(i & 1) * 2 * kPlanes", "0"),
    "no barrier after the last step": Mutant(KERNEL, BARRIER, "", "while (true) {"),
}
NO_FLUSH = [
    Mutant(TENSOR, "float fresh[kTogether][4] = {};", """float fresh[kTogether][4];
          for (int j = 0; j < kTogether; ++j) {
            for (int e = 0; e < 4; ++e) fresh[j][e] = sums[i][j0 + j][e];
          }"""),
    Mutant(TENSOR, "sums[i][j0 + j][e] += fresh", "sums[i][j0 + j][e] = fresh"),
]  # fmt: skip


def install(tree: Path, changed: dict[str, str]) -> None:
    """All kernels, so that no dependency appears or goes; unchanged ones keep their time."""
    folder = tree / "mutant" / "csrc" / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    for source in KERNELS.glob("outer*"):
        text = changed.get(source.name, source.read_text())
        target = folder / source.name
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def test_a_kernel_without_the_flush_is_biased(tree: Path, program: Program) -> None:
    install(tree, {})
    assert program("emulator_mutant", "outer-bias").returncode == 0
    text = (KERNELS / TENSOR).read_text()
    for mutant in NO_FLUSH:
        assert mutant.old in text
        text = text.replace(mutant.old, mutant.new)
    install(tree, {TENSOR: text})
    assert program("emulator_mutant", "outer-bias").returncode == 1


@pytest.mark.sanitize
@pytest.mark.parametrize("name", CAUGHT_BY_VALUES)
def test_values_catch(name: str, tree: Path, program: Program) -> None:
    mutant = CAUGHT_BY_VALUES[name]
    install(tree, {mutant.file: mutant.text()})
    runs = (program("emulator_mutant", "outer", *order) for order in ((), ("1",)))
    assert any(run.returncode == 1 for run in runs)


@pytest.mark.sanitize
@pytest.mark.parametrize("name", CAUGHT_BY_TSAN)
def test_tsan_catches(name: str, tree: Path, program: Program) -> None:
    mutant = CAUGHT_BY_TSAN[name]
    install(tree, {mutant.file: mutant.text()})
    runs = (program("emulator_mutant_tsan", "outer", *order) for order in ((), ("1",)))
    assert any("data race" in run.stderr for run in runs)


@pytest.mark.sanitize
def test_unchanged_kernels_pass(tree: Path, program: Program) -> None:
    install(tree, {})
    assert program("emulator_mutant", "outer").returncode == 0
