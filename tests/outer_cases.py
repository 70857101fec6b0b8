"""What the CPU op and the emulated CUDA kernels of outer_update are both held against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from helpers import assert_accurate, assert_symmetric, symmetric
from torch import Tensor

from kronext import reference

DECAY, WEIGHT = 0.9, 0.25


def factors(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    *batch, m, n = shape
    return symmetric(*batch, m, m, dtype=dtype, seed=1), symmetric(
        *batch, n, n, dtype=dtype, seed=2
    )


def plain(L: Tensor, R: Tensor, G: Tensor, decay: float, weight: float) -> tuple[Tensor, Tensor]:
    """The same computation in torch, in the dtype that the op computes in."""
    G = G.to(torch.promote_types(L.dtype, G.dtype))
    return decay * L + weight * (G @ G.mT), decay * R + weight * (G.mT @ G)


def check_update(
    update: Callable[..., None],
    G: Tensor,
    L: Tensor,
    R: Tensor,
    decay: float = DECAY,
    weight: float = WEIGHT,
) -> None:
    """update(L, R, G, decay=, weight=) errs at most twice as much as plain torch."""
    expected = reference.outer_update(L, R, G, decay=decay, weight=weight)
    torch_result = plain(L, R, G, decay, weight)
    update(L, R, G, decay=decay, weight=weight)
    for side, result, oracle, naive in zip("LR", (L, R), expected, torch_result, strict=True):
        assert_accurate(result, oracle, naive, side)
        assert_symmetric(result, side)
