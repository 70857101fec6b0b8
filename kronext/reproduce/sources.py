"""Where the data of an experiment are: which files `--data` may name or hold."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import torch.nn.functional as F

from kronext.datasets import (
    ArrayImages,
    Digits,
    Images,
    load_cifar5m,
    load_cifar10,
    load_digits,
    load_image_files,
    load_mnist,
)

Loader = Callable[[Path, int], Images]


def _zeros_and_ones(digits: Digits) -> Images:
    pair = digits.only(0, 1)
    return ArrayImages(pair.name, pair.train_images, pair.train_labels)


def _load_mnist(path: Path, _: int) -> Images:
    return _zeros_and_ones(load_mnist(path))


def _load_cifar_files(path: Path, size: int) -> Images:
    name = "CIFAR-10 (JPEG)" if "jpg" in path.name else "CIFAR-10"
    return load_image_files(path, size=size, name=name)


def _load_imagenet(path: Path, size: int) -> Images:
    name = "Imagenette" if "imagenette" in path.name.lower() else "ImageNet"
    return load_image_files(path, size=size, name=name)


# Names in the order of preference; a path that is found stands for its folder where the loader
# takes folders of files with this name.
SOURCES: dict[str, dict[str, Loader]] = {
    "mnist": {
        "mnist*.npz": _load_mnist,
        "train-images-idx3-ubyte*": lambda path, _: _load_mnist(path.parent, 0),
        "mnist": _load_mnist,
    },
    "cifar": {
        "cifar5m_part0.npz": lambda path, _: load_cifar5m(path.parent),
        "cifar5m": lambda path, _: load_cifar5m(path),
        "data_batch_1": lambda path, _: load_cifar10(path.parent),
        "cifar-10-batches-py": lambda path, _: load_cifar10(path),
        "cifar10*": _load_cifar_files,
    },
    "imagenet": {
        "imagenet*": _load_imagenet,
    },
}


def find(kind: str, data: Path) -> Callable[[int], Images]:
    """What loads the data of this kind, given the side of its images.

    Args:
        kind: a key of `SOURCES`.
        data: a file or folder of this kind, or a folder that holds one.

    Raises:
        FileNotFoundError: `data` does not exist, or is and holds nothing of this kind.
    """
    if not data.exists():
        raise FileNotFoundError(f"reproduce: --data must exist (got {data})")
    candidates = [data, *sorted(data.iterdir())] if data.is_dir() else [data]
    for pattern, load in SOURCES[kind].items():
        for path in candidates:
            if fnmatch(path.name, pattern):
                return partial(load, path)
    names = [path.name for path in candidates[1:9]] or [data.name]
    raise FileNotFoundError(
        f"reproduce: --data must be or hold one of {', '.join(SOURCES[kind])} for {kind} "
        f"(got {', '.join(names)}); --preset quick without --data needs no files"
    )


def bundled(kind: str, size: int) -> Images:
    """The digits of scikit-learn in the place of any data; as colour images, of this side."""
    digits = load_digits()
    if kind == "mnist":
        return _zeros_and_ones(digits)
    grey = digits.train_images.view(-1, 1, 8, 8)
    images = F.interpolate(grey, (size, size), mode="bilinear").expand(-1, 3, -1, -1)
    return ArrayImages(digits.name, images, digits.train_labels)
