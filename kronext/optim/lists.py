"""Lists of tensors handled in a number of calls that does not grow with their length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from kronext.ops._norms import norms

T = TypeVar("T")


def buckets(items: Sequence[T], keys: Sequence[Hashable]) -> list[list[T]]:
    """Return the items in lists of equal key, in order of first appearance."""
    if len(set(keys)) <= 1:
        return [list(items)] if items else []
    lists: dict[Hashable, list[T]] = {}
    for item, key in zip(items, keys, strict=True):
        lists.setdefault(key, []).append(item)
    return list(lists.values())


def empty_like_all(
    tensors: list[Tensor], dtype: torch.dtype | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return one flat buffer, and for each tensor a dense view of it with the tensor's shape."""
    sizes = [tensor.numel() for tensor in tensors]
    flat = torch.empty(sum(sizes), dtype=dtype or tensors[0].dtype, device=tensors[0].device)
    pieces = zip(torch.split(flat, sizes), tensors, strict=True)
    return flat, [piece.view(tensor.shape) for piece, tensor in pieces]


def widened(tensors: list[Tensor]) -> list[Tensor]:
    """Return half-precision tensors in float32, others as they are."""
    if tensors[0].dtype not in (torch.bfloat16, torch.float16):
        return tensors
    _, copies = empty_like_all(tensors, torch.float32)
    torch._foreach_copy_(copies, tensors)
    return copies


def narrowed(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the tensors in `dtype`, themselves where they have it.

    Values beyond the range of `dtype` become its largest: an Inf would spread. They do so in place.
    """
    if tensors[0].dtype == dtype:
        return tensors
    largest = torch.finfo(dtype).max
    torch._foreach_clamp_min_(tensors, -largest)
    torch._foreach_clamp_max_(tensors, largest)
    _, copies = empty_like_all(tensors, dtype)
    torch._foreach_copy_(copies, tensors)
    return copies


@dataclass(frozen=True)
class Screened:
    """Gradients that may enter the factors.

    Attributes:
        gradients: as given; None where absent or, on the CPU, not finite; on an accelerator zeros
            where not finite.
        finite: on accelerators a 0-D tensor a gradient, 1 where it is finite; None on the CPU.
        skipped: how many gradients were not finite, a 0-D tensor for each device and dtype.
    """

    gradients: list[Tensor | None]
    finite: list[Tensor | None]
    skipped: list[Tensor]


def add_scaled_(tensors: list[Tensor], others: list[Tensor], scale: float | Tensor) -> None:
    """`t <- t + scale o` for each pair; a scale on an accelerator is not read by the host."""
    if isinstance(scale, Tensor):
        torch._foreach_add_(tensors, torch._foreach_mul(others, scale))
    else:
        torch._foreach_add_(tensors, others, alpha=scale)


def may_hold(flags: Tensor) -> bool:
    """Return whether any flag is set; where the host would have to wait for that, True."""
    return not host_reads_for_free(flags.device) or bool(flags.any())


def host_reads_for_free(device: torch.device) -> bool:
    """Return whether the host can look at a value without waiting for a queue of kernels."""
    return device.type == "cpu"


def screen(gradients: Sequence[Tensor | None]) -> Screened:
    """Take out the gradients whose squared norm is not finite.

    The squared norm is the trace of `G GT`: a gradient whose square overflows would poison the
    factors as surely as one with a NaN. Sparse gradients are let through unseen.
    """
    screened = Screened(list(gradients), [None] * len(gradients), [])
    dense = [
        (index, gradient)
        for index, gradient in enumerate(gradients)
        if gradient is not None and gradient.layout == torch.strided
    ]
    for bucket in buckets(dense, [(gradient.device, gradient.dtype) for _, gradient in dense]):
        tensors = [gradient for _, gradient in bucket]
        sizes = norms(tensors)
        # False for a NaN too.
        finite = sizes < torch.finfo(sizes.dtype).max ** 0.5
        if host_reads_for_free(finite.device):
            if finite.all():
                continue
            screened.skipped.append((~finite).sum())
            for (index, _), is_finite in zip(bucket, finite.tolist(), strict=True):
                if not is_finite:
                    screened.gradients[index] = None
        else:
            screened.skipped.append((~finite).sum())
            # 0 * NaN is NaN, so what is not finite goes before the product with 0.
            flat, cleaned = empty_like_all(tensors)
            torch._foreach_copy_(cleaned, tensors)
            flat.nan_to_num_(0, 0, 0)
            flags = finite.to(flat.dtype).unbind()
            torch._foreach_mul_(cleaned, flags)
            for (index, _), gradient, flag in zip(bucket, cleaned, flags, strict=True):
                screened.gradients[index] = gradient
                screened.finite[index] = flag
    return screened
