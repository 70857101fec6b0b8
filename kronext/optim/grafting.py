"""Grafting: the length of one optimizer's step, the direction of another's.

Source: Agarwal et al., Disentangling Adaptive Gradient Methods from Learning Rates, 2020
(arXiv 2002.11803), layer by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from kronext.ops._norms import norms


def rescale_(directions: list[Tensor], lengths: Tensor, counts: Sequence[int]) -> Tensor:
    """`d <- length / |d| d` for each parameter, whose direction `d` may lie in several blocks.

    Args:
        directions: the blocks of all parameters in turn, of one device and dtype; overwritten.
        lengths: one number for each parameter, of either sign.
        counts: how many blocks each parameter has.

    Returns:
        One flag for each parameter, whether `d = 0`: it then stays 0.
    """
    sizes = norms(directions)
    runs = None if len(counts) == len(directions) else _runs(tuple(counts), sizes.device)
    if runs is not None:
        # In float64 no square leaves the range.
        squares = sizes.double().square()
        sizes = torch.segment_reduce(squares, "sum", lengths=runs, unsafe=True).sqrt()
    is_zero = sizes == 0
    scales = lengths / torch.where(is_zero, 1, sizes)
    if runs is not None:
        scales = scales.repeat_interleave(runs, output_size=len(directions))
    torch._foreach_mul_(directions, scales.to(directions[0].dtype).unbind())
    return is_zero


@lru_cache(maxsize=64)
def _runs(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """The counts on the device, to where they would have to be copied at every step otherwise."""
    return torch.tensor(counts, device=device)
