"""K-FAC and its kin: Kronecker products from the factors `(D, A)` of the gradients.

`G_x = sum_t d_t a_tT` over the positions `t` of an example at which a layer uses its weight. All of
these replace it by terms `d aT` that they take to be independent of each other:

| variant | terms of an example | meant for |
|---|---|---|
| "expand" | `(d_t, a_t)` for each position | one loss term a position: language models |
| "reduce" | `(sum_t d_t, mean_t a_t)` | one loss term an example: pooled, convolutional |

With one position the two are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from kronext import ops
from kronext.curvature.approximation import Diagonal, KroneckerFactors
from kronext.curvature.estimators import diagonal
from kronext.curvature.forms import Samples, second_moment
from kronext.curvature.samples import FactoredMoment
from kronext.curvature.streams import StreamedMoment

Variant: TypeAlias = Literal["expand", "reduce"]


@torch.no_grad()
def kfac(D: Samples, A: Tensor | None = None, variant: Variant = "expand") -> KroneckerFactors:
    """`H ~ E[d dT] (x) E[a aT]`, with `E` over examples, summed over terms on the left side.

    Args:
        D: output gradients `(S, T, m)`; or, without `A`, a factored pair `(D, A)`, a stream of
            such pairs, or their `SecondMoment`.
        A: inputs `(S, T, n)`.
        variant: "expand" or "reduce", see the module.

    Raises:
        ValueError: an unknown variant, or shapes that do not fit.
        TypeError: the samples are not factored.

    Source: Martens and Grosse 2015; Eschenhagen et al. 2023 (expand and reduce).
    """
    factors = _Sums("kfac", D, A, variant)
    for d, a in factors.terms():
        ops.outer_update_(None, factors.left, d, decay=1.0, weight=1.0)
        ops.outer_update_(None, factors.right, a, decay=1.0, weight=1.0)
    return factors.product(1 / factors.examples, 1 / factors.count)


@torch.no_grad()
def tkfac(D: Samples, A: Tensor | None = None, variant: Variant = "expand") -> KroneckerFactors:
    """`H ~ E[|a|^2 d dT] (x) E[|d|^2 a aT] / E[|a|^2 |d|^2]`: trace-restricted K-FAC.

    The trace is that of the sum of the terms. With one position a term is the gradient itself,
    `|a|^2 d dT = G GT`, and this is `shampoo2`.

    Args:
        D: see `kfac`.
        A: see `kfac`.
        variant: see `kfac`.

    Raises:
        ValueError: an unknown variant, or shapes that do not fit.
        TypeError: the samples are not factored.

    Source: Gao et al. 2021.
    """
    factors = _Sums("tkfac", D, A, variant)
    for d, a in factors.terms():
        d_norms, a_norms = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (d, a))
        ops.outer_update_(None, factors.left, a_norms * d, decay=1.0, weight=1.0)
        ops.outer_update_(None, factors.right, d_norms * a, decay=1.0, weight=1.0)
    trace = float(factors.left.trace())
    # Both sums are S times the expectation, and so is the trace.
    return factors.product(1 / factors.examples, 1 / trace if trace else 0.0)


@torch.no_grad()
def ekfac(D: Samples, A: Tensor | None = None, variant: Variant = "expand") -> Diagonal:
    """`H ~ Q diag(E[(QLT G QR)^2]) QT`, with `Q = QL (x) QR` the eigenvectors of `kfac`.

    Args:
        D: see `kfac`.
        A: see `kfac`.
        variant: see `kfac`.

    Raises:
        ValueError: an unknown variant, or shapes that do not fit.
        TypeError: the samples are not factored.

    Source: George et al. 2018.
    """
    moment = second_moment(_samples(D, A))
    return diagonal(moment, basis=kfac(moment, variant=variant))


class _Sums:
    """The two factors, as sums over the terms of all examples."""

    def __init__(self, caller: str, D: Samples, A: Tensor | None, variant: Variant) -> None:
        if variant not in ("expand", "reduce"):
            raise ValueError(
                f"{caller}: variant must be expand or reduce (got variant={variant!r})"
            )
        moment = second_moment(_samples(D, A))
        chunks = moment if isinstance(moment, StreamedMoment) else [moment]
        self._chunks = cast(Iterable[FactoredMoment], chunks)
        self._caller = caller
        self._variant = variant
        self._moment = moment
        self.left, self.right = (torch.zeros_like(eye).double() for eye in moment.identities())
        self.examples, self.count = 0, 0

    def terms(self) -> Iterable[tuple[Tensor, Tensor]]:
        """`d` and `a` of the terms, one a row, chunk by chunk; counts them."""
        for chunk in self._chunks:
            if not isinstance(chunk, FactoredMoment):
                raise TypeError(
                    f"{self._caller}: samples must be factored, (D, A) (got {type(chunk).__name__})"
                )
            D, A = chunk.D.to(chunk.dtype), chunk.A.to(chunk.dtype)
            reduced = self._variant == "reduce"
            d, a = (D.sum(1), A.mean(1)) if reduced else (D.flatten(0, 1), A.flatten(0, 1))
            self.examples += len(D)
            self.count += len(d)
            yield d, a

    def product(self, left_weight: float, right_weight: float) -> KroneckerFactors:
        """The sums times these weights, in the dtype of the samples."""
        left, right = self.left * left_weight, self.right * right_weight
        return KroneckerFactors(left.to(self._moment.dtype), right.to(self._moment.dtype))


def _samples(D: Samples, A: Tensor | None) -> Samples:
    return D if A is None else (cast(Tensor, D), A)
