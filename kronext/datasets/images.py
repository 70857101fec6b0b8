"""Labelled images for training: CIFAR-10, CIFAR-5M, and folders or archives of image files."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import tarfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from kronext.datasets.npz import open_npz

_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp"}

Encoded: TypeAlias = "bytes | Path"


class Images(ABC):
    """Inputs with a label each, read by their numbers.

    Attributes:
        name: of the data set.
        labels: `(N,)`, int64, from 0.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, name: str, labels: Tensor) -> None:
        if len(labels) == 0:
            raise ValueError(f"{name}: there must be images (got images=0)")
        self.name = name
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1

    @abstractmethod
    def pixels(self, indices: Tensor) -> Tensor:
        """These images, float32 in [0, 1]."""

    def checksum(self) -> int:
        """A number that other data would not have: of all labels and of a few images."""
        few = self.pixels(torch.linspace(0, len(self) - 1, 8).long())
        return zlib.crc32(few.numpy().tobytes(), zlib.crc32(self.labels.numpy().tobytes()))


class ArrayImages(Images):
    """Images in memory, `(N, ...)` of one shape: bytes, or numbers in [0, 1]."""

    def __init__(self, name: str, arrays: Tensor, labels: Tensor) -> None:
        if len(arrays) != len(labels):
            raise ValueError(
                f"{name}: each image must have a label (got images={len(arrays)}, "
                f"labels={len(labels)})"
            )
        super().__init__(name, labels.long())
        self._arrays = arrays

    @override
    def pixels(self, indices: Tensor) -> Tensor:
        chosen = self._arrays[indices]
        return chosen / 255 if chosen.dtype == torch.uint8 else chosen.float()


class EncodedImages(Images):
    """JPEG and other image files, decoded each time they are read, to `(3, size, size)`.

    Only the files themselves (or their paths) are in memory. An image is scaled until its shorter
    side is `size`, and the middle of the longer one is kept.
    """

    def __init__(self, name: str, files: Sequence[Encoded], labels: Tensor, size: int) -> None:
        super().__init__(name, labels)
        self._files = files
        self._size = size

    @override
    def pixels(self, indices: Tensor) -> Tensor:
        files = [self._files[index] for index in indices.tolist()]
        with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as threads:
            return torch.stack(list(threads.map(self._decode, files))) / 255

    def _decode(self, file: Encoded) -> Tensor:
        import numpy as np
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                square = image.convert("RGB")
        except (OSError, SyntaxError) as error:  # by the latter Pillow means that of a PNG
            what = f"one of {len(file)} bytes" if isinstance(file, bytes) else file
            raise ValueError(
                f"{self.name}: each image must be whole (got {what}: {error})"
            ) from error
        if square.size != (self._size, self._size):
            square = ImageOps.fit(square, (self._size, self._size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def load_cifar10(folder: str | Path) -> Images:
    """The 50,000 training images of CIFAR-10, from the pickles of its authors.

    Args:
        folder: `cifar-10-batches-py`, with `data_batch_1` to `data_batch_5`.

    Raises:
        FileNotFoundError: one of the five is missing.
        ValueError: a file is not what its name says.
    """
    arrays, labels = [], []
    for number in range(1, 6):
        path = Path(folder) / f"data_batch_{number}"
        if not path.exists():
            raise FileNotFoundError(
                f"load_cifar10: the folder must hold {path.name} (got {folder})"
            )
        batch = _unpickle(path)
        data, classes = batch.get(b"data"), batch.get(b"labels")
        if getattr(data, "shape", (0, 0))[1:] != (3072,) or classes is None:
            raise ValueError(
                f"load_cifar10: {path.name} must hold b'data' (N, 3072) and b'labels' "
                f"(got {sorted(map(str, batch))})"
            )
        arrays.append(torch.from_numpy(data).view(-1, 3, 32, 32))
        labels.append(torch.tensor(classes))
    return ArrayImages("CIFAR-10", torch.cat(arrays), torch.cat(labels))


def load_cifar5m(folder: str | Path) -> Images:
    """CIFAR-5M (Nakkiran et al. 2020), from as many of its parts as there are.

    Args:
        folder: with `cifar5m_part0.npz` and so on, each with `X` (N, 32, 32, 3) bytes and `Y`.

    Raises:
        FileNotFoundError: there is no part.
        ValueError: a part is not what its name says.
    """
    parts = sorted(Path(folder).glob("cifar5m_part*.npz"))
    if not parts:
        raise FileNotFoundError(
            f"load_cifar5m: the folder must hold cifar5m_part0.npz (got {folder})"
        )
    arrays, labels = [], []
    for path in parts:
        with open_npz("load_cifar5m", path) as part:
            if {"X", "Y"} - set(part.files) or part["X"].shape[1:] != (32, 32, 3):
                raise ValueError(
                    f"load_cifar5m: {path.name} must hold X (N, 32, 32, 3) and Y "
                    f"(got {', '.join(part.files)})"
                )
            arrays.append(torch.from_numpy(part["X"]).permute(0, 3, 1, 2))
            labels.append(torch.from_numpy(part["Y"]))
    return ArrayImages("CIFAR-5M", torch.cat(arrays), torch.cat(labels))


def load_image_files(path: str | Path, *, size: int, name: str | None = None) -> Images:
    """Images in one folder a class: `train/<class>/<file>`, or `<class>/<file>`.

    Args:
        path: the folder that holds `train`, or the classes themselves; or a tar archive of one,
            compressed or not. Other folders beside `train` are not read.
        size: of the images, after scaling and cropping.
        name: of the data set; that of the folder or archive where None.

    Raises:
        ImportError: Pillow is not installed.
        FileNotFoundError: the path does not exist.
        ValueError: there are no images, or the archive is not whole.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "load_image_files: Pillow must be installed (pip install 'kronext[reproduce]')"
        ) from error
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"load_image_files: path must exist (got path={path})")
    # Sorted, so that classes and order do not depend on the file system.
    found = sorted(_in_folder(path) if path.is_dir() else _in_archive(path), key=lambda f: f[:2])
    if not found:
        raise ValueError(
            f"load_image_files: path must hold <class>/<image> or train/<class>/<image> "
            f"(got path={path})"
        )
    classes = {label: number for number, label in enumerate(sorted({f[0] for f in found}))}
    labels = torch.tensor([classes[label] for label, *_ in found])
    return EncodedImages(name or path.name.split(".")[0], [f[2] for f in found], labels, size)


def _in_folder(folder: Path) -> Iterator[tuple[str, str, Encoded]]:
    """Class, file name and path of each image."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    for path in root.glob("*/*"):
        if path.suffix.lower() in _SUFFIXES:
            yield path.parent.name, path.name, path


def _in_archive(archive: Path) -> Iterator[tuple[str, str, Encoded]]:
    """Class, file name and bytes of each image."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = Path(member.name)
                inside = len(path.parts) == 2 or (len(path.parts) > 2 and path.parts[-3] == "train")
                if member.isfile() and inside and path.suffix.lower() in _SUFFIXES:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield path.parent.name, path.name, file.read()
            _check_end(tar)
    except (tarfile.ReadError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            "load_image_files: path must be a folder or a tar archive, which must be whole "
            f"(got path={archive})"
        ) from error


def _check_end(tar: tarfile.TarFile) -> None:
    """An archive ends with two blocks of zeros; tarfile ends at whatever is no header, too."""
    assert tar.fileobj is not None
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it breaks off")
    while tar.fileobj.read(1 << 20):  # where it is compressed a checksum comes last
        pass


_ARRAY_PARTS = {("numpy", part) for part in ("_frombuffer", "_reconstruct", "dtype", "ndarray")}
_ARRAY_PARTS |= {("_codecs", "encode")}


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of arrays, and calls nothing else that a file may name."""

    @override
    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        with open(path, "rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"load_cifar10: {path.name} must be a pickle of arrays (got {error})"
        ) from error
    if not isinstance(batch, dict):
        raise ValueError(
            f"load_cifar10: {path.name} must hold a dictionary (got {type(batch).__name__})"
        )
    return batch
