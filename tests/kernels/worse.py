"""A kernel made worse on purpose, which its rule must notice."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sass import ROOT, Kernel, compile_kernels


@dataclass(frozen=True)
class Worse:
    header: str  # of csrc/cuda
    changes: Sequence[tuple[str, str]]
    complaint: str  # part of what the rule must say


def compile_example(source: str, folder: Path, worse: Worse | None = None) -> list[Kernel]:
    """The kernels of `source`, from the project's headers with the changes in one of them."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    if worse is not None:
        header = folder / "csrc" / "cuda" / worse.header
        text = header.read_text()
        for old, new in worse.changes:
            assert old in text, f"{old!r} is not in {worse.header}"
            text = text.replace(old, new)
        header.write_text(text)
    path = folder / "example.cu"
    path.write_text(source)
    return compile_kernels(path, "90a", folder, include=(folder,))
