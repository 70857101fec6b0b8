"""Would the tests notice? Each mutant of the kernels has one thing wrong, and must be caught."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from mutants import KERNELS, Mutant, changed_files

TWINS = Path(__file__).parent / "twins" / "csrc" / "cuda"
Program = Callable[..., "subprocess.CompletedProcess[str]"]
OPS = [
    importlib.import_module(path.stem)
    for path in sorted(Path(__file__).parent.glob("mutants_*.py"))
]


def mutants_of(kind: str) -> list[object]:
    return [
        pytest.param(op, mutant, id=f"{op.CHECK}: {name}")
        for op in OPS
        for name, mutant in getattr(op, kind, {}).items()
    ]


def install(tree: Path, mutant: Mutant = ()) -> None:
    """All kernels, so that no dependency appears or goes; unchanged ones keep their time.

    Headers that have a twin stay away: the mutants' folder comes first on the include path.
    """
    folder = tree / "mutant" / "csrc" / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    changed = changed_files(mutant)
    for source in KERNELS.iterdir():
        if (TWINS / source.name).exists():
            continue
        text = changed.get(source.name) or source.read_text()
        target = folder / source.name
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


@pytest.mark.parametrize(("op", "mutant"), mutants_of("CAUGHT_QUICKLY"))
def test_one_check_catches(
    op: ModuleType, mutant: tuple[str, Mutant], tree: Path, program: Program
) -> None:
    check, edits = mutant
    install(tree)
    assert program(f"{op.CHECK}_mutant", check).returncode == 0
    install(tree, edits)
    assert program(f"{op.CHECK}_mutant", check).returncode == 1


@pytest.mark.sanitize
@pytest.mark.parametrize(("op", "mutant"), mutants_of("CAUGHT_BY_VALUES"))
def test_values_catch(op: ModuleType, mutant: Mutant, tree: Path, program: Program) -> None:
    install(tree, mutant)
    runs = (program(f"{op.CHECK}_mutant", op.CHECK, *order) for order in ((), ("1",)))
    assert any(run.returncode == 1 for run in runs)


@pytest.mark.sanitize
@pytest.mark.parametrize(("op", "mutant"), mutants_of("CAUGHT_BY_TSAN"))
def test_tsan_catches(op: ModuleType, mutant: Mutant, tree: Path, program: Program) -> None:
    install(tree, mutant)
    runs = (program(f"{op.CHECK}_mutant_tsan", op.CHECK, *order) for order in ((), ("1",)))
    assert any("data race" in run.stderr for run in runs)


@pytest.mark.sanitize
@pytest.mark.parametrize("check", [op.CHECK for op in OPS])
def test_unchanged_kernels_pass(check: str, tree: Path, program: Program) -> None:
    install(tree)
    assert program(f"{check}_mutant", check).returncode == 0


@pytest.mark.sanitize
@pytest.mark.parametrize("order", [(), ("1",), ("2",)], ids=["forward", "random 1", "random 2"])
@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
@pytest.mark.parametrize("check", [op.CHECK for op in OPS])
def test_sanitizers_are_silent(
    check: str, sanitizer: str, order: tuple[str, ...], program: Program
) -> None:
    result = program(f"{check}_{sanitizer}", check, *order)
    assert result.returncode == 0, result.stderr
