"""How tensors reach the emulated kernels."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor


def matrix(module: ModuleType, x: Tensor) -> tuple[object, ...]:
    """A matrix as the bindings take it."""
    dtype = getattr(module.Dtype, str(x.dtype).removeprefix("torch."))
    return (x.data_ptr(), dtype, *x.shape, *x.stride())


def matrices(x: Tensor) -> list[Tensor]:
    """The matrices of a batch as views."""
    if x.dim() == 2:
        return [x]
    return [matrix for entry in torch.unbind(x) for matrix in matrices(entry)]
