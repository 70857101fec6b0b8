"""`H` known by its products with a few random vectors: estimates, and how far to trust them.

With probes `v` of `E[v vT] = I`: `Tr(H M) = E[<H v, M v>]` for symmetric `H` and `M`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kronext.curvature.approximation import Approximation


class Products(Protocol):
    """What has products with vectors: a `SecondMoment`, a `GaussNewton`."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def images(self, V: Tensor) -> Tensor:
        """`H vec(v)` for each `v` of `(p, m, n)`."""
        ...


class Estimate(NamedTuple):
    """A number known up to chance.

    Attributes:
        value: the estimate.
        standard_error: its standard deviation over draws of the probes, by the jackknife.
    """

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """About 95% of such intervals hold the truth: two standard errors to either side."""
        return self.value - 2 * self.standard_error, self.value + 2 * self.standard_error


class Hutchinson:
    """`H` by its images of `p` probes.

    It stands for the truth in `cosine_similarity`: the cosine is then that of the images of the
    probes under both matrices, `sum <H v, M v> / sqrt(sum |H v|^2 sum |M v|^2)`. It is never beyond
    1, and exactly 1 where `M` is a multiple of `H`.

    Attributes:
        probes: `(p, m, n)`, with independent entries of mean 0 and variance 1.
        images: `(p, m, n)`, `H` times each.

    Source: Appendix B of Morwani et al. 2024, which estimates `||M||_F` exactly where this takes
    the norms of its images: their chance errors cancel against those of the images of `H`.
    """

    def __init__(self, probes: Tensor, images: Tensor) -> None:
        self.probes = probes
        self.images = images

    @property
    def shape(self) -> tuple[int, int]:
        """`(m, n)`."""
        m, n = self.images.shape[1:]
        return m, n

    def norm(self) -> float:
        """`||H||_F = sqrt(E |H v|^2)`."""
        return self.frobenius_norm().value

    def frobenius_norm(self) -> Estimate:
        """`||H||_F`, with its error."""
        squares = dots(self.images, self.images)
        return jackknife(lambda mean: mean(squares).sqrt(), len(squares))

    def trace(self) -> Estimate:
        """`Tr(H) = E[<v, H v>]`."""
        products = dots(self.probes, self.images)
        return jackknife(lambda mean: mean(products), len(products))

    def inner(self, approximation: Approximation) -> float:
        """`<H, M> = ||M|| E[<H v, M v>] / sqrt(E |M v|^2)`."""
        other = approximation.matvec(self.probes)
        products, squares = dots(self.images, other), dots(other, other)
        return approximation.norm() * float(products.mean() / squares.mean().sqrt())

    def similarity(self, approximation: Approximation) -> Estimate:
        """The cosine similarity of `H` and `M`, with its error; NaN where either is zero."""
        other = approximation.unit().matvec(self.probes)
        products = dots(self.images, other)
        truth, squares = dots(self.images, self.images), dots(other, other)
        return jackknife(
            lambda mean: mean(products) / (mean(truth) * mean(squares)).sqrt(), len(products)
        )


def hutchinson(
    H: Products, *, probes: int = 100, generator: torch.Generator | None = None
) -> Hutchinson:
    """`H` by its products with standard normal probes.

    Args:
        H: a `SecondMoment`, a `GaussNewton`, or anything with `images`, `shape`, `dtype` and
            `device`.
        probes: how many; errors fall with the root of it.
        generator: for the probes, of the device of `H`.

    Raises:
        ValueError: `probes` is below 2, which leaves no error to estimate.

    Source: Hutchinson 1989; Appendix B of Morwani et al. 2024.
    """
    if probes < 2:
        raise ValueError(f"hutchinson: probes must be at least 2 (got probes={probes})")
    V = torch.empty(probes, *H.shape, dtype=H.dtype, device=H.device)
    V.normal_(generator=generator)
    return Hutchinson(V, H.images(V))


def dots(a: Tensor, b: Tensor) -> Tensor:
    """`<a_p, b_p>` for each probe, in float64."""
    # One probe at a time: the copies in float64 of all of them would not fit the cache.
    return torch.stack(
        [torch.dot(x.double(), y.double()) for x, y in zip(a.flatten(1), b.flatten(1), strict=True)]
    )


def jackknife(statistic: Callable[[Callable[[Tensor], Tensor]], Tensor], count: int) -> Estimate:
    """A function of means over probes, and its standard error from leaving out one at a time."""
    value = float(statistic(lambda x: x.mean()))
    without_one = statistic(lambda x: (x.sum() - x) / (count - 1))
    spread = without_one.var(correction=0) * (count - 1)
    return Estimate(value, math.sqrt(float(spread)))
