"""Outer-product accumulation: the Kronecker factors' update."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from kronext.ops import _library as lib


def outer_update_(
    L: Tensor | None, R: Tensor | None, G: Tensor, *, decay: float, weight: float
) -> None:
    """`L <- decay L + weight G GT` and `R <- decay R + weight GT G`, in one op.

    With `decay=1, weight=1` the factors are sums over steps (the Adagrad view), with `decay=beta,
    weight=1-beta` exponential averages. Only the lower triangles of `L` and `R` are read; both
    halves are written with the same bits. `decay=0` does not read the old content at all.

    The precision of float32 products is `torch.get_float32_matmul_precision()` when the op runs: on
    CUDA, and on the CPU where its products of bfloat16 numbers are faster (docs/numerics.md).

    Args:
        L: Left factor, shape `(..., m, m)`, float32 or float64, dense in its last two dimensions;
            updated in place. None leaves the left side out.
        R: Right factor, shape `(..., n, n)`, likewise.
        G: Gradients, shape `(..., m, n)`, float64, float32, bfloat16 or float16, any strides; its
            batch dimensions broadcast to those of the factors. 16-bit values are multiplied exactly
            and accumulated in float32; float64 in `G` or in a factor makes that factor's
            computation float64.
        decay: Multiplies the old factor.
        weight: Multiplies the new outer product.

    Raises:
        ValueError: A shape, stride or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, Section 2 (Shampoo); Proposition 1.
    """
    written = [factor for factor in (L, R) if factor is not None]
    lib.call_in_place(_op, _check, written, L, R, G, decay=decay, weight=weight)


def outer_update_list_(
    Ls: Sequence[Tensor | None] | None,
    Rs: Sequence[Tensor | None] | None,
    Gs: Sequence[Tensor],
    *,
    decay: float | Sequence[float],
    weight: float | Sequence[float],
) -> None:
    """`L <- decay L + weight G GT` and `R <- decay R + weight GT G` for a ragged list, in one call.

    Args:
        Ls: One left factor for each gradient (see `outer_update_`); None in place of one, or of the
            list, leaves it out.
        Rs: One right factor for each gradient, likewise.
        Gs: Gradients of any shapes.
        decay: Multiplies the old factors; one number, or one for each gradient.
        weight: Multiplies the new outer products, likewise.

    Raises:
        ValueError: The lists differ in length, or a shape, stride or device does not fit.
        TypeError: A dtype or an argument type does not fit.

    Source: arXiv 2406.17748, Section 2 (Shampoo); Proposition 1.
    """
    op = "outer_update_list_"
    lib.check_list(op, "Ls", Ls, Gs)
    lib.check_list(op, "Rs", Rs, Gs)
    numbers = {"decay": lib.scalars(decay), "weight": lib.scalars(weight)}
    for name, values in numbers.items():
        lib.check_scalars(op, name, values, Gs)
    lefts, left_places = _packed(Ls)
    rights, right_places = _packed(Rs)
    if written := [*lefts, *rights]:
        places = {"left_places": left_places, "right_places": right_places}
        lists = (lefts, rights, Gs)
        lib.call_in_place(_op_list, _check_list, written, *lists, **numbers, **places)


def _packed(side: Sequence[Tensor | None] | None) -> tuple[list[Tensor], list[int]]:
    """The factors that are there, and where each gradient's own is among them, -1 for none.

    No places where each gradient has its factor, which is the rule.
    """
    if side is None:
        return [], []
    factors = [factor for factor in side if factor is not None]
    if len(factors) == len(side):
        return factors, []
    place = itertools.count()
    return factors, [-1 if factor is None else next(place) for factor in side]


def _check(L: Tensor | None, R: Tensor | None, G: Tensor, *, decay: float, weight: float) -> None:
    lib.check_number("outer_update_", "decay", decay)
    lib.check_number("outer_update_", "weight", weight)
    _check_sides("outer_update_", L, R, G)


def _check_list(
    Ls: Sequence[Tensor],
    Rs: Sequence[Tensor],
    Gs: Sequence[Tensor],
    *,
    decay: Sequence[float],
    weight: Sequence[float],
    left_places: Sequence[int] = (),
    right_places: Sequence[int] = (),
) -> None:
    op = "outer_update_list_"
    lib.check_scalars(op, "decay", decay, Gs)
    lib.check_scalars(op, "weight", weight, Gs)
    lefts, rights = _unpacked(Ls, left_places, Gs), _unpacked(Rs, right_places, Gs)
    first: Tensor | None = None
    for L, R, G in zip(lefts, rights, Gs, strict=True):
        if L is None and R is None:
            continue
        _check_sides(op, L, R, G)
        first = G if first is None else first
        lib.check_same_device(op, first_G=first, G=G)


def _unpacked(
    factors: Sequence[Tensor], places: Sequence[int], Gs: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    if places:
        return [None if place < 0 else factors[place] for place in places]
    return lib.or_none(factors, Gs)


def _check_sides(op: str, L: Tensor | None, R: Tensor | None, G: Tensor) -> None:
    lib.check_matrices(op, "G", G)
    if L is None and R is None:
        lib.refuse(op, "L or R must be given", L=None, R=None)
    if L is not None:
        _check_factor(op, "L", L, G, G.shape[-2])
    if R is not None:
        _check_factor(op, "R", R, G, G.shape[-1])


def _check_factor(op: str, name: str, factor: Tensor, G: Tensor, size: int) -> None:
    lib.check_square(op, name, factor, size)
    lib.check_dense(op, name, factor)
    lib.check_same_device(op, G=G, **{name: factor})
    if lib.check_batch(op, G=G, **{name: factor}) != factor.shape[:-2]:
        shapes = {"G__shape": tuple(G.shape), f"{name}__shape": tuple(factor.shape)}
        lib.refuse(op, f"the batch dimensions of G must broadcast to those of {name}", **shapes)


_op = torch.ops.kronext.outer_update_.default
_op_list = torch.ops.kronext.outer_update_list_.default
torch.library.register_fake("kronext::outer_update_", _check)
torch.library.register_fake("kronext::outer_update_list_", _check_list)
