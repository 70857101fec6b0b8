"""Grafting: the length of one optimizer's step, the direction of another's.

Source: Agarwal et al., Disentangling Adaptive Gradient Methods from Learning Rates, 2020
(arXiv 2002.11803), layer by layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kronext.optim.lists import norms


def redirect_(steps: list[Tensor], directions: list[Tensor]) -> None:
    """`s <- |s| / |d| d` for each pair, in place; where `d = 0` the step stays as it is.

    Args:
        steps: tensors of one device and dtype; overwritten.
        directions: tensors of the same device, dtype and shapes; rescaled in place.
    """
    lengths, sizes = norms(steps), norms(directions)
    points = sizes > 0
    scales = lengths / torch.where(points, sizes, 1)
    torch._foreach_mul_(directions, scales.to(directions[0].dtype).unbind())
    # With weight 1 lerp returns its end, with weight 0 its start, both bit for bit.
    torch._foreach_lerp_(steps, directions, points.to(steps[0].dtype).unbind())
