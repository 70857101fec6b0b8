"""Real data by path: MNIST, CIFAR, CIFAR-5M, folders of images; and the digits of scikit-learn."""

from __future__ import annotations

from kronext.datasets.digits import Digits, load_digits, load_mnist
from kronext.datasets.images import (
    ArrayImages,
    EncodedImages,
    Images,
    load_cifar5m,
    load_cifar10,
    load_image_files,
)

__all__ = [
    "ArrayImages",
    "Digits",
    "EncodedImages",
    "Images",
    "load_cifar5m",
    "load_cifar10",
    "load_digits",
    "load_image_files",
    "load_mnist",
]
