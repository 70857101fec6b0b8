"""Mutants of upload."""

from __future__ import annotations

from mutants import edit

CHECK = "upload"
CAUGHT_BY_VALUES = {
    "the last piece is left out": edit("upload.cuh", "i < count", "i + 1 < count"),
    "every chunk is the first": edit(
        "upload.cu", "from + at, count", "from, count", "left <= kShort"
    ),
    "16 bytes too many": edit("upload.cu", "(bytes + 15) / 16", "(bytes + 31) / 16"),
}
