"""Kernels with something wrong: edits of csrc/cuda that the tests must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "csrc" / "cuda"
BARRIER = "__syncthreads();"


@dataclass(frozen=True)
class Edit:
    """The first occurrence of `old` after `after` becomes `new`."""

    file: str
    old: str
    new: str
    after: str = ""


Mutant = tuple[Edit, ...]


def edit(file: str, old: str, new: str, after: str = "") -> Mutant:
    """A mutant of one edit; add more with `+`."""
    return (Edit(file, old, new, after),)


def changed_files(mutant: Mutant) -> dict[str, str]:
    """The text of each file that the mutant changes."""
    texts: dict[str, str] = {}
    for e in mutant:
        text = texts.get(e.file) or (KERNELS / e.file).read_text()
        start = text.index(e.old, text.index(e.after))
        texts[e.file] = text[:start] + e.new + text[start + len(e.old) :]
    return texts
