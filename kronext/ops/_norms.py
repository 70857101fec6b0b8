"""The 2-norms of many tensors in one call: what optimizers take three of for each parameter.

On the CPU a kernel of ours (csrc/torch/norms.cpp): torch's own walks the list one dispatched call
at a time there. Every other device has torch's, which is one launch.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAME = "kronext::norms"


def norms(tensors: list[Tensor]) -> Tensor:
    """`|t|` for each tensor `t`, a vector in float32, in float64 for float64 tensors.

    Args:
        tensors: at least one, of any shapes and strides, of one device and floating-point dtype.
    """
    result: Tensor = torch.ops.kronext.norms(tensors)
    return result


def _by_foreach(tensors: list[Tensor]) -> Tensor:
    half = tensors[0].dtype in (torch.bfloat16, torch.float16)
    return torch.stack(torch._foreach_norm(tensors, 2, torch.float32 if half else None))


torch.library.impl(NAME, "CompositeExplicitAutograd", _by_foreach)
