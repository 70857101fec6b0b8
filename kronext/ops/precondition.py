"""Applying the preconditioner: two-sided products with Kronecker factors' roots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kronext.ops import _library as lib


class PreconditionedList(NamedTuple):
    """Outputs and their sizes.

    Attributes:
        outputs: one for each gradient.
        squares: 1-D, of the dtype of the outputs: the sum of squares of each matrix, in the order
            of the list, batches flattened. `squares.sqrt()` are Frobenius norms.
    """

    outputs: list[Tensor]
    squares: Tensor


def precondition(G: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """`left G right`: the action of `left (x) right` on `vec(G)`.

    The precision of float32 products is `torch.get_float32_matmul_precision()` when the op runs. On
    the CPU large matrices alone make use of what it permits, where the processor multiplies
    bfloat16 numbers (docs/numerics.md).

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
    results: list[Tensor] = [torch.Tensor()] * len(Gs)
    for group in _groups("precondition_list", Gs, lefts, rights):
        outputs = lib.call(_op_list, _check_list, group.Gs, group.lefts, group.rights)
        if len(outputs) == len(results):
            return list(outputs)
        for i, output in zip(group.indices, outputs, strict=True):
            results[i] = output
    return results


def precondition_list_with_squares(
    Gs: Sequence[Tensor],
    lefts: Sequence[Tensor | None] | None,
    rights: Sequence[Tensor | None] | None,
) -> PreconditionedList:
    """`X = left G right` and `sum X^2` for a ragged list, in one call and one pass over `X`.

    For optimizers of one's own that graft, giving each `X` the norm of another step; those of
    `kronext.optim` do not call it.

    Args:
        Gs: Gradients of any shapes (see `precondition`), for outputs of one dtype.
        lefts: See `precondition_list`.
        rights: Likewise.

    Returns:
        Outputs and sums of squares. The sums repeat bit for bit.

    Raises:
        ValueError: See `precondition_list`.
        TypeError: A dtype or an argument type does not fit, or outputs differ in dtype.

    Source: Agarwal et al. 2020 (arXiv 2002.11803), grafting.
    """
    op = "precondition_list_with_squares"
    groups = _groups(op, Gs, lefts, rights)
    if len(groups) > 1:
        _check_list_with_squares(Gs, lefts or [], rights or [])
    results: list[Tensor] = [torch.Tensor()] * len(Gs)
    squares: list[Tensor] = [torch.Tensor()] * len(Gs)
    for group in groups:
        outputs, flat = lib.call(
            _op_list_with_squares, _check_list_with_squares, group.Gs, group.lefts, group.rights
        )
        if len(groups) == 1:
            return PreconditionedList(list(outputs), flat)
        parts = flat.split([output.shape[:-2].numel() for output in outputs])
        for i, output, part in zip(group.indices, outputs, parts, strict=True):
            results[i], squares[i] = output, part
    return PreconditionedList(results, torch.cat(squares) if squares else torch.empty(0))


def _groups(
    op: str,
    Gs: Sequence[Tensor],
    lefts: Sequence[Tensor | None] | None,
    rights: Sequence[Tensor | None] | None,
) -> list[lib.Group]:
    lib.check_list(op, "lefts", lefts, Gs)
    lib.check_list(op, "rights", rights, Gs)
    return lib.group_by_side(lefts, rights, Gs)


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
    Gs: Sequence[Tensor],
    lefts: Sequence[Tensor | None],
    rights: Sequence[Tensor | None],
    op: str = "precondition_list",
) -> list[Tensor]:
    rows = zip(Gs, lib.or_none(lefts, Gs), lib.or_none(rights, Gs), strict=True)
    return [_check(G, left, right, op) for G, left, right in rows]


def _check_list_with_squares(
    Gs: Sequence[Tensor], lefts: Sequence[Tensor | None], rights: Sequence[Tensor | None]
) -> tuple[list[Tensor], Tensor]:
    op = "precondition_list_with_squares"
    outputs = _check_list(Gs, lefts, rights, op)
    dtypes = {output.dtype for output in outputs}
    if len(dtypes) > 1:
        lib.refuse_type(op, "outputs must have one dtype", dtypes=sorted(map(str, dtypes)))
    return outputs, outputs[0].new_empty(sum(output.shape[:-2].numel() for output in outputs))


_op = torch.ops.kronext.precondition.default
_op_list = torch.ops.kronext.precondition_list.default
_op_list_with_squares = torch.ops.kronext.precondition_list_with_squares.default
torch.library.register_fake("kronext::precondition", _check)
torch.library.register_fake("kronext::precondition_list", _check_list)
torch.library.register_fake("kronext::precondition_list_with_squares", _check_list_with_squares)
