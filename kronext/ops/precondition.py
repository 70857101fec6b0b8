"""Applying the preconditioner: two-sided products with Kronecker factors' roots."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kronext.ops import _library as lib


def precondition(G: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """`left G right`: the action of `left (x) right` on `vec(G)`.

    Args:
        G: Gradients, shape `(..., m, n)`, float64, float32, bfloat16 or float16, any strides.
        left: Shape `(..., m, m)`, float32 or float64; None stands for the identity.
        right: Shape `(..., n, n)`, likewise. The batch dimensions of all three broadcast.

    Returns:
        A new tensor of shape `(..., m, n)`, float64 where any operand is float64, else float32.

    Raises:
        ValueError: A shape or device does not fit, or both factors are None.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, Section 2 (Shampoo's update, `left = L^(-p)`, `right = R^(-p)`).
    """
    result: Tensor = lib.call(_op, _check, G, left, right)
    return result


def precondition_list(
    Gs: Sequence[Tensor],
    lefts: Sequence[Tensor | None] | None,
    rights: Sequence[Tensor | None] | None,
) -> list[Tensor]:
    """`left G right` for a ragged list, in one call.

    Args:
        Gs: Gradients of any shapes (see `precondition`).
        lefts: One left factor for each gradient; None in place of one, or of the list, stands for
            the identity.
        rights: One right factor for each gradient, likewise.

    Returns:
        One new tensor for each gradient.

    Raises:
        ValueError: The lists differ in length, a shape or device does not fit, or both factors of
            a gradient are None.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, Section 2.
    """
    op = "precondition_list"
    lib.check_list(op, "lefts", lefts, Gs)
    lib.check_list(op, "rights", rights, Gs)
    results: list[Tensor] = [torch.Tensor()] * len(Gs)
    for group in lib.group_by_side(lefts, rights, Gs):
        outputs = lib.call(_op_list, _check_list, group.Gs, group.lefts, group.rights)
        if len(outputs) == len(results):
            return list(outputs)
        for i, output in zip(group.indices, outputs, strict=True):
            results[i] = output
    return results


def _check(
    G: Tensor, left: Tensor | None, right: Tensor | None, op: str = "precondition"
) -> Tensor:
    lib.check_matrices(op, "G", G)
    given = {"G": G}
    if left is not None:
        given["left"] = lib.check_square(op, "left", left, G.shape[-2])
    if right is not None:
        given["right"] = lib.check_square(op, "right", right, G.shape[-1])
    if len(given) == 1:
        lib.refuse(op, "left or right must be given", left=None, right=None)
    lib.check_same_device(op, **given)
    batch = lib.check_batch(op, **given)
    wide = any(tensor.dtype == torch.float64 for tensor in given.values())
    return G.new_empty(batch + G.shape[-2:], dtype=torch.float64 if wide else torch.float32)


def _check_list(
    Gs: Sequence[Tensor], lefts: Sequence[Tensor], rights: Sequence[Tensor]
) -> list[Tensor]:
    rows = zip(Gs, lib.or_none(lefts, Gs), lib.or_none(rights, Gs), strict=True)
    return [_check(G, left, right, "precondition_list") for G, left, right in rows]


_op = torch.ops.kronext.precondition.default
_op_list = torch.ops.kronext.precondition_list.default
torch.library.register_fake("kronext::precondition", _check)
torch.library.register_fake("kronext::precondition_list", _check_list)
