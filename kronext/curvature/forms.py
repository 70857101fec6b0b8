"""`H` from whatever form one has of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

from kronext.curvature.moments import DenseMoment, SecondMoment
from kronext.curvature.samples import Chunk, is_pair, sampled_moment
from kronext.curvature.streams import StreamedMoment

if TYPE_CHECKING:
    from kronext.curvature.approximation import Approximation

Samples: TypeAlias = "Chunk | Iterable[Chunk] | SecondMoment"


@runtime_checkable
class Truth(Protocol):
    """What a comparison needs of `H`: its norm, and its inner product with an approximation."""

    def norm(self) -> float:
        """`||H||_F`."""
        ...

    def inner(self, approximation: Approximation) -> float:
        """`<H, M>`, for an approximation `M` of norm 1."""
        ...


def second_moment(samples: Samples, *, shape: tuple[int, int] | None = None) -> SecondMoment:
    """`H = E[vec(G) vec(G)T]` from whatever form one has of it.

    Args:
        samples: gradients `(S, m, n)`; a factored pair (a tuple) `(D, A)` of `(S, T, m)` and
            `(S, T, n)` for `G_s = D_sT A_s`; an iterable that can be walked more than once and
            yields chunks of one of these kinds (a list, a `Stream`), for data larger than memory; a
            dense `H` `(mn, mn)`; or a `SecondMoment`, returned as it is.
        shape: `(m, n)`, with a dense `H` only.

    Raises:
        ValueError: the samples have none of these forms, or there are none.
        TypeError: the samples are not tensors, or can be walked only once.
    """
    if isinstance(samples, SecondMoment):
        return samples
    if shape is not None:
        return _dense_moment(samples, shape)
    if isinstance(samples, Tensor) or is_pair(samples):
        return sampled_moment(samples)
    return StreamedMoment(samples)


def as_truth(truth: Samples | Truth, shape: tuple[int, int] | None) -> Truth:
    """The truth itself, or the second moment of samples, scaled so that no product overflows."""
    # Tensors have methods of these names too.
    if isinstance(truth, Truth) and not isinstance(truth, (Tensor, SecondMoment)):
        return truth
    return second_moment(truth, shape=shape).in_range


def _dense_moment(H: object, shape: tuple[int, int]) -> SecondMoment:
    m, n = shape
    if not isinstance(H, Tensor) or H.shape != (m * n, m * n):
        got = tuple(H.shape) if isinstance(H, Tensor) else type(H).__name__
        raise ValueError(
            f"second_moment: a dense H must be (mn, mn) for shape=(m, n) (got shape={shape}, "
            f"H={got})"
        )
    return DenseMoment(H.detach(), shape)
