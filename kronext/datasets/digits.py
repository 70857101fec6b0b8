"""Handwritten digits: the small set that scikit-learn carries, or a copy of MNIST by path."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kronext.datasets.npz import open_npz


@dataclass(frozen=True)
class Digits:
    """Images `(N, pixels)` in [0, 1], float32, and labels `(N,)` 0 to 9, int64."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def only(self, *classes: int) -> Digits:
        """The images of some classes, relabelled 0, 1, ... in the order given."""

        def chosen(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            matches = labels[:, None] == torch.tensor(classes)
            rows = matches.any(1)
            return images[rows], matches[rows].int().argmax(1)

        return Digits(
            f"{self.name}, digits {', '.join(map(str, classes))}",
            *chosen(self.train_images, self.train_labels),
            *chosen(self.test_images, self.test_labels),
        )


def load_digits() -> Digits:
    """The 1,797 images of 8 x 8 pixels that ship with scikit-learn; every fifth one is for testing.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "load_digits: scikit-learn must be installed (pip install 'kronext[demo]')"
        ) from error
    raw = datasets.load_digits()
    images = torch.from_numpy(raw.data).float() / 16
    labels = torch.from_numpy(raw.target).long()
    test = torch.arange(len(labels)) % 5 == 4
    name = "scikit-learn digits (8 x 8)"
    return Digits(name, images[~test], labels[~test], images[test], labels[test])


def load_mnist(path: str | Path) -> Digits:
    """MNIST from a `.npz` file or from a folder of IDX files, gzipped or not.

    Args:
        path: A file with arrays `x_train, y_train, x_test, y_test` (images as 28 x 28 or rows of
            784 bytes), or a folder with `train-images-idx3-ubyte` and its three companions, each
            optionally `.gz`.

    Raises:
        FileNotFoundError: The path, or one of the four IDX files, does not exist.
        ValueError: A file is not what its name says.
    """
    path = Path(path)
    if path.is_dir():
        arrays = {
            key: _read_idx(path, f"{part}-{kind}")
            for key, part, kind in (
                ("x_train", "train", "images-idx3-ubyte"),
                ("y_train", "train", "labels-idx1-ubyte"),
                ("x_test", "t10k", "images-idx3-ubyte"),
                ("y_test", "t10k", "labels-idx1-ubyte"),
            )
        }
    elif path.exists():
        arrays = _read_npz(path)
    else:
        raise FileNotFoundError(f"load_mnist: path must exist (got path={path})")
    images = {k: arrays[k].flatten(1).float() / 255 for k in ("x_train", "x_test")}
    labels = {k: arrays[k].flatten().long() for k in ("y_train", "y_test")}
    for part in ("train", "test"):
        count, labelled = len(images[f"x_{part}"]), len(labels[f"y_{part}"])
        if count != labelled:
            raise ValueError(
                f"load_mnist: each image must have a label (got images={count}, labels={labelled})"
            )
    return Digits("MNIST", images["x_train"], labels["y_train"], images["x_test"], labels["y_test"])


def _read_npz(path: Path) -> dict[str, Tensor]:
    with open_npz("load_mnist", path) as file:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(file.files)
        if missing:
            raise ValueError(
                f"load_mnist: {path.name} must hold x_train, y_train, x_test and y_test "
                f"(got {', '.join(file.files)})"
            )
        return {key: torch.from_numpy(file[key]) for key in file.files}


def _read_idx(folder: Path, name: str) -> Tensor:
    for candidate, opener in ((folder / name, open), (folder / f"{name}.gz", gzip.open)):
        if candidate.exists():
            with opener(candidate, "rb") as file:
                return _parse_idx(candidate.name, bytearray(file.read()))
    raise FileNotFoundError(f"load_mnist: the folder must hold {name} or {name}.gz (got {folder})")


def _parse_idx(name: str, data: bytearray) -> Tensor:
    """Two zero bytes, the type (8: bytes), the number of dimensions, the sizes, the values."""
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(
            f"load_mnist: {name} must be an IDX file of bytes (got {bytes(data[:4])!r})"
        )
    dimensions = data[3]
    header = 4 + 4 * dimensions
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4)]
    values = torch.frombuffer(data, dtype=torch.uint8)[header:]
    if values.numel() != torch.Size(shape).numel():
        raise ValueError(
            f"load_mnist: {name} must hold {shape} values (got {values.numel()} values)"
        )
    return values.view(shape)
