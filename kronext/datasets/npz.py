"""Archives of arrays, as NumPy writes them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile


@contextmanager
def open_npz(caller: str, path: Path) -> Iterator[NpzFile]:
    """The arrays of a `.npz` file, read as they are asked for.

    Args:
        caller: the public function that errors name.
        path: of the file.

    Raises:
        ValueError: it is something else, or not whole.
    """
    import numpy as np

    try:
        with ZipFile(path):  # of another file NumPy would say that it holds pickles
            pass
        with np.load(path) as file:
            yield file
    except (BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{caller}: {path.name} must be a whole .npz file (got {error})"
        ) from error
