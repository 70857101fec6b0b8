"""What the CPU op and the emulated CUDA kernels of precondition are both held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from helpers import assert_accurate, normal
from torch import Tensor

from kronext import reference

SIDES = [(True, True), (True, False), (False, True)]
Precondition = Callable[[Tensor, "Tensor | None", "Tensor | None"], Tensor]


def operands(
    m: int, n: int, dtype: torch.dtype = torch.float32, factor_dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors that are not symmetric: the op must not assume it."""
    left, right = normal(m, m, dtype=factor_dtype, seed=1), normal(n, n, dtype=factor_dtype, seed=2)
    return normal(m, n, dtype=dtype), left, right


def plain(G: Tensor, left: Tensor | None, right: Tensor | None) -> Tensor:
    """The same computation in torch, in the dtype that the op computes in."""
    dtypes = [t.dtype for t in (G, left, right) if t is not None]
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    result = G.to(wide)
    result = result if left is None else left.to(wide) @ result
    return result if right is None else result @ right.to(wide)


def check_product(
    precondition: Precondition, G: Tensor, left: Tensor | None, right: Tensor | None
) -> None:
    """precondition(G, left, right) errs at most twice as much as plain torch."""
    torch_result = plain(G, left, right)
    result = precondition(G, left, right)
    assert result.dtype == torch_result.dtype
    assert_accurate(result, reference.precondition(G, left, right), torch_result)


def check_sides(precondition: Precondition, G: Tensor, left: Tensor, right: Tensor) -> None:
    """With both factors, and with each alone."""
    for with_left, with_right in SIDES:
        check_product(precondition, G, left if with_left else None, right if with_right else None)


def check_squares(
    ops: Any, Gs: Sequence[Tensor], lefts: Sequence[Tensor], rights: Sequence[Tensor]
) -> None:
    """Outputs have the bits of precondition_list; a batch has an entry for each matrix."""
    Gs = [*Gs, normal(2, 3, *Gs[-1].shape, dtype=Gs[-1].dtype)]
    lefts, rights = ([*side, side[-1]] for side in (lefts, rights))
    sides = [SIDES[i % 3] for i in range(len(Gs))]
    lists = (
        Gs,
        [left if has else None for left, (has, _) in zip(lefts, sides, strict=True)],
        [right if has else None for right, (_, has) in zip(rights, sides, strict=True)],
    )
    outputs, squares = ops.precondition_list_with_squares(*lists)
    for output, same in zip(outputs, ops.precondition_list(*lists), strict=True):
        assert torch.equal(output, same)
    exact = torch.cat([output.double().square().sum((-2, -1)).flatten() for output in outputs])
    assert squares.dtype == outputs[0].dtype
    unit = torch.finfo(squares.dtype).eps
    torch.testing.assert_close(squares.double(), exact, rtol=8 * unit, atol=0)


def check_every_16_bit_value(precondition: Precondition, dtype: torch.dtype, width: int) -> None:
    """All finite bit patterns, multiplied by the identity, against torch's own conversion."""
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)[bits.view(dtype).isfinite()]
    G = values[: len(values) // width * width].view(-1, width)
    identity = torch.eye(width)
    assert torch.equal(precondition(G, None, identity), G.float())
    assert torch.equal(precondition(G.mT, identity, None), G.mT.float())
    assert torch.equal(precondition(G, None, identity.double()), G.double())


def check_non_finite(precondition: Precondition, poison: float) -> None:
    """A non-finite value stays in its matrix, and shows in all of it."""
    G, left, right = normal(3, 20, 33), normal(20, 20), normal(33, 33)
    clean = precondition(G, left, right)
    G[1, 4, 5] = poison
    result = precondition(G, left, right)
    assert torch.equal(result[::2], clean[::2])
    assert not result[1].isfinite().any()
